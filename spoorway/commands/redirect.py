"""`spoorway redirect`: makes the keys that vouch for the targets of clicks, and signs targets with them."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from gateway.http.redirects import LONGEST, host_of_target, read_keys, sign
from protocol.seams import ConfigurationError
from protocol.wire import write_query
from spoorway.commands import Subparsers, command, settings

_KEY_BYTES = 32


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "redirect",
        help="make keys for links that count clicks, and sign links",
        description="Make keys for links that count clicks, and sign links.",
        epilog="examples:\n  spoorway redirect key redirect.keys\n  spoorway redirect sign https://example.com/offer",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    key = command(
        actions,
        "key",
        "put a new key before those of a key file; without the file, make it",
        "spoorway redirect key redirect.keys\nspoorway redirect key redirect.keys     # again: the new one signs",
    )
    key.add_argument("file", metavar="FILE", type=Path, help="for redirects.key_file; restart the gateway after a change")
    key.set_defaults(do=_key)
    signing = command(
        actions,
        "sign",
        "print a signed link for each target",
        "spoorway redirect sign https://example.com/offer\n"
        "spoorway redirect sign --url https://track.example.com --with aid=news --with e=se https://example.com/",
    )
    signing.add_argument("targets", metavar="TARGET", nargs="+", help="http or https; not ASCII = percent-encoded")
    signing.add_argument("--key-file", metavar="FILE", type=Path, help="default: redirects.key_file of the configuration")
    signing.add_argument("--url", metavar="URL", default="", help="the gateway as readers reach it (default: the path alone)")
    signing.add_argument("--path", default="/r/tp2", help="a path that stands for /r/tp2 (default: /r/tp2)")
    signing.add_argument(
        "--with", dest="more", metavar="NAME=VALUE", action="append", default=[], help="a parameter of the event; not signed"
    )
    signing.set_defaults(do=_sign)


def _key(args: argparse.Namespace) -> int:
    file: Path = args.file
    older = file.read_text("utf-8") if file.exists() else ""
    if older:
        read_keys(file)  # never build upon a file that is something else
    fresh = file.with_name(f"{file.name}.new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(f"{secrets.token_hex(_KEY_BYTES)}\n{older}")
        fresh.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from None
    print(f"{file} (keys: {len(read_keys(file))}): the first signs, each is accepted. In the configuration:")
    print(f'[gateway.transports.http.redirects]\nkey_file = "{file.resolve()}"')
    return 0


def _sign(args: argparse.Namespace) -> int:
    key = read_keys(args.key_file or _configured(args))[0]
    for parameter in args.more:
        if "=" not in parameter or parameter.startswith(("u=", "sig=")):
            raise ConfigurationError(f"--with: expected NAME=VALUE, and neither u nor sig, not {parameter!r}")
    more = dict[str, str](parameter.split("=", 1) for parameter in args.more)
    for target in args.targets:
        if host_of_target(target) is None:
            raise ConfigurationError(f"{target}: no http(s) URL of {LONGEST} ASCII characters at most, without user and spaces")
        print(f"{args.url.rstrip('/')}{args.path}?{write_query({'u': target, 'sig': sign(key, target), **more})}")
    return 0


def _configured(args: argparse.Namespace) -> str:
    files: Sequence[str] = [i.config.redirects.key_file for i in settings(args).transports() if i.use == "http"]
    for file in files:
        if file:
            return file
    raise ConfigurationError("redirects.key_file is not configured; say --key-file FILE, `spoorway redirect key FILE` makes one")
