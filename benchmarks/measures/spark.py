"""Events per second of the Spark job on two cores, its start excluded; the same tasks without Spark, and df.write, beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measures import Effort
from benchmarks.mix import DESCRIPTION, payloads
from benchmarks.result import Result, Row, Table

ROOT = Path(__file__).parents[2]
SPARK = ROOT / ".venv" / "spark" / "bin" / "python"
_WAYS = {
    "multiprocessing": "Spoorway's tasks, a pool of 2 processes",
    "spark": "Spoorway's tasks, Spark local[2] as `spoorway spark` starts it",
    "any spark": "Spoorway's tasks, Spark local[2] as it starts by itself",
    "df.write": "mapInArrow and df.write, Spark local[2]",
}
_SEGMENTS = 8
# Java goes on compiling for some seconds after it began, however small the archive: of 40,000 events that is a third of a job.
_TIMES = 2.5


def measure(effort: Effort) -> Result:
    if not SPARK.exists():
        raise RuntimeError("there is no PySpark; `make .venv/spark` installs it")
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in _WAYS}
    events = int(effort.events * _TIMES)
    for number in range(effort.rounds):
        for way in _WAYS:
            rounds[way].append(one(way, effort.folder / f"{way.replace(' ', '-')}-{number}", events))
    cost = {way: [1e6 * each["processor_s"] / each["stored"] for each in found] for way, found in rounds.items()}
    rows: list[Row] = [
        {
            "way": _WAYS[way],
            "events/s": median(each["stored"] / each["seconds"] for each in found),
            "processor µs/event": median(cost[way]),
            "of it Java's": median(1e6 * each["java_s"] / each["stored"] for each in found),
            "% of the pool's events per processor second": median(
                100 * pool / mine for pool, mine in zip(cost["multiprocessing"], cost[way], strict=True)
            ),
        }
        for way, found in rounds.items()
    ]
    version = subprocess.run(
        [SPARK, "-c", "import pyspark; print(pyspark.__version__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return Result(
        "an archive enriched on two cores",
        f"{events:,} events in {_SEGMENTS} archived segments, from a folder into a folder; PySpark {version}; "
        f"{effort.rounds} rounds, the ways taking turns; medians.",
        DESCRIPTION,
        [Table("Events per second, without the start", rows)],
        [
            "Each way has run on a small archive before its clock begins, in the same processes. "
            "Java is not done compiling then, and what it compiles afterwards is counted.",
            "Processor time is that of all processes, Java's among them; where the machine is busy it is the figure to compare.",
            "The peer enriches the same and writes Parquet; it has no partitions, failed events, duplicates or commit.",
        ],
        {"rounds": rounds},
    )


def one(way: str, folder: Path, events: int) -> dict[str, Any]:
    from spoorway import config
    from spoorway.spark import bundle
    from storage.archive import Options as Place
    from tests.spark import archives

    for name, count in (("warm", 500), ("timed", events)):
        place = folder / name
        archives.written(str(place / "archive"), list(payloads(count)), 1, place / "segments", _SEGMENTS, damaged=0)
        bundle.pack(
            config.load(None, {}, {}), Place(str(place / "archive")), Place(str(place / "lake")), False, folder / f"{name}.zip"
        )
    command = [SPARK, "-m", "benchmarks.spark_ways", way, str(folder)]
    environment = {"PYSPARK_PYTHON": str(SPARK), "SPARK_LOCAL_IP": "127.0.0.1", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1_800, start_new_session=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{way}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if told["stored"] < events:
        raise RuntimeError(f"{way}: of {events} events {told['stored']} were stored")
    shutil.rmtree(folder)
    return told
