"""Samples of data -> the self-describing schema that all of them fit, with room for others like them. Pure.

Limits are rounded up and ranges outwards, because the next value is rarely among those that were seen; `docs/schemas.md`
says how. The result is a draft to be read by a person, not a fact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import jsonschema_rs

from enrich.validators import validator
from protocol.iglu import SchemaKey
from protocol.seams import Json
from spoorway.registry.layout import Document
from spoorway.registry.lint import FIXED_LENGTH, SELF_DESCRIBING

_FORMATS = ("uuid", "date-time", "date", "ipv4", "ipv6", "email", "uri")
_MOST_VALUES, _EACH_AT_LEAST, _LONGEST_VALUE = 10, 3, 64
_MOST_PROPERTIES = 200  # beyond, its names are data
_DEEPEST = 30
_INTEGERS = (32_767, 2_147_483_647, 9_223_372_036_854_775_807)
_LARGEST_ROUND = 1e15


def infer(samples: Iterable[Json], key: SchemaKey, enums: bool = True) -> Document:
    """enums: whether texts that are few and repeat become the only ones allowed. Raises ValueError without samples."""
    seen = _Seen()
    for sample in samples:
        seen.add(sample)
    if not seen.count:
        raise ValueError("no samples")
    own: Json = {"vendor": key.vendor, "name": key.name, "format": key.format, "version": key.version}
    about = f"Inferred from {seen.count} samples."
    return {"$schema": SELF_DESCRIBING, "self": own, "description": about, **seen.schema(enums)}


@dataclass(slots=True)
class _Seen:
    """All values that were seen at one place."""

    count: int = 0
    types: set[str] = field(default_factory=set[str])
    low: float = 0
    high: float = 0
    longest: int = 0
    formats: set[str] = field(default_factory=lambda: set(_FORMATS))
    values: Counter[str] = field(default_factory=Counter[str])
    objects: int = 0
    properties: dict[str, _Seen] = field(default_factory=lambda: dict[str, _Seen]())
    items: _Seen | None = None
    most_items: int = 0
    too_deep: bool = False

    def add(self, value: Json, depth: int = 0) -> None:
        self.count += 1
        if depth > _DEEPEST:
            self.too_deep = True
        elif value is None:
            self.types.add("null")
        elif isinstance(value, bool):
            self.types.add("boolean")
        elif isinstance(value, int | float):
            self._number(value)
        elif isinstance(value, str):
            self._text(value)
        elif isinstance(value, list):
            self.types.add("array")
            self.most_items = max(self.most_items, len(value))
            for item in value:
                self.items = self.items or _Seen()
                self.items.add(item, depth + 1)
        else:
            self.types.add("object")
            self.objects += 1
            if len(self.properties) <= _MOST_PROPERTIES:
                for name, inner in value.items():
                    self.properties.setdefault(name, _Seen()).add(inner, depth + 1)

    def schema(self, enums: bool) -> Document:
        if self.too_deep or not self.types:
            return {}
        kinds = self.types - ({"integer"} if "number" in self.types else set())
        names: list[Json] = [*sorted(kinds)]
        out: Document = {"type": names if len(names) > 1 else names[0]}
        if kinds & {"integer", "number"}:
            out |= self._range("number" in kinds)
        if "string" in kinds:
            out |= self._texts(enums and kinds <= {"string", "null"})
        if "array" in kinds:
            out["items"] = self.items.schema(enums) if self.items else {}
            out["maxItems"] = _up(self.most_items)
        if "object" in kinds:
            out |= self._objects(enums)
        return out

    def _number(self, value: int | float) -> None:
        first = not self.types & {"integer", "number"}
        self.types.add("integer" if isinstance(value, int) else "number")
        self.low, self.high = (value, value) if first else (min(self.low, value), max(self.high, value))

    def _range(self, fractional: bool) -> Document:
        largest = max(abs(self.low), abs(self.high))
        if fractional:
            bound = 10
            while bound < 2 * largest and bound < _LARGEST_ROUND:
                bound *= 10
            return {"minimum": -bound, "maximum": bound} if 2 * largest <= bound else {}
        for limit in _INTEGERS:
            if 2 * largest <= limit or (limit == _INTEGERS[-1] and largest <= limit):
                return {"minimum": 0 if self.low >= 0 else -limit - 1, "maximum": limit}
        return {}

    def _text(self, value: str) -> None:
        self.types.add("string")
        self.longest = max(self.longest, len(value))
        self.formats = {name for name in self.formats if _is(name, value)} if self.formats else self.formats
        if len(self.values) <= _MOST_VALUES:
            self.values[value[: _LONGEST_VALUE + 1]] += 1

    def _texts(self, alone: bool) -> Document:
        for name in _FORMATS:
            if name in self.formats:
                return {"format": name} if name in FIXED_LENGTH else {"format": name, "maxLength": _up(self.longest)}
        few = len(self.values) <= _MOST_VALUES and all(count >= _EACH_AT_LEAST for count in self.values.values())
        if alone and few and self.longest <= _LONGEST_VALUE and sum(self.values.values()) >= 10 * len(self.values):
            return {"enum": [*sorted(self.values), *([None] if "null" in self.types else [])]}
        return {"maxLength": _up(self.longest)}

    def _objects(self, enums: bool) -> Document:
        if len(self.properties) > _MOST_PROPERTIES:
            return {"additionalProperties": True}
        out: Document = {"properties": {name: seen.schema(enums) for name, seen in self.properties.items()}}
        required: list[Json] = [name for name, seen in self.properties.items() if seen.count == self.objects]
        if required:
            out["required"] = required
        return {**out, "additionalProperties": False}


def _up(number: int) -> int:
    """The next power of two, and room: at least 16."""
    return max(16, 1 << max(0, number - 1).bit_length())


def _is(name: str, text: str) -> bool:
    if name == "uri" and "://" not in text:  # a:b is one as well, and rarely meant as one
        return False
    return _format(name).is_valid(text)


@cache
def _format(name: str) -> jsonschema_rs.Draft4Validator:
    return validator({"format": name})
