"""`spoorway pixel`: URLs of pixels and counted links, emails with both put in, and pictures of how they look."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from protocol.seams import ConfigurationError
from spoorway.commands import Subparsers, command, moment_ms, settings


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "pixel",
        help="make pixels and links that count, for emails and pages without scripts",
        description="Make pixels and links that count, for emails and pages without scripts.",
        epilog="examples:\n  spoorway pixel open --url https://track.example.com --campaign spring\n"
        "  spoorway pixel mail newsletter.html --url https://track.example.com --campaign spring -o out.html\n"
        "  spoorway pixel preview out.html --images off --dark",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    opening = command(
        actions,
        "open",
        "print a pixel that says an email, or whatever you name, was opened",
        "spoorway pixel open --url https://track.example.com --app news --campaign spring --message 42 --as email\n"
        "spoorway pixel open --url https://track.example.com --merge-tags mailchimp\n"
        "spoorway pixel open --url https://track.example.com --schema iglu:com.acme/seen/jsonschema/1-0-0 --json '{\"row\": 7}'",
    )
    _common(opening)
    opening.add_argument("--as", dest="form", choices=("url", "email", "noscript", "amp"), default="url", help="(default: url)")
    opening.set_defaults(do=_open)
    clicking = command(
        actions,
        "click",
        "print a signed link that counts its click, for each target",
        "spoorway pixel click https://example.com/offer --url https://track.example.com --campaign spring --link offer\n"
        "spoorway pixel click https://example.com/poster --url https://track.example.com --as qr > poster.svg",
    )
    clicking.add_argument("targets", metavar="TARGET", nargs="+", help="http or https; not ASCII = percent-encoded")
    _common(clicking)
    _signing(clicking)
    clicking.add_argument("--link", default="", metavar="NAME", help="what you call the link")
    clicking.add_argument("--as", dest="form", choices=("url", "email", "qr"), default="url", help="(default: url)")
    clicking.add_argument("--text", default="", help="what the link reads, with --as email (default: the target)")
    clicking.set_defaults(do=_click)
    mailing = command(
        actions,
        "mail",
        "put a pixel into an email's HTML and count its links",
        "spoorway pixel mail newsletter.html --url https://track.example.com --campaign spring --message 42 -o out.html\n"
        "spoorway pixel mail template.html --url https://track.example.com --merge-tags brevo > template-counted.html",
    )
    mailing.add_argument("file", metavar="FILE", type=Path, help="HTML")
    _common(mailing, of_mail=True)
    _signing(mailing)
    mailing.add_argument("--no-honeypot", dest="trap", action="store_false", help="without the link that only machines follow")
    mailing.add_argument("-o", "--output", metavar="FILE", type=Path, help="(default: standard output)")
    mailing.set_defaults(do=_mail)
    viewing = command(
        actions,
        "preview",
        "save a picture of an email as Chromium draws it; nothing is counted",
        "spoorway pixel preview out.html\nspoorway pixel preview out.html --images off --dark -o dark.png",
    )
    viewing.add_argument("file", metavar="FILE", type=Path, help="HTML")
    viewing.add_argument("-o", "--output", metavar="FILE", type=Path, help="(default: beside it, with .png)")
    viewing.add_argument("--images", choices=("on", "off"), default="on", help="(default: on)")
    viewing.add_argument("--dark", action="store_true", help="as a reader with a dark screen sees it")
    viewing.add_argument("--width", type=int, default=640, help="pixels (default: 640; a phone has 375)")
    viewing.add_argument("--height", type=int, default=1000, help="pixels (default: 1000)")
    viewing.add_argument("--browser", default="", metavar="FILE", help="(default: the first Chromium found)")
    viewing.set_defaults(do=_preview)


def _common(parser: argparse.ArgumentParser, of_mail: bool = False) -> None:
    parser.add_argument("--url", required=True, help="the gateway as readers reach it, such as https://track.example.com")
    parser.add_argument("--app", default="", metavar="ID", help="app_id of the events")
    parser.add_argument("--campaign", default="", help="what you call what is sent to many")
    parser.add_argument("--message", default="", help="what you call this one copy of it")
    parser.add_argument("--recipient", default="", help="what you call its reader; no address")
    parser.add_argument("--sent", default="", metavar="TIME", help="when it is sent, UTC, or now")
    parser.add_argument(
        "--merge-tags",
        dest="provider",
        default="",
        metavar="SERVICE",
        help="mailchimp, sendgrid, brevo, hubspot, klaviyo or jinja",
    )
    parser.add_argument("--path", default="", help="your own path in place of /i or /r/tp2")
    if not of_mail:
        parser.add_argument("--schema", default="", metavar="URI", help="an event of your own in place of the email's")
        parser.add_argument("--json", dest="data", default="{}", metavar="JSON", help="its data")
        parser.add_argument("--entity", nargs=2, action="append", default=[], metavar=("URI", "JSON"), help="may be repeated")


def _signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="default: redirects.key_file of the configuration")
    parser.add_argument("--unsigned", action="store_true", help="for targets on redirects.hosts")


def _pixel(args: argparse.Namespace) -> Any:
    from spoorway.pixel import Pixel, PixelError

    path = {"click_path" if hasattr(args, "key_file") else "open_path": args.path} if args.path else {}
    try:
        return Pixel(args.url.rstrip("/"), args.app, key=_key(args), provider=args.provider, **path)
    except PixelError as error:
        raise ConfigurationError(str(error)) from None


def _key(args: argparse.Namespace) -> bytes | None:
    from gateway.http.redirects import read_keys

    if getattr(args, "unsigned", True):
        return None
    file: str = str(args.key_file or "") or next(
        (i.config.redirects.key_file for i in settings(args).transports() if i.use == "http" and i.config.redirects.key_file), ""
    )
    if not file:
        raise ConfigurationError(
            "redirects.key_file is not configured; say --key-file FILE (`spoorway redirect key FILE` makes one), or --unsigned"
        )
    return read_keys(file)[0]


def _copy(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say of the email; where they are silent, the merge tags of the service."""
    from spoorway.pixel import PROVIDERS

    service = PROVIDERS.get(args.provider)
    copy = {
        name: getattr(args, name) or (getattr(service, name) if service else "") for name in ("campaign", "message", "recipient")
    }
    if args.sent:
        copy["sent_ms"] = time.time_ns() // 1_000_000 if args.sent == "now" else moment_ms(args.sent, "--sent")
    return copy


def _parsed(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: no JSON: {error}") from None


def _entities(args: argparse.Namespace) -> list[Any]:
    return [{"schema": uri, "data": _parsed(text, "--entity")} for uri, text in args.entity]


def _open(args: argparse.Namespace) -> int:
    from spoorway.pixel import PixelError, amp, email_open, noscript, pixel_tag, self_describing

    pixel = _pixel(args)
    try:
        event = self_describing(args.schema, _parsed(args.data, "--json")) if args.schema else email_open(**_copy(args))
        url = pixel.open(event, entities=_entities(args))
    except PixelError as error:
        raise ConfigurationError(str(error)) from None
    forms = {"email": pixel_tag, "noscript": noscript, "amp": amp}
    print(forms[args.form](url) if args.form in forms else url)
    return 0


def _click(args: argparse.Namespace) -> int:
    from spoorway.pixel import PixelError, email_click, link, qr, self_describing

    pixel = _pixel(args)
    try:
        for target in args.targets:
            if args.schema:
                event = self_describing(args.schema, _parsed(args.data, "--json"))
            else:
                event = email_click(**_copy(args), link=args.link)
            url = pixel.click(target, event, entities=_entities(args))
            print(url if args.form == "url" else qr(url) if args.form == "qr" else link(url, args.text or target))
    except PixelError as error:
        raise ConfigurationError(str(error)) from None
    return 0


def _mail(args: argparse.Namespace) -> int:
    from spoorway.pixel import PixelError
    from spoorway.pixel.mail import Copy, decorate

    try:
        done = decorate(_read(args.file), _pixel(args), Copy(**_copy(args)), trap=args.trap)
    except PixelError as error:
        raise ConfigurationError(str(error)) from None
    if args.output is None:
        sys.stdout.write(done.html)
    else:
        try:
            args.output.write_text(done.html, "utf-8", newline="")
        except OSError as error:
            raise ConfigurationError(f"{args.output}: {error.strerror}") from None
    why = {"target": "cannot be signed", "unsubscribe": "a way to unsubscribe", "off": 'marked data-spoorway="off"'}
    for target, code in done.left:
        print(f"left as it is: {target} ({why[code]})", file=sys.stderr)
    print(f"links counted: {done.links}; left alone: {len(done.left)}", file=sys.stderr)
    return 0


def _preview(args: argparse.Namespace) -> int:
    from spoorway.pixel import PixelError
    from spoorway.pixel.preview import preview

    picture: Path = args.output or args.file.with_suffix(".png")
    try:
        preview(
            _read(args.file),
            picture,
            images=args.images == "on",
            dark=args.dark,
            width=args.width,
            height=args.height,
            browser=args.browser,
        )
    except PixelError as error:
        raise ConfigurationError(str(error)) from None
    print(picture)
    return 0


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", newline="") as source:
            return source.read()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: expected UTF-8") from None
