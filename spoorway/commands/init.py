"""`spoorway init`: a commented configuration file and an empty data folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from protocol.seams import ConfigurationError
from spoorway.commands import Subparsers, command
from spoorway.config import FILE, sample
from spoorway.files import prepare


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "init",
        "write a commented spoorway.toml and make an empty data folder",
        "spoorway init\nspoorway init /srv/events && cd /srv/events && spoorway run",
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=Path(), help="where (default: here)")
    parser.set_defaults(do=_init)


def _init(args: argparse.Namespace) -> int:
    file = args.folder / FILE
    prepare(Path(args.data) if args.data else args.folder / "spoorway-data")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(sample())
    except FileExistsError:
        raise ConfigurationError(f"{file} exists already; nothing was changed") from None
    print(f"wrote {file}; next: spoorway run")
    return 0
