"""Self-describing data from dataclasses and typed dictionaries, checked against a schema file if one is named.

    @self_describing("iglu:com.acme/sale/jsonschema/1-0-0", file="schemas/sale.json")
    @dataclass
    class Sale:
        sku: str
        coupon: str | None = None

    tracker.track_self_describing(Sale("DUCK-1"))

A field that is None is not sent. The check knows the keywords of `shape.KEYWORDS`; a file that uses others is refused when
it is loaded,
so that no check passes for want of understanding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from pathlib import Path

Class = TypeVar("Class", bound=type)
Data = TypeVar("Data")


class InvalidData(ValueError):
    """The data does not fit its schema file; the message names each place."""


class Described(NamedTuple):
    """An event or an entity: a schema URI and its data."""

    schema: str
    data: Any


class _Declared(NamedTuple):
    schema: str
    check: Callable[[Any], list[str]] | None


_NAME = "__spoorway_schema__"


def self_describing(schema: str, file: str | Path | None = None) -> Callable[[Class], Class]:
    """Class decorator of a dataclass. Raises OSError and ValueError for a file that cannot be used, at import."""
    declared = _Declared(schema, _checker(file))

    def mark(cls: Class) -> Class:
        setattr(cls, _NAME, declared)
        return cls

    return mark


def describes(schema: str, shape: type[Data], file: str | Path | None = None) -> Callable[[Data], Described]:
    """For a TypedDict, which is a plain dictionary when it runs: a function that names its schema and checks it.

    Raises as self_describing does; the function raises InvalidData.
    """
    declared = _Declared(schema, _checker(file))

    def describe(data: Data) -> Described:
        return _checked(declared, data)

    return describe


def described(value: Described | Mapping[str, Any] | object) -> Described:
    """(schema, data) of anything that says its schema. Raises InvalidData, and ValueError where there is no schema."""
    if isinstance(value, Described):
        return value
    kind: str = type(value).__name__
    declared = getattr(type(value), _NAME, None)
    if isinstance(declared, _Declared) and hasattr(value, "__dataclass_fields__"):
        return _checked(declared, _present(value))
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        if mapping.get("schema") and "data" in mapping:
            return Described(str(mapping["schema"]), mapping["data"])
    raise ValueError(f"{kind} says no schema: give {{'schema': …, 'data': …}} or a class made by self_describing")


def _present(value: object) -> object:
    """A dataclass, and what is in it, as plain data without the fields that are None."""
    if hasattr(type(value), "__dataclass_fields__"):
        from dataclasses import fields  # the host has imported it; who has no dataclasses does not pay for them

        pairs = ((field.name, getattr(value, field.name)) for field in fields(cast("Any", value)))
        return {name: _present(inner) for name, inner in pairs if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_present(inner) for inner in cast("list[object]", value)]
    return value


def _checker(file: str | Path | None) -> Callable[[Any], list[str]] | None:
    if file is None:
        return None
    from spoorway_tracker.shape import load  # only who checks pays for it

    return load(file)


def _checked(declared: _Declared, data: object) -> Described:
    if declared.check is not None and (wrong := declared.check(data)):
        raise InvalidData("; ".join(wrong))
    return Described(declared.schema, data)
