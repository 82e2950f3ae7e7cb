"""`spoorway tail`: events as they are stored, good and failed."""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from collections.abc import Iterator

from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.console import printable
from spoorway.database import open_read_only

_LOOK_EVERY_S = 0.2
_GOOD = "SELECT rowid, * FROM atomic.events WHERE rowid > ? ORDER BY rowid LIMIT 500"
_FAILED = "SELECT rowid, * FROM atomic.failed_events WHERE rowid > ? ORDER BY rowid LIMIT 500"


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "tail",
        "show events as they are stored, good and failed",
        "spoorway tail\nspoorway tail --failed --json\nspoorway tail --last 20 --no-follow",
    )
    parser.add_argument("--failed", action="store_true", help="failed events only")
    parser.add_argument("--json", action="store_true", help="one object a line, every column that has a value")
    parser.add_argument("--last", metavar="N", type=int, default=10, help="begin with the last N of each (default: 10)")
    parser.add_argument("--no-follow", action="store_true", help="end instead of waiting for more")
    parser.set_defaults(do=_tail)


def _tail(args: argparse.Namespace) -> int:
    db = open_read_only(building.database(settings(args)))
    db.row_factory = sqlite3.Row
    questions = [(_FAILED, "failed_events")] if args.failed else [(_GOOD, "events"), (_FAILED, "failed_events")]
    seen = {question: _newest(db, table) - args.last for question, table in questions}
    while True:
        for question, table in questions:
            for row in _rows(db, question, seen):
                print(_json(row) if args.json else _line(row, table), flush=True)
        if args.no_follow:
            return 0
        time.sleep(_LOOK_EVERY_S)


def _newest(db: sqlite3.Connection, table: str) -> int:
    (newest,) = db.execute(f"SELECT coalesce(max(rowid), 0) FROM atomic.{table}").fetchone()
    return int(newest)


def _rows(db: sqlite3.Connection, question: str, seen: dict[str, int]) -> Iterator[sqlite3.Row]:
    while rows := db.execute(question, (seen[question],)).fetchall():
        yield from rows
        seen[question] = rows[-1]["rowid"]


def _json(row: sqlite3.Row) -> str:
    return json.dumps({k: row[k] for k in row.keys() if k != "rowid" and row[k] is not None}, ensure_ascii=False)  # noqa: SIM118


def _line(row: sqlite3.Row, table: str) -> str:
    if table == "failed_events":
        words = [row["failed_tstamp"], "FAILED", row["kind"], row["first_reason"], f"({row['failed_id']})"]
    else:
        name = row["event_name"] if row["event"] == "unstruct" else row["event"]
        what = row["page_urlpath"] or row["se_action"] or ""
        words = [row["collector_tstamp"], row["app_id"] or "-", row["platform"] or "-", name or "-", what, row["user_id"] or ""]
    return printable("  ".join(str(word) for word in words if word))
