"""`spoorway tail`: events as they are stored, or as they come into the journal, good and failed."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from protocol.seams import TransientError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.config import Settings
from spoorway.console import complain, printable
from spoorway.database import open_read_only

_LOOK_EVERY_S = 0.2
_AGAIN_S = 2.0
_GOOD = "SELECT rowid, * FROM atomic.events WHERE rowid > ? ORDER BY rowid LIMIT 500"
_FAILED = "SELECT rowid, * FROM atomic.failed_events WHERE rowid > ? ORDER BY rowid LIMIT 500"

_Shown = tuple[str, Mapping[str, Any]]  # the table that it is, or would be, a row of


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "tail",
        "show events as they are stored, or as they come into the journal, good and failed",
        "spoorway tail\nspoorway tail --failed --json\nspoorway tail --last 20 --no-follow\nspoorway tail --from journal",
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=("store", "journal"),
        help="store: a SQLite target; journal: the one in files, Kafka or Kinesis, enriched to be shown and kept nowhere"
        " (default: store, or journal where there is no SQLite target)",
    )
    parser.add_argument("--failed", action="store_true", help="failed events only")
    parser.add_argument("--json", action="store_true", help="one object a line, every column that has a value")
    parser.add_argument(
        "--last",
        metavar="N",
        type=int,
        default=10,
        help="begin with the last N of each; of Kafka, payloads of each partition; other journals from now on (default: 10)",
    )
    parser.add_argument("--no-follow", action="store_true", help="end instead of waiting for more")
    parser.set_defaults(do=_tail)


def _tail(args: argparse.Namespace) -> int:
    found = settings(args)
    sqlite = any(instance.use == "sqlite" for instance in found.targets())
    source = args.source or ("store" if sqlite else "journal")
    shown = _stored(found, args) if source == "store" else _arriving(found, args)
    for table, row in shown:
        if table == "failed_events" or not args.failed:
            print(_json(row) if args.json else _line(row, table), flush=True)
    return 0


def _stored(found: Settings, args: argparse.Namespace) -> Iterator[_Shown]:
    db = open_read_only(building.database(found))
    db.row_factory = sqlite3.Row
    questions = [(_FAILED, "failed_events")] if args.failed else [(_GOOD, "events"), (_FAILED, "failed_events")]
    seen = {question: _newest(db, table) - args.last for question, table in questions}
    while True:
        for question, table in questions:
            while rows := db.execute(question, (seen[question],)).fetchall():
                yield from ((table, dict(row)) for row in rows)
                seen[question] = rows[-1]["rowid"]
        if args.no_follow:
            return
        time.sleep(_LOOK_EVERY_S)


def _newest(db: sqlite3.Connection, table: str) -> int:
    (newest,) = db.execute(f"SELECT coalesce(max(rowid), 0) FROM atomic.{table}").fetchone()
    return int(newest)


def _arriving(found: Settings, args: argparse.Namespace) -> Iterator[_Shown]:
    """Raises what `Following` raises at the start; later trouble is told once and waited out."""
    from protocol.tables import COLUMN_NAMES
    from spoorway.following import Following
    from storage import failed, rows

    following, begun, trouble = Following(found, args.last), False, ""
    try:
        while True:
            try:
                events, failures, more = following.look()
                trouble = ""
            except TransientError as error:
                if not begun:
                    raise
                if trouble != str(error):
                    trouble = str(error)
                    complain(f"tail: {trouble}")
                time.sleep(_AGAIN_S)
                continue
            if not begun:
                begun = True
                print("what comes into the journal is shown", file=sys.stderr, flush=True)
            yield from (("events", dict(zip(COLUMN_NAMES, row, strict=True))) for row in rows.to_rows(events))
            yield from (("failed_events", failed.to_row(one)._asdict()) for one in failures)
            if not more:
                if args.no_follow:
                    return
                time.sleep(_LOOK_EVERY_S)
    finally:
        following.close()


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in row.items() if k != "rowid" and v is not None}, ensure_ascii=False)


def _line(row: Mapping[str, Any], table: str) -> str:
    known = row.get
    if table == "failed_events":
        words = [known("failed_tstamp"), "FAILED", known("kind"), known("first_reason"), f"({known('failed_id')})"]
    else:
        name = known("event_name") if known("event") == "unstruct" else known("event")
        what = known("page_urlpath") or known("se_action")
        words = [known("collector_tstamp"), known("app_id") or "-", known("platform") or "-", name or "-", what, known("user_id")]
    return printable("  ".join(str(word) for word in words if word))
