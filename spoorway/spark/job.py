"""The driver: plans, has the tasks done, commits. Whatever stops it before the commit, nothing has changed."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from protocol.seams import ConfigurationError, PermanentError, Position, TransientError
from spoorway import building
from spoorway.spark import bundle, claims, enriching, notes, staging
from spoorway.spark.claims import Claim
from spoorway.spark.engine import Engine, Told
from spoorway.spark.filling import Filling, placed
from spoorway.spark.plan import Stretch, beyond, joined, planned
from spoorway.spark.staging import Job
from storage.archive import Archive
from storage.targets import Counts
from storage.targets.s3 import Config

STRETCH_BYTES = 64 << 20
_CLAIMS_A_PART = 2_000_000
_NOTES_A_PART = 200_000

Tell = Callable[[str], object]


def run(engine: Engine, path: Path, tell: Tell, *, now_ms: int, stretch_bytes: int = STRETCH_BYTES) -> Counts:
    """path: the bundle. tell: hears how it goes on. now_ms: the time of enrichment. Answers what lies there now.

    Raises ConfigurationError, PermanentError, TransientError; then nothing was committed, or it is found whole by the next run.
    """
    order = bundle.read(path)
    filling = Filling(staging.opened(order.to), order.to.url, identity := f"{now_ms:x}-{secrets.token_hex(4)}")
    archive = Archive(staging.opened(order.source))
    stretches = planned(archive, order.source.url, stretch_bytes, tell, partial=order.partial)
    if filling.filled is not None:
        left = beyond(stretches, filling.filled.cursor)
        if left:
            raise PermanentError(
                f"{order.to.url}: it lacks {left:,} segments of the archive, but is not empty; load them, or name an empty place"
            )
        filling.tidy()
        tell("everything is there already")
        return filling.filled.totals
    job = Job(identity, engine.ship(path), now_ms, ((limits := Config()).batch_payloads, limits.batch_bytes))
    try:
        made = _enriched(engine, job, stretches, tell)
        gone = _once(engine, job, made, tell)
        return _committed(filling, made, gone, tell)
    except (PermanentError, TransientError):  # what was staged may be gone because somebody else has won
        if filling.lost():
            raise filling.overtaken() from None
        raise
    finally:
        with suppress(TransientError, PermanentError):  # what is left goes with the next job
            filling.tidy()


def _enriched(engine: Engine, job: Job, stretches: Sequence[Stretch], tell: Tell) -> list[Told]:
    """What was made of each stretch, in order."""
    tell(f"{len(stretches):,} stretches of the archive, {sum(len(one.entries) for one in stretches):,} segments")
    made = {told["stretch"]: told for told in _sound(engine.map(partial(enriching.first, job), stretches), tell)}
    waiting: dict[int, int] = {number: told["notes"] for number, told in made.items() if "notes" in told}
    if waiting:
        tell(f"{len(waiting):,} of them have devices or emails; {sum(waiting.values()):,} events are timed in their order")
        read = partial(notes.read, job)
        parts = max(engine.parallel, -(-sum(waiting.values()) // _NOTES_A_PART))
        folded = _sound(engine.exchange(read, list(waiting), notes.NOTES, parts, partial(notes.folded, job)), tell)
        again = _Again(job, {number: stretches[number] for number in waiting})
        known = [told["part"] for told in folded]
        for told in _sound(engine.exchange(partial(notes.known, job), known, notes.KNOWN, len(waiting), again), tell):
            made[told["stretch"]] = told
    return [made[number] for number in sorted(made)]


class _Again:
    """Those stretches of which something was noted, by what was known before them."""

    def __init__(self, job: Job, stretches: Mapping[int, Stretch]) -> None:
        self._job, self._stretches = job, stretches

    def __call__(self, part: int, batches: Iterator[Any]) -> Iterator[Told]:
        for number, known in notes.by_stretch(batches):
            yield enriching.again(self._job, self._stretches[number], known)


def _once(engine: Engine, job: Job, made: Sequence[Told], tell: Tell) -> list[Told]:
    """The files that hold events which came before, as they are without them."""
    parts = max(engine.parallel, -(-sum(told["claims"] for told in made) // _CLAIMS_A_PART))
    found = decided(engine, job, [told["stretch"] for told in made], parts, tell)
    if not found:
        return []
    tell("some events came before, in another stretch")
    read, do = partial(claims.verdicts, job), partial(claims.carried_out, job)
    return _sound(engine.exchange(read, found, claims.BY_STRETCH, min(len(made), 4 * engine.parallel), do), tell)


def decided(engine: Engine, job: Job, stretches: Sequence[int], parts: int, tell: Tell) -> list[int]:
    """The parts of the verdicts about all claims of these stretches."""
    read, do = partial(claims.read, job), partial(claims.judge, job)
    judged = _sound(engine.exchange(read, stretches, claims.BY_ID, parts, do), tell)
    found: list[int] = [told["part"] for told in judged]
    late = _taken(engine, job, stretches, {name: of for told in judged for name, of in told["derived"]})
    if late:
        found.append(parts)
        claims.stage(job, parts, late)
    return found


def _taken(engine: Engine, job: Job, numbers: Sequence[int], derived: Mapping[str, str]) -> list[claims.Verdict]:
    """Verdicts that count more: about all who have to do with a derived id that somebody else has claimed. Nearly always none.

    derived: such an id -> the one it was derived from.
    """

    def among(ids: Collection[str]) -> list[Claim]:
        found = engine.map(partial(claims.among, job, sorted(ids)), numbers) if ids else []
        return [Claim(*row) for told in found for row in told["claims"]]

    taken = {claim.id for claim in among(derived)}
    ids = taken | {derived[one] for one in taken}
    if not ids:
        return []
    while True:
        verdicts, looked = claims.sorted_out(among(ids))
        if (more := {f"e/{one}" for one in looked} | ids) == ids:
            return verdicts
        ids = more


def _committed(filling: Filling, made: Sequence[Told], gone: Sequence[Told], tell: Tell) -> Counts:
    once = {(told["stretch"], told["file"]): told for told in gone}
    files: list[tuple[str, int, str]] = []
    rows = {"events": 0, "failed": 0}
    for told in made:
        for number, (kind, partition, count, size, name) in enumerate(told["files"]):
            left = once.get((told["stretch"], number), {"gone": 0, "bytes": size, "name": name})
            if count - left["gone"]:
                files.append((placed(filling.first, told["stretch"], kind, partition), left["bytes"], left["name"]))
                rows[kind] += count - left["gone"]
    counts = Counts(
        sum(told["payloads"] for told in made),
        rows["events"],
        rows["failed"],
        sum(told["duplicate"] for told in made) + sum(told["gone"] for told in gone),
        erased=sum(told["erased"] for told in made),
    )
    cursor = joined({lane: Position(*at) for lane, at in told["cursor"].items()} for told in made)
    tell(f"committing {len(files):,} files")
    filling.commit(len(made), cursor, counts, files)
    return counts


def _sound(answers: Sequence[Told], tell: Tell) -> list[Told]:
    """Raises PermanentError with the first thing that was wrong."""
    for told in answers:
        for each in told.get("told", ()):
            tell(each)
    wrong = next((told["error"] for told in answers if "error" in told), None)
    if wrong is not None:
        raise PermanentError(wrong)
    return list(answers)


def main(arguments: Sequence[str] | None = None) -> int:
    """What spark-submit runs: 0 done, 1 refused or failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="spoorway_spark.py",
        description="Builds an S3 target's files from the archive; `spoorway spark` packs the bundle and says how.",
        epilog="examples:\n  spark-submit --files spoorway-bundle.zip spoorway_spark.py spoorway-bundle.zip",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", help="the file that `spoorway spark` has packed; or its name, where --files brought it")
    parser.add_argument("--stretch-mb", metavar="N", type=int, default=64, help="of the archive in one task (default: 64)")
    args = parser.parse_args(arguments)
    spark = import_module("pyspark.sql").SparkSession.builder.appName("spoorway").getOrCreate()
    try:
        return _run(spark, args.bundle, args.stretch_mb << 20)
    except (ConfigurationError, PermanentError, TransientError) as error:
        tell(str(error))
        return 1
    finally:
        spark.stop()


def _run(spark: Any, name: str, stretch_bytes: int) -> int:
    from spoorway.spark.cluster import Cluster

    path = Path(name)
    if not path.is_file():
        path = Path(import_module("pyspark").SparkFiles.get(path.name))
    done = run(Cluster(spark), path, tell, now_ms=building.now_ms(), stretch_bytes=stretch_bytes)
    events = f"{done.stored:,} events stored, {done.failed:,} failed, {done.duplicate:,} duplicates"
    print(f"{done.payloads:,} payloads: {events}", flush=True)
    return 0


def tell(message: str) -> None:
    """A line of progress, on stderr."""
    print(f"spoorway: {message}", file=sys.stderr, flush=True)
