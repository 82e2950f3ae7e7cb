"""`spoorway sql`: a question to the stored events, read-only."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from functools import partial

from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.console import tracked, write_rows
from spoorway.database import open_read_only


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "sql",
        "ask the stored events in SQL, read-only",
        "spoorway sql 'select event_name, count(*) from atomic.events group by 1'\n"
        "spoorway sql 'select * from atomic.failed_events limit 5' --format json\n"
        "echo 'select 1' | spoorway sql -\n"
        "spoorway sql --on s3 'select day, count(*) from atomic.events group by 1'\n"
        "spoorway sql --on postgres 'select count(*) from events'\n"
        "spoorway sql --on archive 'select transport, count(*) from archive.payloads group by 1'",
    )
    parser.add_argument("question", metavar="SQL", help="one statement; - reads standard input")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="json: one object a line")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    parser.add_argument(
        "--on",
        choices=("sqlite", "postgres", "s3", "archive"),
        default="sqlite",
        help="postgres: a postgres target; s3: the files of an s3 target; archive: raw payloads",
    )
    parser.add_argument("--target", metavar="NAME", help="with --on postgres or s3: the target's name (default: the first)")
    parser.set_defaults(do=_sql)


def _sql(args: argparse.Namespace) -> int:
    question = sys.stdin.read() if args.question == "-" else args.question
    if args.on == "postgres":
        return _postgres(args, question)
    if args.on != "sqlite":
        return _duckdb(args, question)
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


def _postgres(args: argparse.Namespace, question: str) -> int:
    instances = [one for one in settings(args).targets() if one.use == "postgres" and args.target in (None, one.name)]
    if not instances:
        named = "" if args.target is None else f" by the name {args.target}"
        raise ConfigurationError(f"storage.targets: no postgres target{named} is configured")
    from spoorway.postgres import Asking

    with Asking(instances[0].config) as asked:
        names, rows = asked.ask(question)
        write_rows(names, rows, args.format)
    return 0


def _duckdb(args: argparse.Namespace, question: str) -> int:
    from spoorway import lake
    from spoorway.commands.compact import lake_instance, lake_objects

    found = settings(args)
    if args.on == "s3":
        instance = lake_instance(found, args.target)
        config = instance.config
        asked = lake.open_lake(lake_objects(instance), lake.Store(config.url, config.endpoint, config.region, config.profile))
    else:
        from spoorway.archiving import open_archive

        asked = lake.open_archive(open_archive(found.archive), partial(tracked, "unpacking"))
    with asked:
        names, rows = asked.ask(question)
        write_rows(names, rows, args.format)
    return 0
