"""`spoorway ddl`: the statements that declare an S3 target's files as tables elsewhere."""

from __future__ import annotations

import argparse

from spoorway.commands import Subparsers, command, settings
from spoorway.commands.compact import lake_instance, lake_objects
from storage import lake
from storage.lake.statements import DIALECTS, statements


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "ddl",
        "print what declares an S3 target's files as tables in Athena, Hive, Spark or Redshift Spectrum",
        "spoorway ddl --dialect athena\nspoorway ddl --dialect spark --database atomic > tables.sql",
    )
    parser.add_argument("--dialect", choices=DIALECTS, required=True)
    parser.add_argument("--target", metavar="NAME", help="the target's name (default: the first s3 target)")
    parser.add_argument("--format", choices=("parquet", "tsv"), help="which of the files (default: as the target writes them)")
    parser.add_argument("--database", metavar="NAME", default="atomic", help="default: atomic")
    parser.set_defaults(do=_ddl)


def _ddl(args: argparse.Namespace) -> int:
    instance = lake_instance(settings(args), args.target)
    objects = lake_objects(instance)
    form = args.format or ("tsv" if instance.config.format == "tsv" else "parquet")
    kind = lake.TSV if form == "tsv" else lake.EVENTS
    partitions: list[str] = []
    if args.dialect == "spectrum":  # which finds none by itself
        known = {piece.partition.removeprefix(f"{kind}/") for piece in lake.pieces(objects.list(f"{kind}/"))}
        partitions = sorted(known)
    root = objects.url(kind).removesuffix(kind)
    for statement in statements(args.dialect, form, root, partitions, args.database):
        print(f"{statement};\n")
    return 0
