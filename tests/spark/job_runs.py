"""The Spark job on real Sparks, beside one machine: `make spark`.

For each PySpark that is named: the result of an archive in a folder and in S3 (moto's) equals that of `spoorway replay`, row for
row; a second run changes nothing; a job killed with SIGKILL in either pass, before its commit, after it and amid the files leaves
nothing half visible, and the next one ends what is to be ended; of two jobs at once one wins. Then a packed environment on a
cluster of processes. Prints one line per check; a check that fails ends it.

    python -m tests.spark.job_runs [--events N] [--only TEXT] [--spark .venv/spark]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spoorway.spark.staging import PREFIX
from storage.lake import commits
from storage.objects import open_objects
from tests.peers.s3_server import S3Server
from tests.spark import archives

ROOT = Path(__file__).parents[2]
_LIMIT_S = 1_500
_POINTS = ("before the commit", "after the commit", "amid the files")


class Site:
    """An archive and its configuration; one: what one machine made of it."""

    def __init__(
        self, folder: Path, events: int, segments: int, url: Callable[[str], str], environment: Mapping[str, str]
    ) -> None:
        self.folder, self.url, self.environment = folder, url, {**os.environ, **environment}
        folder.mkdir()
        with changed(environment):
            archives.written(url("archive"), archives.payloads(events, 11), 11, folder / "segments", segments)
        self.config = folder / "spoorway.toml"
        archives.geo_database(folder / "places.mmdb")
        names = ("referer", "campaign", "event_fingerprint", "device_time", "email_agent")
        enrichments = "".join(f"[enrich.enrichments.{name}]\n" for name in names)
        self.config.write_text(
            f'data = "{folder / "data"}"\n[archive]\nurl = "{url("archive")}"\n'
            f'[enrich.enrichments.geo_ip]\ncity = ["{folder / "places.mmdb"}"]\n{enrichments}'
            f'[storage.targets.one]\nuse = "s3"\nurl = "{url("one")}"\n'
        )
        self.spoorway("replay", "--from", "archive", "--to", "one")

    def spoorway(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "spoorway", *arguments, "--config", str(self.config)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, spark: Path, name: str, *options: str, entry: tuple[str, ...] = (), log: Path) -> subprocess.Popen[bytes]:
        """entry: another than the product's, and what comes before the bundle."""
        bundle = self.folder / f"{name}-job" / "spoorway-bundle.zip"
        if not bundle.exists():
            self.spoorway("spark", "--to", self.url(name), "--out", str(bundle.parent))
        job = entry or (str(bundle.with_name("spoorway_spark.py")),)
        conf = {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": "1g",
            "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",  # half the time of a short life
        }
        command = [str(spark / "bin" / "spark-submit"), *(options or ("--master", "local[2]"))]
        for key, value in conf.items():
            command += ["--conf", f"{key}={value}"]
        command += ["--files", str(bundle), *job, bundle.name, "--stretch-mb", "4"]
        environment = {"PYSPARK_PYTHON": str(spark / "bin" / "python"), "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        environment = {**self.environment, **environment, "SPARK_LOCAL_DIRS": str(self.folder / "local")}
        with log.open("wb") as file:
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)

    def run(self, spark: Path, name: str, *options: str, entry: tuple[str, ...] = ()) -> tuple[int, str]:
        log = self.folder / f"{name}.log"
        process = self.submit(spark, name, *options, entry=entry, log=log)
        return ended(process), log.read_text("utf-8", "replace")

    def listing(self, name: str) -> list[tuple[str, int, str]]:
        with changed(self.environment):
            return [tuple(found) for found in open_objects(self.url(name)).list() if not found.name.endswith("/probe")]

    def same_as_one(self, name: str) -> str:
        with changed(self.environment):
            mine, _ = commits.newest(open_objects(self.url(name)))
            one, _ = commits.newest(open_objects(self.url("one")))
            assert mine.settled and mine.totals == one.totals, (mine.totals, one.totals)
            assert mine.cursor == one.cursor, (mine.cursor, one.cursor)
            here, there = archives.rows(self.url(name)), archives.rows(self.url("one"))
            assert here == there, first_difference(here, there)
            failed, failures = archives.failures(self.url(name)), archives.failures(self.url("one"))
            assert failed == failures, first_difference(failed, failures)
            left = [found.name for found in open_objects(self.url(name)).list(PREFIX)]
            assert not left, left[:3]
        return f"{len(here):,} rows, {len(failed):,} failed, {one.totals.duplicate:,} duplicates, {one.totals.erased:,} erased"

    def nothing_visible(self, name: str) -> None:
        seen = [one for one, *_ in self.listing(name) if not one.startswith(PREFIX)]
        assert not seen, seen[:3]


def first_difference(here: list[dict[str, object]], there: list[dict[str, object]]) -> object:
    if len(here) != len(there):
        return len(here), len(there)
    one, other = next((one, other) for one, other in zip(here, there, strict=True) if one != other)
    return {name: (one.get(name), other.get(name)) for name in one if one.get(name) != other.get(name)}


@contextlib.contextmanager
def changed(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def ended(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_LIMIT_S)
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Spark's own processes and the Python workers: all are of one session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def equal(site: Site, spark: Path, name: str) -> str:
    began = time.monotonic()
    code, told = site.run(spark, name)
    assert code == 0, told[-3000:]
    seconds = time.monotonic() - began
    same = site.same_as_one(name)
    before = site.listing(name)
    code, told = site.run(spark, name)
    assert code == 0 and "everything is there already" in told, told[-3000:]
    assert site.listing(name) == before
    return f"{same}; a second run changed nothing ({seconds:.0f} s)"


def killed_in_a_pass(site: Site, spark: Path, name: str, kind: str) -> str:
    """kind: of what is staged when it dies."""
    log = site.folder / f"{name}.log"
    process = site.submit(spark, name, log=log)
    end = time.monotonic() + _LIMIT_S
    try:
        while not any(f"/{kind}/" in one for one, *_ in site.listing(name)):
            assert process.poll() is None and time.monotonic() < end, log.read_text("utf-8", "replace")[-3000:]
            time.sleep(0.05)
    finally:
        kill(process)
    site.nothing_visible(name)
    code, told = site.run(spark, name)
    assert code == 0, told[-3000:]
    return site.same_as_one(name)


def killed_at(site: Site, spark: Path, name: str, point: str) -> str:
    entry = (str(ROOT / "tests" / "spark" / "entry.py"), point, str(site.folder))
    code, told = site.run(spark, name, entry=entry)
    assert code != 0, told[-3000:]
    if point == "before the commit":
        site.nothing_visible(name)
    code, told = site.run(spark, name)
    assert code == 0, told[-3000:]
    assert ("everything is there already" in told) == (point != "before the commit"), told[-3000:]
    return site.same_as_one(name)


def damaged(site: Site, spark: Path, name: str) -> str:
    path = sorted(Path(site.url("archive")).rglob("*.ndjson.gz"))[1]
    whole = path.read_bytes()
    path.write_bytes(bytes([*whole[:500], whole[500] ^ 1, *whole[501:]]))
    code, told = site.run(spark, name)
    path.write_bytes(whole)
    assert code == 1, told[-3000:]
    (line,) = [line for line in told.splitlines() if line.startswith("spoorway: ") and "is damaged: its SHA-256" in line]
    site.nothing_visible(name)
    return line


def two_at_once(site: Site, spark: Path, name: str) -> str:
    (meeting := site.folder / f"{name}-meeting").mkdir()
    entry = (str(ROOT / "tests" / "spark" / "entry.py"), "two at once", str(meeting))
    logs = [site.folder / f"{name}-{number}.log" for number in range(2)]
    processes = [site.submit(spark, name, entry=entry, log=log) for log in logs]
    codes = [ended(process) for process in processes]
    told = [log.read_text("utf-8", "replace") for log in logs]
    assert sorted(codes) == [0, 1], [text[-1500:] for text in told]
    assert "filled it meanwhile; of this one nothing was kept" in told[codes.index(1)], told[codes.index(1)][-3000:]
    return f"one won, the other was told; {site.same_as_one(name)}"


def packed(site: Site, spark: Path, name: str) -> str:
    """The recipe of docs/spark.md: a virtual environment with the wheel, packed, on a cluster of processes."""
    where = site.folder / "packed"
    python = where / "environment" / "bin" / "python"
    wheel = where / "wheel"
    steps = (
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheel), str(ROOT)],
        [sys.executable, "-m", "venv", str(python.parents[1])],
        [str(python), "-m", "pip", "install", "--quiet", "spoorway[spark] @ file://WHEEL", "venv-pack"],
        [
            str(python.with_name("venv-pack")),
            "--quiet",
            "--prefix",
            str(python.parents[1]),
            "--output",
            str(where / "environment.tar.gz"),
        ],
    )
    where.mkdir()
    for step in steps:
        wheels = list(wheel.glob("*.whl"))
        command = [part.replace("WHEEL", str(wheels[0])) if wheels else part for part in step]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        assert done.returncode == 0, (command, done.stderr[-2000:])
    shutil.rmtree(python.parents[1])  # the workers have nothing but the packed one
    environment = where / "environment.tar.gz"
    options = ("--master", "local-cluster[2,1,1024]", "--archives", f"{environment}#environment")
    options += ("--conf", "spark.executor.memory=1g", "--conf", "spark.executorEnv.PYTHONPATH=")
    site.environment["PYSPARK_DRIVER_PYTHON"] = str(spark / "bin" / "python")
    code, told = site.run(spark, name, *options, "--conf", "spark.executorEnv.PYSPARK_PYTHON=./environment/bin/python")
    assert code == 0, told[-3000:]
    return f"{environment.stat().st_size >> 20} MiB; {site.same_as_one(name)}"


# Its name, what does it, of which archive, and what else it is told.
_CHECKS: tuple[tuple[Any, ...], ...] = (
    ("folder", equal, "folder"),
    ("bucket", equal, "bucket"),
    ("killed in the first pass", killed_in_a_pass, "small", "notes"),
    ("killed in the second pass", killed_in_a_pass, "small", "events"),
    *((f"killed {point}", killed_at, "small", point) for point in _POINTS),
    ("two at once", two_at_once, "small"),
    ("damaged archive", damaged, "small"),
    ("packed environment", packed, "small"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="of the comparison; the kills have 4,000")
    parser.add_argument("--only", default="", help="checks whose name has this in it")
    parser.add_argument(
        "--spark", type=Path, action="append", help="environments with a PySpark (default: .venv/spark, .venv/spark35)"
    )
    args = parser.parse_args()
    sparks = args.spark or [ROOT / ".venv" / "spark", ROOT / ".venv" / "spark35"]
    with contextlib.ExitStack() as kept:
        folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="spoorway-spark-")))
        sites: dict[str, Site] = {}

        def site(kind: str) -> Site:
            if kind not in sites:
                events, segments = (4_000, 6) if kind == "small" else (args.events, 24)
                if kind == "bucket":
                    server = kept.enter_context(S3Server())
                    bucket = server.bucket("spark")
                    sites[kind] = Site(folder / kind, events, segments, lambda one: f"{bucket}/{one}", server.environment)
                else:
                    sites[kind] = Site(folder / kind, events, segments, lambda one: str(folder / kind / one), {})
            return sites[kind]

        for number, spark in enumerate(sparks):
            for check, do, kind, *more in _CHECKS:
                if args.only in (title := f"{spark.name}, {check}") and not (number and do is packed):
                    name = f"{spark.name}-{check.replace(' ', '-')}"
                    print(f"{title}: {do(site(kind), spark.absolute(), name, *more)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
