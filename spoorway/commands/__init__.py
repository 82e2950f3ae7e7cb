"""One file per command: `add(subparsers)` declares it, the function it names does it and returns the exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage. A command imports what it needs when it runs, so that
`spoorway --help` and the loading process stay light.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spoorway.config import Settings, load

Subparsers = Any  # argparse keeps this type private


def command(subparsers: Subparsers, name: str, about: str, examples: str) -> argparse.ArgumentParser:
    """A sub-command with the options all share. examples: lines as typed after the prompt."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="the TOML file (default: ./spoorway.toml if there is one)")
    parser.add_argument("--data", metavar="DIR", help="the data folder (default: ./spoorway-data)")
    return parser


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, :PORT or PORT."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, not {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def settings(args: argparse.Namespace) -> Settings:
    """Raises ConfigurationError."""
    flags: dict[str, Any] = {"data": args.data}
    for option, place in (("http", "gateway.transports.http"), ("admin", "admin")):
        listen = getattr(args, option, None)
        if listen is not None:
            flags[f"{place}.host"], flags[f"{place}.port"] = listen
    return load(args.config, flags)
