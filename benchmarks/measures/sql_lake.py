"""What asking costs in a lake: every question of the SQL pack, on a month of ten million events in Parquet through DuckDB."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measures import Effort, sql_pack
from benchmarks.result import Result
from storage.lake import EVENTS
from storage.lake.parquet import COMPRESSION, ROW_GROUP, pq, schema

_TIMES = 10
# Each copy is of other people, devices and mails, a moment later, but never on another day: that would be another file's.
_COPIED = """
SELECT * EXCLUDE (copy, later) REPLACE (
    CAST(uuid() AS VARCHAR) AS event_id, copy || domain_userid AS domain_userid, copy || domain_sessionid AS domain_sessionid,
    collector_tstamp + later AS collector_tstamp, derived_tstamp + later AS derived_tstamp, etl_tstamp + later AS etl_tstamp,
    replace(derived_contexts, '"device":"', '"device":"' || copy) AS derived_contexts,
    replace(unstruct_event, '"message":"', '"message":"' || copy) AS unstruct_event
)
FROM (
    SELECT e.*, CAST(copy AS VARCHAR) AS copy, CASE
        WHEN CAST(collector_tstamp + to_milliseconds(97 * copy) AS DATE) = CAST(collector_tstamp AS DATE)
        THEN to_milliseconds(97 * copy) ELSE to_milliseconds(0) END AS later
    FROM read_parquet($1, hive_partitioning = false) AS e, range($2) AS copies(copy)
)
ORDER BY collector_tstamp
"""


def measure(effort: Effort) -> Result:
    count = effort.wanted or (10_000_000 if effort.rounds > 1 else 20_000)
    few, lake = effort.folder / "few", effort.folder / "lake"
    sql_pack.kept(None, few, count // _TIMES)
    multiplied(few, lake, _TIMES)
    made = " A tenth of them were written as by the target, the others are copies: other ids, people, devices, mails and moments."
    count = count // _TIMES * _TIMES
    return sql_pack.asked("what asking costs in a lake", count, {"DuckDB": sql_pack.opened(lake)}, {"DuckDB": lake}, made)


def multiplied(few: Path, lake: Path, times: int) -> None:
    """Each file with so many copies of its events, written as merging writes it."""
    duckdb: Any = import_module("duckdb")
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for file in sorted((few / EVENTS).rglob("*.parquet")):
            path = lake / file.relative_to(few)
            path.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(path, schema(), **COMPRESSION) as writer:
                for batch in db.sql(_COPIED, params=[str(file), times]).to_arrow_reader(ROW_GROUP):
                    writer.write_batch(batch.cast(schema()))
