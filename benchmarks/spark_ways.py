"""One way to enrich an archive on two cores, in the Python of a Spark: what benchmarks/measures/spark.py starts.

python -m benchmarks.spark_ways WAY FOLDER     FOLDER: as the measure has made it; prints one line of JSON
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from protocol.payloads import from_json
from spoorway.commands.spark import ON_ONE_MACHINE
from spoorway.spark import bundle, job
from spoorway.spark.engine import Here
from storage.lake.parquet import pa, schema, to_table

CORES = 2
_STRETCH_BYTES = 4 << 20


def ours_here(folder: Path, run: Callable[[Callable[[str], int]], None]) -> None:
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        run(lambda name: _ours(Here(_each(pool), CORES), folder, name))


def ours_on_spark(folder: Path, run: Callable[[Callable[[str], int]], None]) -> None:
    """As `spoorway spark --master` prints it."""
    _on(_session(ON_ONE_MACHINE), folder, run)


def ours_on_any_spark(folder: Path, run: Callable[[Callable[[str], int]], None]) -> None:
    """As on a cluster, whose Java we leave alone."""
    _on(_session({}), folder, run)


def _on(spark: Any, folder: Path, run: Callable[[Callable[[str], int]], None]) -> None:
    from spoorway.spark.cluster import Cluster

    run(lambda name: _ours(Cluster(spark), folder, name))
    spark.stop()


def plainly(folder: Path, run: Callable[[Callable[[str], int]], None]) -> None:
    """The peer: the same enrichment in mapInArrow, its rows by Spark's own writer, in Java as Spark starts it."""
    spark = _session({})

    def write(name: str) -> int:
        files = sorted(map(str, (folder / name / "archive").rglob("*.ndjson.gz")))
        path = str(folder / f"{name}.zip")

        def enriched(batches: Iterator[Any]) -> Iterator[Any]:
            pipeline = bundle.opened(Path(path)).pipeline()
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    with gzip.open(files[number]) as lines:
                        while some := lines.readlines(4 << 20):
                            events = [one for line in some for one in pipeline.outcomes(from_json(line), 0)]
                            yield from to_table(events).cast(_microseconds()).to_batches()

        from pyspark.sql.pandas.types import from_arrow_schema  # type: ignore[import-not-found,unused-ignore]

        frame = spark.range(0, len(files), 1, len(files)).mapInArrow(enriched, from_arrow_schema(_microseconds()))
        frame.write.option("compression", "zstd").parquet(out := str(folder / f"{name}-plainly"))
        return int(spark.read.parquet(out).count())

    run(write)
    spark.stop()


WAYS = {"multiprocessing": ours_here, "spark": ours_on_spark, "any spark": ours_on_any_spark, "df.write": plainly}


def _ours(engine: Any, folder: Path, name: str) -> int:
    path = folder / f"{name}.zip"
    return job.run(engine, path, lambda _: None, now_ms=1, stretch_bytes=_STRETCH_BYTES).stored


def _each(pool: Any) -> Callable[[Callable[[Any], Any], Any], list[Any]]:
    return lambda do, items: pool.map(do, items, 1)


def _session(conf: Mapping[str, str]) -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{CORES}]").config("spark.ui.enabled", "false").config(map=dict(conf))
    return builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()


def _microseconds() -> Any:
    """As Spark has times."""
    return pa.schema([(one.name, pa.timestamp("us", "UTC") if pa.types.is_timestamp(one.type) else one.type) for one in schema()])


def _processor_s() -> tuple[float, float]:
    """Of all processes of this session, and of Java's among them alone."""
    every, java, mine = 0, 0, os.getsid(0)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(") ")
        except OSError:
            continue
        fields = rest.split()
        if int(fields[3]) == mine:
            every += sum(map(int, fields[11:15]))
            java += sum(map(int, fields[11:13])) if name.endswith("(java") else 0
    tick = os.sysconf("SC_CLK_TCK")
    return every / tick, java / tick


def main(way: str, folder: Path) -> None:
    def run(do: Callable[[str], int]) -> None:
        do("warm")  # everything has started and is imported
        began, (every, java) = time.perf_counter(), _processor_s()
        stored = do("timed")
        seconds, after = time.perf_counter() - began, _processor_s()
        told = {"seconds": seconds, "processor_s": after[0] - every, "java_s": after[1] - java, "stored": stored}
        print(json.dumps(told), flush=True)

    WAYS[way](folder, run)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
