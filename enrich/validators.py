"""Schema documents -> compiled validators, each compiled once and kept (bounded).

Pure given the look-up it is handed: documents come from whoever calls, never from a file or a network here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any, cast

import jsonschema_rs

from enrich.reasons import reason, shortened
from protocol.seams import Json, Reason

SchemaLookup = Callable[[str], dict[str, Json] | None]

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


# Formats the registries' schemas use beyond those of draft 4, which the validator knows.
_FORMATS: dict[str, Callable[[str], bool]] = {"uuid": _is_uuid, "date": _is_date}
_MOST_KEPT = 2_000
_MOST_REASONS = 50


def validator(document: Mapping[str, Json]) -> jsonschema_rs.Draft4Validator:
    """What every self-describing JSON is checked with: draft 4, formats included. Raises ValueError for what is no schema."""
    # The self-describing header is the registry's, not JSON Schema's: a validator would try to fetch "$schema".
    rules: dict[str, Any] = {key: value for key, value in document.items() if key not in ("$schema", "self")}
    return jsonschema_rs.Draft4Validator(rules, validate_formats=True, formats=_FORMATS, offline=True)


# Where schemas lie in a schema: tables of them by name, lists of them, or one of them.
_BY_NAME, _LISTED, _SINGLE = ("properties", "patternProperties"), ("allOf", "anyOf", "oneOf"), {"items", "additionalProperties"}


def _quick(document: Mapping[str, Json], exact: jsonschema_rs.Draft4Validator) -> jsonschema_rs.Draft4Validator:
    """Takes what `exact` takes, but knows UUIDs by a pattern: to ask Python for each takes longer than all the rest."""
    rules = _with_patterns(dict(document))
    return exact if rules == document else validator(cast(dict[str, Json], rules))


def _with_patterns(rules: Json) -> Json:
    """A schema with `format: uuid` said as a pattern, which is the same. Where it cannot be, the format stays."""
    if not isinstance(rules, dict):
        return rules
    rules = rules.copy()
    for name in _BY_NAME:
        if isinstance(inner := rules.get(name), dict):
            rules[name] = {key: _with_patterns(value) for key, value in inner.items()}
    for name in _LISTED:
        if isinstance(several := rules.get(name), list):
            rules[name] = [_with_patterns(value) for value in several]
    for name in rules.keys() & _SINGLE:
        rules[name] = _with_patterns(rules[name])
    if rules.get("format") == "uuid" and "pattern" not in rules:
        del rules["format"]
        rules["pattern"] = f"^{_UUID.pattern}$"
    return rules


class Validators:
    def __init__(self, lookup: SchemaLookup) -> None:
        self._lookup = lookup
        self._compiled: dict[str, jsonschema_rs.Draft4Validator | str] = {}
        self._superseded: dict[str, str] = {}
        self._quick: dict[str, Callable[[Json], bool]] = {}

    def takes(self, uri: str, data: Json) -> bool:
        """Whether `data` is, beyond doubt, what the schema `uri` itself asks for; the quick way, for what is nearly always so."""
        quick = self._quick.get(uri)
        return quick is not None and quick(data)

    def current(self, uri: str) -> str:
        """The URI that stands in for this one: another where its document says `$supersededBy`, else itself."""
        if uri not in self._compiled:
            self._compile(uri)
        return self._superseded.get(uri, uri)

    def reasons(self, uri: str, data: Json, step: str) -> Sequence[Reason]:
        """Why `data` is not what the schema `uri` asks for; empty when it is. Unknown schema: one ResolutionError."""
        compiled = self._compiled.get(uri)
        if compiled is None:
            compiled = self._compile(uri)
        if isinstance(compiled, str):
            return (reason(step, "", compiled, None, "ResolutionError", uri),)
        if compiled.is_valid(data):
            return ()
        found: list[Reason] = []
        for error in compiled.iter_errors(data):
            if len(found) == _MOST_REASONS:
                found.append(reason(step, "", f"and more than {_MOST_REASONS} violations", None, "ValidationError", uri))
                break
            path = "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
            message = shortened(f"{error.kind.name}: {error.message}") or ""
            found.append(reason(step, path, message, None, "ValidationError", uri))
        return found

    def forget(self, uris: Collection[str]) -> None:
        """The documents of these URIs are others now: they are looked up again when next needed."""
        for uri in uris:
            self._compiled.pop(uri, None)
            self._superseded.pop(uri, None)
            self._quick.pop(uri, None)

    def _compile(self, uri: str) -> jsonschema_rs.Draft4Validator | str:
        document = self._lookup(uri)
        compiled: jsonschema_rs.Draft4Validator | str
        if document is None:
            return "no registry knows this schema"  # not kept: it may be known the next time
        if isinstance(newer := document.get("$supersededBy"), str):
            self._superseded[uri] = f"{uri.rpartition('/')[0]}/{newer}"
        try:
            compiled = validator(document)
            if uri not in self._superseded:
                self._quick[uri] = _quick(document, compiled).is_valid
        except ValueError as error:
            compiled = f"the schema itself is not valid: {error}"
        if len(self._compiled) >= _MOST_KEPT:
            oldest = next(iter(self._compiled))
            self._compiled.pop(oldest)
            self._superseded.pop(oldest, None)
            self._quick.pop(oldest, None)
        self._compiled[uri] = compiled
        return compiled
