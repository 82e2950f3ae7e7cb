"""`spoorway schema`: what schemas there are, whether one is good, a draft of one from data, and more of them."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol.iglu import SchemaKey
from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.config import Settings
from spoorway.console import complain, table
from spoorway.registry import layout, versions
from spoorway.registry.layout import Document
from spoorway.registry.lint import Finding, lint
from spoorway.registry.lookup import BUNDLED, Lookup
from spoorway.registry.options import Remote

_MOST_SAMPLES = 10_000
# What a schema by somebody else must not have; the rest is theirs to mend.
_USELESS = ("draft-4", "remote-ref")


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "schema",
        help="list, show, check, draft and add schemas",
        description="List, show, check, draft and add schemas.",
        epilog="examples:\n  spoorway schema list\n  spoorway schema infer readings.ndjson --vendor com.acme --name reading\n"
        "  spoorway schema lint reading.json\n  spoorway schema add reading.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = command(actions, "list", "every schema that is known, and where it comes from", "spoorway schema list 'com.acme*'")
    listing.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="only URIs that fit, such as 'com.acme/*'")
    show = command(actions, "show", "one schema's document", "spoorway schema show iglu:com.acme/reading/jsonschema/1-0-0")
    show.add_argument("uri", metavar="URI")
    check = command(actions, "lint", "check schema files", "spoorway schema lint reading.json\nspoorway schema lint schemas/")
    check.add_argument("--strict", action="store_true", help="warnings count as errors")
    draft = command(
        actions,
        "infer",
        "draft a schema from samples",
        "spoorway schema infer readings.ndjson --vendor com.acme --name reading\n"
        "spoorway schema infer --from-events 'iglu:com.acme/reading/*'",
    )
    draft.add_argument("file", metavar="FILE", nargs="?", help="one JSON a line, bare or self-describing; - reads standard input")
    draft.add_argument("--from-events", metavar="PATTERN", help="what recorded events carried, failed ones too")
    for part, default in (("vendor", "of the samples"), ("name", "of the samples"), ("version", "1-0-0, or that of the samples")):
        draft.add_argument(f"--{part}", metavar=part.upper(), help=f"(default: {default})")
    draft.add_argument("--no-enums", action="store_true", help="never allow only the texts that were seen")
    draft.add_argument("--limit", metavar="N", type=int, default=_MOST_SAMPLES, help=f"samples (default: {_MOST_SAMPLES})")
    keep = command(actions, "add", "take schema files into the data folder", "spoorway schema add reading.json")
    for each in (check, keep):
        each.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a schema, or a folder of schemas")
    pull = command(
        actions,
        "pull",
        "fetch a schema into the data folder",
        "spoorway schema pull iglu:com.vimeo/meta/jsonschema/1-0-0 --registry https://iglucentral.com",
    )
    pull.add_argument("uri", metavar="URI")
    pull.add_argument("--registry", metavar="BASE", help="its URL, or a name of the configuration (default: all of those)")
    pull.add_argument("--apikey-file", metavar="FILE", default="", help="a file whose text is sent as apikey")
    pull.add_argument("--allow-private", action="store_true", help="the registry may live at a private address")
    for each in (keep, pull):
        each.add_argument("--force", action="store_true", help="also over another document of that version, or out of order")
    for each in (listing, show, check, keep, pull):
        each.add_argument("--json", action="store_true", help="one object a line")
    for each, do in ((listing, _list), (show, _show), (check, _lint), (draft, _infer), (keep, _add), (pull, _pull)):
        each.set_defaults(do=do, usage=each.error)


def _list(args: argparse.Namespace) -> int:
    from fnmatch import fnmatchcase

    pattern = args.pattern if args.pattern.startswith(("iglu:", "*")) else f"iglu:{args.pattern}"
    rows = [
        (k.uri, source)
        for k, source in sorted(building.schema_lookup(settings(args)).every().items())
        if fnmatchcase(k.uri, pattern)
    ]
    if args.json:
        for uri, source in rows:
            print(json.dumps({"uri": uri, "source": source}, ensure_ascii=False))
    elif not rows:
        print("no schemas")
    elif sys.stdout.isatty():
        print(table(["uri", "source"], rows))
    else:  # whole, for whatever reads it
        print("\n".join(f"{uri}\t{source}" for uri, source in rows))
    return 0


def _show(args: argparse.Namespace) -> int:
    document = _known(building.schema_lookup(settings(args)), args.uri)
    print(json.dumps(document, ensure_ascii=False, indent=None if args.json else 2))
    return 0


def _known(lookup: Lookup, uri: str) -> Document:
    document = lookup(_key(uri).uri)
    if document is None:
        near = difflib.get_close_matches(uri, [key.uri for key in lookup.every()], n=3, cutoff=0.8)
        raise ConfigurationError(f"no schema {uri} is known" + (f"; there is {', '.join(near)}" if near else ""))
    return document


def _key(uri: str) -> SchemaKey:
    key = layout.key_of(uri if uri.startswith("iglu:") else f"iglu:{uri}")
    if key is None:
        raise ConfigurationError(f"{uri}: expected a URI such as iglu:com.acme/reading/jsonschema/1-0-0")
    return key


# Files --------------------------------------------------------------------------------------------------------------


class _File:
    """A schema file and what was found about it. document: None when it holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: Document | None = None
        self.findings: list[Finding] = []
        try:
            self.document = layout.read(path)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from None
        except layout.Unreadable as error:
            self.findings = [Finding("error", "not-json", "$", str(error))]
        else:
            self.findings = lint(self.document, layout.key_of_place(path.absolute()))
        self.key = layout.key_of_document(self.document) if self.document is not None else None


def _read(paths: Iterable[Path]) -> list[_File]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in sorted(path.rglob("*")) if p.is_file() and not any(part.startswith(".") for part in p.parts))
            files += [p for p in inside if p.suffix == ".json" or layout.key_of_place(p.absolute()) is not None]
        else:
            files.append(path)
    if not files:
        raise ConfigurationError("no schema files: expected VENDOR/NAME/jsonschema/VERSION, or names that end in .json")
    return [_File(path) for path in files]


def _against_history(files: Sequence[_File], lookup: Lookup | None) -> None:
    """Adds what is to be said of each file's version, given the others and what is known already."""
    families: defaultdict[tuple[str, str, str], dict[SchemaKey, Document]] = defaultdict(dict)
    if lookup is not None:
        wanted = {file.key[:3] for file in files if file.key is not None}
        for key in lookup.every():
            if key[:3] in wanted and (document := lookup(key.uri)) is not None:
                families[key[:3]][key] = document
    by_key: dict[SchemaKey, _File] = {}
    for file in files:
        if file.key is None or file.document is None:
            continue
        if file.key in by_key:
            message = f"{file.key.uri} is in {by_key[file.key].path} as well"
            file.findings.append(Finding("error", "place", "$", message))
            continue
        by_key[file.key] = file
        families[file.key[:3]][file.key] = file.document
    for family in families.values():
        for key, finding in versions.check(list(family.items())):
            if key in by_key:
                by_key[key].findings.append(finding)


def _lint(args: argparse.Namespace) -> int:
    files = _read(args.files)
    _against_history(files, None)
    _tell(files, args.json)
    found = [finding for file in files for finding in file.findings]
    errors = sum(finding.level == "error" for finding in found)
    if not args.json:
        print(f"{len(files)} schemas, {errors} errors, {len(found) - errors} warnings")
    return 1 if errors or (args.strict and found) else 0


def _tell(files: Sequence[_File], as_json: bool) -> None:
    for file in files:
        for finding in file.findings:
            if as_json:
                uri = file.key.uri if file.key else None
                print(json.dumps({"file": str(file.path), "uri": uri, **finding._asdict()}, ensure_ascii=False))
            else:
                print(f"{file.path}: {finding.level}: {finding.path}: {finding.message} [{finding.rule}]")


def _add(args: argparse.Namespace) -> int:
    found = settings(args)
    lookup = building.schema_lookup(found)
    files = _read(args.files)
    _against_history(files, lookup)
    _tell(files, args.json)
    may_pass = ("version-too-small",) if args.force else ()
    bad = [file for file in files if any(f.level == "error" and f.rule not in may_pass for f in file.findings)]
    if bad:
        raise ConfigurationError(f"nothing was added: {', '.join(str(file.path) for file in bad)} has errors")
    documents = {file.key: file.document for file in files if file.key is not None and file.document is not None}
    _keep(found, lookup, documents, args.force, args.json)
    return 0


def _keep(found: Settings, lookup: Lookup, documents: dict[SchemaKey, Document], force: bool, as_json: bool) -> None:
    """Writes them into the data folder and makes their views. All or none are refused."""
    for key, document in documents.items():
        source = lookup.source(key.uri)
        if source is None or lookup(key.uri) == document:
            continue
        if source == BUNDLED:
            raise ConfigurationError(f"{key.uri} is bundled and is not replaced; give yours a vendor of your own")
        if not force:
            raise ConfigurationError(f"{key.uri} is another document in {source}; give yours a new version, or say --force")
    folder = building.schema_folder(found)
    for key, document in documents.items():
        place = layout.place(folder, key)
        try:
            layout.write(place, document)
        except OSError as error:
            raise ConfigurationError(f"{place}: {error.strerror}") from None
        print(json.dumps({"uri": key.uri, "file": str(place)}) if as_json else f"{key.uri} is in {place}")
    _make_views(found, [key.uri for key in documents])


def _make_views(found: Settings, uris: Sequence[str]) -> None:
    """In every target that has views; a store that does not exist yet makes them as events come."""
    for instance in found.targets():
        if not hasattr(instance.module.Plugin, "see_schemas"):
            continue
        if instance.use == "sqlite" and not Path(instance.config.path or found.data / "events.db").exists():
            continue
        target = building.open_target(found, instance)
        try:
            target.see_schemas(uris)
        finally:
            target.close()


# From elsewhere -----------------------------------------------------------------------------------------------------


def _pull(args: argparse.Namespace) -> int:
    from spoorway.registry.remote import Down, Refused, fetch

    found, key = settings(args), _key(args.uri)
    lookup = building.schema_lookup(found)
    if lookup.source(key.uri) == BUNDLED:
        print(json.dumps({"uri": key.uri, "file": None}) if args.json else f"{key.uri} is bundled")
        return 0
    troubles: list[str] = []
    for name, remote in _registries(found, args):
        try:
            answer = fetch(remote, key)
        except (Down, Refused) as error:
            troubles.append(f"{name}: {error}")
            continue
        if answer.document is None:
            troubles.append(f"{name} does not have it")
            continue
        findings = lint(answer.document, key)
        useless = [finding.message for finding in findings if finding.rule in _USELESS]
        if useless:
            raise ConfigurationError(f"{name}: {key.uri} is of no use: {useless[0]}")
        _keep(found, lookup, {key: answer.document}, args.force, args.json)
        return 0
    raise ConfigurationError(f"{key.uri}: {'; '.join(troubles)}")


def _registries(found: Settings, args: argparse.Namespace) -> list[tuple[str, Remote]]:
    configured = found.enrich.registries
    if args.registry is None:
        if not configured:
            raise ConfigurationError("no registry is configured; say one with --registry, such as https://iglucentral.com")
        return sorted(configured.items(), key=lambda item: item[1].priority)
    if args.registry in configured:
        return [(args.registry, configured[args.registry])]
    remote = Remote(args.registry, allow_private=args.allow_private)
    return [(args.registry, replace(remote, apikey_file=args.apikey_file))]


def _infer(args: argparse.Namespace) -> int:
    from spoorway.registry.infer import infer

    if (args.file is None) == (args.from_events is None):
        args.usage("expected a FILE or --from-events PATTERN")
    samples = list(_samples(args))
    if not samples:
        raise ConfigurationError("there are no samples")
    document = infer((data for _, data in samples), _subject(args, {uri for uri, _ in samples if uri}), not args.no_enums)
    print(json.dumps(document, ensure_ascii=False, indent=2))
    complain(f"a draft from {len(samples)} samples: read it, then `spoorway schema lint` and `spoorway schema add`")
    return 0


def _samples(args: argparse.Namespace) -> Iterator[tuple[str | None, Any]]:
    from spoorway.database import open_read_only
    from spoorway.registry.samples import from_events, from_lines

    if args.from_events is not None:
        pattern = args.from_events if args.from_events.startswith("iglu:") else f"iglu:{args.from_events}"
        db = open_read_only(building.database(settings(args)))
        try:
            yield from from_events(db, pattern, args.limit)
        finally:
            db.close()
        return
    try:
        lines = sys.stdin if args.file == "-" else Path(args.file).open(encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except OSError as error:
        raise ConfigurationError(f"{args.file}: {error.strerror}") from None
    count = 0
    with lines:
        for sample in from_lines(lines):
            if isinstance(sample, str):
                complain(f"{args.file}: {sample}")
                continue
            yield sample
            count += 1
            if count == args.limit:
                return


def _subject(args: argparse.Namespace, uris: set[str]) -> SchemaKey:
    """Whose schema it is: what was said, else what the samples say."""
    keys = {key for uri in uris if (key := layout.key_of(uri))}
    names = {key[:3] for key in keys}
    if len(names) > 1 and not (args.vendor and args.name):
        some = ", ".join("/".join(name) for name in sorted(names)[:5])
        raise ConfigurationError(f"the samples are of {len(names)} schemas ({some}); choose one by its pattern")
    own = next(iter(keys)) if keys else None
    vendor, name = args.vendor or (own.vendor if own else None), args.name or (own.name if own else None)
    if vendor is None or name is None:
        args.usage("the samples do not say whose they are: expected --vendor and --name")
    version = args.version or (own.version if own and len(keys) == 1 else "1-0-0")
    return _key(f"iglu:{vendor}/{name}/jsonschema/{version}")
