"""`spoorway spark`: packs what a Spark job over the whole archive must know, and prints the command that runs it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.seams import ConfigurationError
from spoorway.commands import Subparsers, command, settings
from storage.archive import Options as Place

if TYPE_CHECKING:
    from spoorway.config import Settings

ENTRY, BUNDLE = "spoorway_spark.py", "spoorway-bundle.zip"
# Where Spark is this one machine, Java only schedules and sorts ids, and its optimizing compiler takes more than that saves
# (benchmarks/measures/spark.py). Put before what is configured, which therefore counts; a cluster's Java is its owner's.
ON_ONE_MACHINE = {"spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=1"}


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "spark",
        "prepare a Spark job that builds an S3 target's files from the whole archive, and print its command",
        "spoorway spark --to s3://events/rebuilt\n"
        "spoorway spark --to lake --out job --master 'local[4]'\n"
        "spoorway spark --archive s3://events/site-7 --to s3://events/rebuilt --environment environment.tar.gz",
    )
    parser.add_argument(
        "--archive", metavar="URL", help="another archive than the configured one, s3://BUCKET/PREFIX or a folder"
    )
    parser.add_argument(
        "--to",
        metavar="TARGET|URL",
        required=True,
        help="an s3 target's name, s3://BUCKET/PREFIX or a folder; nothing may be in it",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("spoorway-spark"), help="default: ./spoorway-spark")
    parser.add_argument("--environment", metavar="FILE", help="a packed environment (venv-pack) for the cluster's machines")
    parser.add_argument("--master", metavar="URL", help="of the cluster (default: as spark-submit is configured)")
    parser.add_argument("--partial", action="store_true", help="even if something of the archive is gone or damaged")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.set_defaults(do=_spark)


def _spark(args: argparse.Namespace) -> int:
    from spoorway.spark import bundle

    found = settings(args)
    source = Place(**{**_fields(found.archive), "url": args.archive or found.archive.url})
    if not source.url:
        raise ConfigurationError("spark: no archive is configured; set [archive] url, or say --archive URL")
    out: Path = args.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        order = bundle.pack(found, source, _place(found, args.to), args.partial, out / BUNDLE)
        shutil.copyfile(str(files("spoorway.spark").joinpath(ENTRY)), out / ENTRY)
    except OSError as error:
        raise ConfigurationError(f"spark: {error.filename or out}: {error.strerror}") from None
    submit = [*_submit(args.master, args.environment), "--files", str(out / BUNDLE), str(out / ENTRY), BUNDLE]
    if args.json:
        print(json.dumps({"bundle": str(out / BUNDLE), "files": len(order.files), "from": source.url, "command": submit}))
    else:
        if args.environment:
            print("export PYSPARK_PYTHON=./environment/bin/python")
        print(" ".join(map(shlex.quote, submit)))
    return 0


def _submit(master: str | None, environment: str | None) -> list[str]:
    command = ["spark-submit"]
    if master:
        command += ["--master", master]
        if re.fullmatch(r"local(\[.*\])?", master):
            command += [part for name, value in ON_ONE_MACHINE.items() for part in ("--conf", f"{name}={value}")]
    if environment:
        command += ["--archives", f"{environment}#environment"]
    return command


def _place(found: Settings, to: str) -> Place:
    """Of a target of that name, or of an URL, which is reached as the archive is. Raises ConfigurationError."""
    for instance in found.targets():
        if instance.name == to:
            if instance.use != "s3":
                raise ConfigurationError(f"spark: target {to} is no s3 target; the job writes Parquet in such a place")
            if instance.config.format == "tsv":
                raise ConfigurationError(
                    f'spark: target {to} keeps TSV alone; the job writes Parquet: format = "parquet" or "both"'
                )
            return Place(**_fields(instance.config))
    if "/" not in to:
        names = ", ".join(instance.name for instance in found.targets() if instance.use == "s3") or "none"
        raise ConfigurationError(
            f"spark: no s3 target {to!r} (there is: {names}); or s3://BUCKET/PREFIX, or a folder such as ./{to}"
        )
    return Place(**{**_fields(found.archive), "url": to})


def _fields(options: object) -> dict[str, str]:
    return {name: getattr(options, name) for name in ("url", "endpoint", "region", "profile")}
