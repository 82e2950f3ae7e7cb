"""`spoorway export`: stored events as files that other tools read. Reads only; holds a few thousand rows at a time."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from protocol.seams import ConfigurationError
from protocol.tables import COLUMN_NAMES
from spoorway import building
from spoorway.commands import Subparsers, command, moment_ms, settings
from spoorway.console import Progress
from spoorway.database import open_read_only
from spoorway.exporting import PIECE, WRITERS
from storage.rows import timestamp

_ROWS = 1_000


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "export",
        "write stored events as canonical TSV, JSON lines or Parquet",
        "spoorway export > events.tsv\n"
        "spoorway export --format ndjson --app shop --event page_view --since 2026-01-01 --until 2026-02-01\n"
        "spoorway export --format parquet --output january.parquet --where \"platform = 'iot'\"",
    )
    parser.add_argument("--format", choices=tuple(WRITERS), default="tsv", help="default: tsv, the canonical 131 columns")
    parser.add_argument("--output", metavar="FILE", type=Path, help="default: standard output")
    parser.add_argument("--since", metavar="TIME", help="received then or later, such as 2026-01-31 or '2026-01-31 12:00' (UTC)")
    parser.add_argument("--until", metavar="TIME", help="received earlier than that")
    parser.add_argument("--app", metavar="ID", action="append", default=[], help="only this application; may be repeated")
    parser.add_argument("--event", metavar="NAME", action="append", default=[], help="only events of this name; may be repeated")
    parser.add_argument("--where", metavar="SQL", help="a condition on the columns of atomic.events")
    parser.set_defaults(do=_export)


def _export(args: argparse.Namespace) -> int:
    conditions, values = _conditions(args)
    if args.output is None and args.format == "parquet" and sys.stdout.isatty():
        raise ConfigurationError("Parquet is not for a terminal; say --output FILE")
    db = open_read_only(building.database(settings(args)))
    try:
        db.execute("BEGIN")  # one state of the store, however long it takes
        total = 0
        if sys.stderr.isatty():  # for the bar alone
            (total,) = db.execute(f"SELECT count(*) FROM atomic.events WHERE {conditions}", values).fetchone()
        columns = ", ".join(f'"{name}"' for name in COLUMN_NAMES)
        rows = db.execute(f"SELECT {columns} FROM atomic.events WHERE {conditions}", values)
        with _output(args.output) as out:
            written = _write(rows, out, args.format, Progress("exporting", total))
    except sqlite3.Error as error:
        hint = f" in --where {args.where!r}" if args.where else ""
        raise ConfigurationError(f"{error}{hint}") from None
    finally:
        db.close()
    if args.output is not None:
        print(f"{written:,} events in {args.output}")
    return 0


def _conditions(args: argparse.Namespace) -> tuple[str, list[str | None]]:
    conditions, values = ["1"], list[str | None]()
    for option, sign in (("since", ">="), ("until", "<")):
        text = getattr(args, option)
        if text is not None:
            conditions.append(f"collector_tstamp {sign} ?")
            values.append(timestamp(moment_ms(text, f"--{option}")))
    for column, names in (("app_id", args.app), ("event_name", args.event)):
        if names:
            conditions.append(f"{column} IN ({', '.join('?' * len(names))})")
            values += names
    if args.where is not None:
        conditions.append(f"(\n{args.where}\n)")
    return " AND ".join(conditions), values


def _write(rows: sqlite3.Cursor, out: BinaryIO, form: str, progress: Progress) -> int:
    writer = WRITERS[form](out)
    written = 0
    most = PIECE if form == "parquet" else _ROWS
    while piece := rows.fetchmany(most):
        writer.write(piece)
        written += len(piece)
        progress.advance(len(piece))
    writer.close()
    progress.close()
    return written


@contextmanager
def _output(path: Path | None) -> Generator[BinaryIO]:
    """Standard output, or a file that is there under its name only once it is whole. Raises ConfigurationError."""
    if path is None:
        yield sys.stdout.buffer
        return
    if path.exists():
        raise ConfigurationError(f"{path} exists already; nothing was changed")
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as out:
            yield out
        fresh.rename(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            fresh.unlink()
