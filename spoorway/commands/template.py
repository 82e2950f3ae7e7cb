"""`spoorway template`: what the frames of sensors mean, and source text for the sensors that send them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from protocol.seams import ConfigurationError
from protocol.templates import RESERVED_IDS, BadTemplate, Field, Template, faults
from spoorway import building
from spoorway.codegen import LANGUAGES
from spoorway.commands import Subparsers, command, settings
from spoorway.console import complain, table
from spoorway.registry.templates import read


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "template",
        help="add, list and show templates of compact frames, and write code for devices",
        description="Add, list and show templates of compact frames, and write code for devices.",
        epilog="examples:\n  spoorway template add greenhouse.toml\n  spoorway template list\n"
        "  spoorway template codegen 1 --lang c > environment_reading.h",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    keep = command(actions, "add", "take template files into the data folder", "spoorway template add greenhouse.toml")
    keep.add_argument("files", metavar="FILE", nargs="+", type=Path, help="TOML or JSON; protocol/compact.md has the form")
    listing = command(actions, "list", "every template that is known, and where it comes from", "spoorway template list --json")
    show = command(actions, "show", "one template's fields", "spoorway template show 1\nspoorway template show 8/2 --json")
    code = command(
        actions,
        "codegen",
        "source text that writes a template's frames, on standard output",
        "spoorway template codegen 1 --lang c > environment_reading.h\nspoorway template codegen 8/2 --lang micropython",
    )
    code.add_argument("--lang", metavar="LANG", choices=sorted(LANGUAGES), required=True, help=", ".join(sorted(LANGUAGES)))
    for each in (show, code):
        each.add_argument("template", metavar="ID[/VERSION]", help="without a version the newest one")
    for each in (keep, listing, show):
        each.add_argument("--json", action="store_true", help="one object a line")
    for each, do in ((keep, _add), (listing, _list), (show, _show), (code, _codegen)):
        each.set_defaults(do=do)


def _add(args: argparse.Namespace) -> int:
    found = settings(args)
    known, schemas = building.templates(found), building.schema_lookup(found)
    fresh: dict[str, tuple[Path, Template]] = {}
    for file in args.files:
        try:
            each = read(file)
        except OSError as error:
            raise ConfigurationError(f"{file}: {error.strerror}") from None
        except BadTemplate as error:
            raise ConfigurationError(f"{file}: {error}") from None
        before = fresh[each.key][1] if each.key in fresh else known(each.id, each.version)
        if before is not None and before != each:
            raise ConfigurationError(
                f"{file}: template {each.key} has another meaning already, and devices may send it; take a new version"
            )
        if before is None and each.id < RESERVED_IDS:
            raise ConfigurationError(f"{file}: ids below {RESERVED_IDS} are Spoorway's own; 8 to 15 take one byte on the wire")
        schema = schemas(each.schema)
        if schema is None:
            raise ConfigurationError(f"{file}: no schema {each.schema} is known; `spoorway schema add` comes first")
        if wrong := faults(each, schema):
            for fault in wrong:
                complain(f"{file}: {fault}")
            raise ConfigurationError(f"{file}: its readings would not be what {each.schema} asks for")
        fresh[each.key] = file, each
    folder = building.template_folder(found)
    for file, each in fresh.values():
        place = _keep(folder, file, each) if known(each.id, each.version) is None else None
        if args.json:
            print(json.dumps({"id": each.id, "version": each.version, "file": place and str(place)}))
        else:
            print(f"template {each.key} is in {place}" if place else f"template {each.key} was known already")
    return 0


def _keep(folder: Path, file: Path, each: Template) -> Path:
    """The file as it was written, under a name that says whose it is; in one step, so that nobody reads half of it."""
    place = folder / f"{each.id}-{each.version}{file.suffix}"
    part = folder / f".{place.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(file.read_bytes())
        part.replace(place)
    except OSError as error:
        raise ConfigurationError(f"{place}: {error.strerror}") from None
    return place


def _list(args: argparse.Namespace) -> int:
    every = building.templates(settings(args)).every()
    if args.json:
        for each, source in every:
            print(json.dumps({**_facts(each), "source": source}, ensure_ascii=False))
    else:
        rows = [(each.key, str(len(each.fields)), each.schema, source) for each, source in every]
        print(table(["template", "fields", "schema", "source"], rows))
    return 0


def _facts(each: Template) -> dict[str, object]:
    return {"id": each.id, "version": each.version, "schema": each.schema, "app_id": each.app_id or None, "about": each.about}


def _chosen(args: argparse.Namespace) -> tuple[Template, str]:
    known = building.templates(settings(args))
    named, _, version = args.template.partition("/")
    fitting = [(t, source) for t, source in known.every() if str(t.id) == named and version in ("", str(t.version))]
    if not fitting:
        there = ", ".join(each.key for each, _ in known.every())
        raise ConfigurationError(f"no template {args.template} is known; there are {there}")
    return fitting[-1]


def _show(args: argparse.Namespace) -> int:
    each, source = _chosen(args)
    if args.json:
        fields = [dict(_described(one)) for one in each.fields]
        print(json.dumps({**_facts(each), "source": source, "fields": fields}, ensure_ascii=False))
        return 0
    print(f"template {each.key}, {source}" + (f": {each.about}" if each.about else ""))
    print(each.schema + (f", app id {each.app_id}" if each.app_id else ""))
    rows = [
        (one.name, one.type, "  ".join(f"{k} {v}" for k, v in _described(one) if k not in ("name", "type")))
        for one in each.fields
    ]
    print(table(["field", "type", ""], rows))
    return 0


def _described(one: Field) -> Iterator[tuple[str, object]]:
    yield "name", one.name
    yield "type", one.type
    if one.scale:
        yield "scale", one.scale
    if one.offset:
        yield "offset", one.offset / 10**one.scale if one.scale else one.offset
    if one.values:
        yield "values", list(one.values)
    if one.most:
        yield "most", one.most
    if one.unit:
        yield "unit", one.unit


def _codegen(args: argparse.Namespace) -> int:
    print(LANGUAGES[args.lang](_chosen(args)[0]), end="")
    return 0
