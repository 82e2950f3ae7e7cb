"""One file per command: `add(subparsers)` declares it, the function it names does it and returns the exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage. A command imports what it needs when it runs, so that
`spoorway --help` and the loading process stay light.
"""

from __future__ import annotations

import argparse
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocol.seams import ConfigurationError
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


def log_to_stderr() -> None:
    """Of a process that runs until a signal."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, :PORT or PORT."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, not {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def address_or_off(text: str) -> tuple[str, int] | None:
    """As `address`; None for "off"."""
    return None if text == "off" else address(text)


def moment_ms(text: str, option: str) -> int:
    """Milliseconds since 1970 of a time such as 2026-01-31 or '2026-01-31 12:00', UTC as in every column.

    Raises ConfigurationError.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{option}: expected a time such as 2026-01-31 or '2026-01-31 12:00', not {text!r}") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def settings(args: argparse.Namespace) -> Settings:
    """Raises ConfigurationError."""
    flags: dict[str, Any] = {"data": args.data, "gateway.transports.serial.ports": getattr(args, "serial", None)}
    for option, place in (("http", "gateway.transports.http"), ("admin", "admin")):
        listen = getattr(args, option, None)
        if listen is not None:
            flags[f"{place}.host"], flags[f"{place}.port"] = listen
    if hasattr(args, "mqtt"):  # given
        flags["gateway.transports.mqtt.enabled"] = args.mqtt is not None
        if args.mqtt is not None:
            flags["gateway.transports.mqtt.host"], flags["gateway.transports.mqtt.port"] = args.mqtt
    return load(args.config, flags)
