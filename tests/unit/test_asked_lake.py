"""The lake that `benchmarks sql_lake` asks: copies are events of their own, in the files of their day and name."""

from __future__ import annotations

from pathlib import Path

import duckdb

from benchmarks import month
from benchmarks.measures import sql_lake, sql_pack
from storage.lake import EVENTS
from storage.lake.writing import files

_TELLS = """
SELECT count(*), count(DISTINCT event_id), count(DISTINCT domain_userid), count(*) FILTER (CAST(collector_tstamp AS DATE) <> day),
    count(*) FILTER (event_name <> name), count(DISTINCT json_extract_string(derived_contexts, '$.data[0].data.device'))
FROM read_parquet($1, hive_partitioning = true)
"""


def told(folder: Path) -> tuple[int, ...]:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        row = db.execute(_TELLS, [f"{folder / EVENTS}/*/*/*.parquet"]).fetchone()
        assert row is not None
        return row


def test_copies_are_events_of_their_own_in_the_files_of_their_day(tmp_path: Path) -> None:
    made = list(month.events(60, sql_pack.END_MS))
    made[0]["collector_tstamp"] = sql_pack.END_MS // month.DAY_MS * month.DAY_MS - 1  # a moment later it is another day
    for name, data in files(1, made, [], (EVENTS,)):
        (tmp_path / "few" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "few" / name).write_bytes(data)
    sql_lake.multiplied(tmp_path / "few", tmp_path / "lake", 3)
    events, ids, people, misplaced, misnamed, devices = told(tmp_path / "few")
    assert (events, ids, misplaced, misnamed) == (60, 60, 0, 0)
    assert told(tmp_path / "lake") == (180, 180, 3 * people, 0, 0, 3 * devices)
    assert people > 2
    assert devices > 2
    assert {str(one.relative_to(tmp_path / "few")) for one in (tmp_path / "few").rglob("*.parquet")} == {
        str(one.relative_to(tmp_path / "lake")) for one in (tmp_path / "lake").rglob("*.parquet")
    }
