"""`spoorway sql`: a question to the stored events, read-only."""

from __future__ import annotations

import argparse
import sqlite3
import sys

from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.console import write_rows
from spoorway.database import open_read_only


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "sql",
        "ask the stored events in SQL, read-only",
        "spoorway sql 'select event_name, count(*) from atomic.events group by 1'\n"
        "spoorway sql 'select * from atomic.failed_events limit 5' --format json\n"
        "echo 'select 1' | spoorway sql -",
    )
    parser.add_argument("question", metavar="SQL", help="one statement; - reads standard input")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="json: one object a line")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    parser.set_defaults(do=_sql)


def _sql(args: argparse.Namespace) -> int:
    question = sys.stdin.read() if args.question == "-" else args.question
    db = open_read_only(building.database(settings(args)))
    try:
        rows = db.execute(question)
        if rows.description is None:
            raise ConfigurationError("that is no question: only SELECT is answered here")
        write_rows([column[0] for column in rows.description], rows, args.format)
    except sqlite3.Error as error:
        denied = "not authorized" in str(error) or "prohibited" in str(error)
        raise ConfigurationError(f"{error}{'; the store is read-only here' if denied else ''}") from None
    finally:
        db.close()
    return 0
