"""`spoorway config`: checks the configuration; prints the sample, or what is in force and where it came from."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, cast

from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.config import SECRET_WORDS, Settings, sample
from spoorway.console import table


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "config",
        "check the configuration; print the sample or what is in force",
        "spoorway config\nspoorway config --check\nspoorway config --show-effective\nspoorway config --sample > spoorway.toml",
    )
    parser.add_argument("--sample", action="store_true", help="print the commented file with every option's default")
    parser.add_argument("--check", action="store_true", help="also open the files, scripts and databases that enrichments name")
    parser.add_argument("--show-effective", action="store_true", help="every option in force, and where it came from")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(do=_config)


def _config(args: argparse.Namespace) -> int:
    if args.sample:
        print(sample(), end="")
        return 0
    found = settings(args)
    options = list(effective(found))  # reads every part of it: finds every mistake in the text
    building.enrich_options(found)
    if args.check:
        building.pipeline(found, remember=False)
    if args.json:
        for place, value, source in options:
            print(json.dumps({"option": place, "value": value, "source": source}, default=str))
    elif args.show_effective:
        print(table(["option", "value", "from"], [(place, str(value), source) for place, value, source in options]))
    else:
        print(f"the configuration is good: {len(found.sources)} options set, {len(options)} in all")
    return 0


def effective(found: Settings) -> Iterator[tuple[str, Any, str]]:
    """(place, value, source) of every option; secrets are masked. Raises ConfigurationError."""
    yield "data", str(found.data), found.sources.get("data", "default")
    sections: list[tuple[str, Any]] = [("journal", found.journal), ("retention", found.retention)]
    sections += [(f"journal.{remote.name}", remote.config)] if (remote := found.remote()) is not None else []
    sections += [("archive", found.archive), ("enrich", found.enrich)]
    sections.append(("gateway.devices", found.devices))
    sections += [(f"gateway.transports.{i.name}", i.config) for i in found.transports()]
    sections += [(f"enrich.enrichments.{i.name}", i.config) for i in found.enrichments()]
    sections += [(f"storage.targets.{i.name}", i.config) for i in found.targets()]
    sections += [(f"storage.retention.{name}", rule) for name, rule in found.rules.items()]
    for path, config in [*sections, ("admin", found.admin)]:
        for place, value in _leaves(path, config):
            source = found.sources.get(place, "default")
            secret = any(word in place.rsplit(".", 1)[-1] for word in SECRET_WORDS) and value not in ("", None)
            yield place, "********" if secret else value, source


def _leaves(path: str, config: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), f"{path}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _leaves(place, value)
        else:
            yield place, sorted(cast(frozenset[str], value)) if isinstance(value, frozenset) else value
