"""`spoorway device`: who may speak as a device. Gives out secrets and claim codes, takes them back, lists what there is.

Works on the register in the data folder; a running gateway notices within a second. Secrets go to standard output, once.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from gateway.devices import CLAIM_PATH, Secrets
from gateway.devices.book import KINDS, Record
from gateway.devices.issuing import Issuer, book_file
from gateway.devices.limits import Limits
from protocol.seams import ConfigurationError, TransientError
from spoorway.commands import Subparsers, command, settings
from spoorway.console import table, write_rows
from spoorway.files import prepare

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_COLUMNS = ("device", "state", "kind", "generation", *Limits._fields, "claim_expires", "created", "changed")
_NOW_ONLY = "spoorway: shown this once, and kept nowhere; `spoorway device rotate` gives new ones"


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "device",
        help="add devices, hand them secrets or claim codes, rotate and revoke",
        description="Add devices, hand them secrets or claim codes, rotate and revoke.",
        epilog="examples:\n  spoorway device add pump-7\n  spoorway device add pump-8 --claim --valid 24h\n"
        "  spoorway device revoke pump-7",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = command(
        actions,
        "add",
        "new devices, and their secrets",
        "spoorway device add pump-7\nspoorway device add pump-7 pump-8 --kind hmac --json\n"
        "spoorway device add pump-8 --claim --valid 7d      # a code to redeem at the device's place\n"
        "spoorway device add meter-1 --payloads-per-s 2 --payloads-per-day 20000",
    )
    new.add_argument("names", metavar="NAME", nargs="+", help="1 to 64 of A-Z a-z 0-9 . _ : -")
    new.add_argument(
        "--kind",
        choices=KINDS,
        default="both",
        help="hmac: signs messages; password: logs in; certificate: by TLS only (default: both)",
    )
    new.add_argument("--again", action="store_true", help="take a revoked name back, with new secrets")
    _limits(new)
    new.set_defaults(do=_add)
    rotate = command(
        actions,
        "rotate",
        "new secrets for devices; the old ones end within a second",
        "spoorway device rotate pump-7\nspoorway device rotate pump-7 --claim     # the old ones end when the code is redeemed\n"
        "spoorway device rotate --all --json > secrets.ndjson     # also when the master key is lost",
    )
    rotate.add_argument("names", metavar="NAME", nargs="*")
    rotate.add_argument("--all", action="store_true", help="every active device")
    rotate.set_defaults(do=_rotate)
    for each in (new, rotate):
        each.add_argument("--claim", action="store_true", help="print a code that is good for the secrets, once")
        each.add_argument("--valid", metavar="TIME", type=_duration_ms, default=_UNITS_MS["d"], help="of a code (default: 24h)")
    claim = command(
        actions,
        "claim",
        "redeem a claim code: prints the secrets it is good for",
        "spoorway device claim 4F7K-…\nspoorway device claim 4F7K-… --url https://events.example.com",
    )
    claim.add_argument("code", metavar="CODE")
    claim.add_argument("--url", metavar="URL", help="a running gateway (default: the register in the data folder)")
    claim.set_defaults(do=_claim)
    revoke = command(actions, "revoke", "end devices' secrets and connections, within a second", "spoorway device revoke pump-7")
    revoke.add_argument("names", metavar="NAME", nargs="+")
    revoke.set_defaults(do=_revoke)
    limit = command(
        actions,
        "limit",
        "change how fast devices may send",
        "spoorway device limit pump-7 --payloads-per-s 5\nspoorway device limit pump-7 --payloads-per-day 0     # no such limit",
    )
    limit.add_argument("names", metavar="NAME", nargs="+")
    _limits(limit)
    limit.set_defaults(do=_limit)
    listing = command(actions, "list", "the devices", "spoorway device list\nspoorway device list --state revoked --json")
    listing.add_argument("--state", choices=("active", "waiting", "revoked"), help="these only")
    listing.set_defaults(do=_list)
    show = command(actions, "show", "one device", "spoorway device show pump-7")
    show.add_argument("names", metavar="NAME", nargs=1)
    show.set_defaults(do=_show)
    for each in (new, rotate, claim, revoke, limit, listing, show):
        each.add_argument("--json", action="store_true", help="one object a line")
    export = command(
        actions,
        "export",
        "names, states and limits of every device; never secrets",
        "spoorway device export > devices.json\nspoorway device export --format csv",
    )
    export.add_argument("--format", choices=("json", "csv"), default="json", help="default: json, one array")
    export.set_defaults(do=_export)


def _limits(parser: argparse.ArgumentParser) -> None:
    about = "0 = no limit (default: gateway.devices of the configuration)"
    for name in Limits._fields:
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="N", type=_amount, help=about)


def _add(args: argparse.Namespace) -> int:
    with _issuer(args, make=True) as issuer:
        valid_ms = args.valid if args.claim else None
        _hand_over(args, args.names, issuer.add(args.names, args.kind, _limits_of(args), again=args.again, valid_ms=valid_ms))
    return 0


def _rotate(args: argparse.Namespace) -> int:
    if args.all == bool(args.names) or (args.all and args.claim):
        raise ConfigurationError("say either names or --all; --claim is for names")
    with _issuer(args) as issuer:
        if args.all:
            _hand_over(args, (), issuer.rotate_all())
        else:
            _hand_over(args, args.names, issuer.rotate(args.names, valid_ms=args.valid if args.claim else None))
    return 0


def _claim(args: argparse.Namespace) -> int:
    if args.url:
        found = _claim_at(args.url, args.code)
    else:
        with _issuer(args) as issuer:
            found = issuer.claim(args.code)
    if found is None:
        raise ConfigurationError("the code is wrong, used or expired; `spoorway device rotate NAME --claim` makes another")
    _hand_over(args, (), [found])
    return 0


def _revoke(args: argparse.Namespace) -> int:
    with _issuer(args) as issuer:
        issuer.revoke(args.names)
    _tell(args, "revoked")
    return 0


def _limit(args: argparse.Namespace) -> int:
    limits = _limits_of(args)
    if limits == Limits():
        raise ConfigurationError("say at least one of " + ", ".join(f"--{name.replace('_', '-')}" for name in Limits._fields))
    with _issuer(args) as issuer:
        issuer.limit(args.names, limits)
    _tell(args, "limited")
    return 0


def _list(args: argparse.Namespace) -> int:
    rows = [row for row in _rows(args) if args.state in (None, row["state"])]
    write_rows(_COLUMNS, [list(row.values()) for row in rows], "json" if args.json else "table")
    return 0


def _show(args: argparse.Namespace) -> int:
    for row in _rows(args):
        if row["device"] == args.names[0]:
            print(json.dumps(row) if args.json else table(["", ""], list(row.items())).split("\n", 2)[2])
            return 0
    raise ConfigurationError(f"there is no device {args.names[0]}; `spoorway device list` names them")


def _export(args: argparse.Namespace) -> int:
    rows = list(_rows(args))
    if args.format == "csv":
        write_rows(_COLUMNS, [list(row.values()) for row in rows], "csv")
    else:
        print(json.dumps(rows, indent=2))
    return 0


def _hand_over(args: argparse.Namespace, names: Sequence[str], given: Sequence[Secrets | str]) -> None:
    """The only place where secrets are shown."""
    expires = _time(_now_ms() + args.valid) if any(isinstance(each, str) for each in given) else ""
    for name, each in zip(dict.fromkeys(names) if names else [""] * len(given), given, strict=True):
        row = {"device": name, "code": each, "expires": expires} if isinstance(each, str) else each._asdict()
        if args.json:
            print(json.dumps(row))
        else:
            print("\n".join(f"{key:<9} {value}" for key, value in row.items() if value), end="\n\n" if len(given) > 1 else "\n")
    sys.stdout.flush()
    if given and not expires:
        print(_NOW_ONLY, file=sys.stderr)


def _tell(args: argparse.Namespace, what: str) -> None:
    for name in dict.fromkeys(args.names):
        print(json.dumps({"device": name, "done": what}) if args.json else f"{name}: {what}")


def _rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if not book_file(settings(args).data).exists():
        return
    with _issuer(args) as issuer:
        claims = issuer.book.claims(_now_ms())
        for record in issuer.book.records():
            yield dict(zip(_COLUMNS, _values(record, claims.get(record.name)), strict=True))


def _values(record: Record, expires_ms: int | None) -> tuple[Any, ...]:
    times = (None if ms is None else _time(ms) for ms in (expires_ms, record.created_ms, record.changed_ms))
    return record.name, record.state, record.kind, record.generation, *record.limits, *times


@contextmanager
def _issuer(args: argparse.Namespace, *, make: bool = False) -> Generator[Issuer, None, None]:
    data = settings(args).data
    if make:
        prepare(data)
    issuer = Issuer(data, _now_ms, make=make)
    try:
        yield issuer
    finally:
        issuer.close()


def _claim_at(url: str, code: str) -> Secrets | None:
    """By a running gateway. Raises ConfigurationError, TransientError."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        raise ConfigurationError("--url: https only (or http on this machine): what comes back is secret")
    request = urllib.request.Request(
        url.rstrip("/") + CLAIM_PATH, json.dumps({"code": code}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Secrets(**json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 401:
                return None
            raise TransientError(f"{url}: {error.code} {error.read(200).decode('utf-8', 'replace')}") from None
    except (OSError, ValueError, TypeError) as error:
        raise TransientError(f"{url}: {error}") from None


def _limits_of(args: argparse.Namespace) -> Limits:
    return Limits(*(getattr(args, name) for name in Limits._fields))


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1
    if not 0 <= amount < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number that is not below 0, not {text!r}")
    return amount


def _duration_ms(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,8})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a time such as 30m, 24h or 7d, not {text!r}")
    return int(found[1]) * _UNITS_MS[found[2]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
