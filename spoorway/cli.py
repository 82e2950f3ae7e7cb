"""`spoorway`: the command line. Declares the commands, runs one, turns what went wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from protocol.seams import ConfigurationError, PermanentError, TransientError
from spoorway import __version__
from spoorway.console import complain

ABOUT = "Events from browsers, games, emails and sensors: acknowledged when they are on disk, stored once, asked in SQL."

# Command -> its file in spoorway/commands, in the order of --help. A known command imports its own file only.
COMMANDS = {
    "init": "init",
    "run": "run",
    "gateway": "run",
    "load": "run",
    "worker": "worker",
    "send": "send",
    "tail": "tail",
    "sql": "sql",
    "ask": "ask",
    "report": "report",
    "explore": "explore",
    "export": "export",
    "failed": "failed",
    "replay": "replay",
    "archive": "archive",
    "spark": "spark",
    "compact": "compact",
    "ddl": "ddl",
    "erase": "erase",
    "retain": "retain",
    "backup": "backup",
    "restore": "backup",
    "schema": "schema",
    "template": "template",
    "device": "device",
    "flash": "flash",
    "monitor": "monitor",
    "redirect": "redirect",
    "pixel": "pixel",
    "geoip": "geoip",
    "micro": "micro",
    "simulate": "simulate",
    "config": "config",
    "doctor": "doctor",
}


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Of all commands, or of the one that is known to be wanted."""
    top = argparse.ArgumentParser(
        prog="spoorway",
        description=ABOUT,
        epilog="examples:\n  spoorway run\n  spoorway send --app demo --category door --action open\n"
        "  spoorway sql 'select event_name, count(*) from atomic.events group by 1'\n\n"
        "exit codes: 0 done, 1 refused or failed, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"spoorway {__version__}")
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    if command in COMMANDS:
        wanted = [COMMANDS[command]]
    else:  # --help, or a mistake: all are named; --version names none
        wanted = [] if command == "--version" else list(dict.fromkeys(COMMANDS.values()))
    for name in wanted:
        importlib.import_module(f"spoorway.commands.{name}").add(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not all(map(_is_text, arguments)):
        complain("an argument is no UTF-8")
        return 2
    args = parser(arguments[0] if arguments else None).parse_args(arguments)
    try:
        code: int = args.do(args)
        sys.stdout.flush()
        return code
    except (ConfigurationError, PermanentError, TransientError) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `spoorway tail | head`: the reader has seen enough
        _say_no_more()
        return 0
    except OSError as error:  # a disk that is full, a folder that nobody may write to
        complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        try:
            sys.stdout.flush()
        except OSError:  # and once more when the interpreter ends
            _say_no_more()
        return 1


def _say_no_more() -> None:
    """What still waits for standard output goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True
