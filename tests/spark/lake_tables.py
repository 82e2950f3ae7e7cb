"""Spark SQL runs the statements that `spoorway ddl` prints and reads the S3 target's files by them: `make spark`.

PySpark is 400 MB and needs Java 17, so this is no part of `make test`. The files are written by the product's own target into
a temporary folder, Parquet and TSV; both tables must say the same, and what was stored. Prints one line per check.

    python -m tests.spark.lake_tables
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from protocol.schemas import bundled
from protocol.seams import FailedEvent, Position, RawPayload, Reason
from protocol.tables import COLUMNS
from storage.lake.statements import statements
from storage.targets import Batch, s3

NOON = 1_768_478_400_000  # 2026-01-15 12:00
ENTITY = {"schema": "iglu:a/b/jsonschema/1-0-0", "data": {"text": 'back\\slash "quote"'}}
VALUES: dict[str, Any] = {
    "string": 'größe \\ "q" \\t',
    "timestamp": NOON + 1,
    "integer": -7,
    "decimal": Decimal("12.50"),
    "float": 1.5,
    "boolean": True,
    "json": [ENTITY],
}


def events() -> list[Any]:
    full = {column.name: VALUES.get(column.type, "") for column in COLUMNS}
    full |= {"unstruct_event": ENTITY, "event_id": f"{0:032x}", "event_name": "ad/click=1", "collector_tstamp": NOON}
    few = [
        {"event_id": f"{n:032x}", "event": "page_view", "event_name": "page_view", "collector_tstamp": NOON + n * 40_000_000}
        for n in range(1, 9)
    ]
    return [full, *few]


def written(folder: Path) -> Path:
    target = s3.Plugin(s3.Config(str(folder / "lake"), format="both", state=str(folder / "s3.db")), bundled)
    payload = RawPayload("0" * 32, NOON, "http", "/i", query='e=pv&x="', body=b"\xff")
    failed = FailedEvent("failed-1", "schema_violations", (Reason("atomic", "eid", 'is no "UUID"', "x"),), payload, NOON, 0)
    for end, one in enumerate(events(), 1):
        target.commit(Batch([one], [failed], {"lane": Position(1, end, end)}, 1))
    target.close()
    return folder / "lake"


@contextmanager
def session(folder: Path, hive: bool) -> Iterator[Any]:
    from pyspark.sql import SparkSession  # type: ignore[import-not-found,unused-ignore]

    builder = SparkSession.builder.master("local[2]").appName("spoorway").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    builder = builder.config("spark.sql.session.timeZone", "UTC").config("spark.sql.warehouse.dir", str(folder / "warehouse"))
    if hive:
        metastore = f"jdbc:derby:;databaseName={folder / 'metastore'};create=true"
        builder = builder.config("spark.hadoop.javax.jdo.option.ConnectionURL", metastore).enableHiveSupport()
    spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def check(spark: Any, dialect: str, form: str, lake: Path) -> None:
    database = f"{dialect}_{form}"
    for statement in statements(dialect, form, str(lake), database=database):
        if "hcatalog" in statement or (dialect == "hive" and "failed_events" in statement):
            continue  # Hive's own serde for JSON is no part of Spark
        spark.sql(statement)
    rows = {row["event_id"]: row.asDict() for row in spark.sql(f"SELECT * FROM {database}.events").collect()}
    assert sorted(rows) == [f"{n:032x}" for n in range(9)], sorted(rows)
    full = rows[f"{0:032x}"]
    for column in COLUMNS:
        value = full[column.name]
        if column.type == "timestamp":
            assert value.isoformat().startswith("2026-01-15T12:00:00"), (column.name, value)
        elif column.type == "json":
            assert 'back\\\\slash \\"quote\\"' in value, (column.name, value)
        elif column.type == "boolean":
            assert value in (True, 1), (column.name, value)
        elif column.type in ("integer", "float", "decimal"):
            assert float(value) == float(VALUES[column.type]), (column.name, value)
        elif column.type == "string" and column.name != "event_name":
            assert value == VALUES["string"], (column.name, value)
    known = {name: value for name, value in rows[f"{1:032x}"].items() if value is not None}
    assert list(known) == ["collector_tstamp", "event", "event_id", "event_name", "day", "name"], known
    counted = spark.sql(f"SELECT name, CAST(day AS STRING) AS day, count(*) AS n FROM {database}.events GROUP BY ALL").collect()
    by_partition = sorted((row["name"], row["day"], row["n"]) for row in counted)
    assert by_partition[0] == ("ad/click=1", "2026-01-15", 1), by_partition
    assert sum(n for *_, n in by_partition) == 9
    plan = spark.sql(f"SELECT count(*) FROM {database}.events WHERE day = DATE '2026-01-15'")._jdf.queryExecution().toString()
    assert "PartitionFilters: [isnotnull(day" in plan or dialect == "hive", plan
    if dialect == "spark":
        (failed,) = spark.sql(f"SELECT * FROM {database}.failed_events").collect()
        assert (failed["failed_id"], failed["event_index"]) == ("failed-1", 0)
        assert 'is no \\"UUID\\"' in failed["reasons"] and '"body64"' in failed["payload"], failed
    print(f"{dialect}, {form}: {len(rows)} events in {len(by_partition)} partitions, every column as it was stored", flush=True)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="spoorway-spark-") as name:
        folder = Path(name)
        lake = written(folder)
        with session(folder, hive=True) as spark:
            print(f"Spark {spark.version}", flush=True)
            for dialect in ("spark", "hive"):
                for form in ("parquet", "tsv"):
                    check(spark, dialect, form, lake)
    return 0


if __name__ == "__main__":
    sys.exit(main())
