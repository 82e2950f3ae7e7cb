"""Plain values (TOML tables, environment text) -> the frozen dataclasses that rooms declare as their configuration.

The dataclass is the one place where an option, its type and its default are written. Errors name the option, what was
expected and, for an unknown name, the nearest known ones.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from protocol.seams import ConfigurationError

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], path: str) -> T:
    """A `kind` (dataclass) with these values over its defaults. path: how the table is called, for messages.

    Raises ConfigurationError.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise unknown(name, fields, path)
    given = {name: convert(hints[name], value, f"{path}.{name}" if path else name) for name, value in values.items()}
    try:
        return kind(**given)
    except TypeError as error:  # a required option is missing
        raise ConfigurationError(f"{path}: {error}") from None


def unknown(name: str, known: typing.Iterable[str], path: str) -> ConfigurationError:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    where = f"{path}: " if path else ""
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
    return ConfigurationError(f"{where}unknown name {name!r}; {hint}")


def convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the type `hint` asks for; text is read as the type where the environment gave it. Raises ConfigurationError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if (value is None or value == "") and type(None) in arguments:
            return None if str not in arguments else value
        inner = [a for a in arguments if a is not type(None)]
        return convert(inner[0], value, path)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigurationError(f"{path}: expected one of {', '.join(map(str, arguments))}, not {value!r}")
    if origin in (tuple, frozenset):
        made = [convert(arguments[0], item, path) for item in _items(value, path)]
        return tuple(made) if origin is tuple else frozenset(made)
    if origin is not None and issubclass(origin, Mapping):
        return {key: convert(arguments[1], item, f"{path}.{key}") for key, item in table(value, path).items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type[Any], hint), table(value, path), path)
    return _plain(hint, value, path)


def table(value: object, path: str) -> Mapping[str, Any]:
    """`value` as a table. Raises ConfigurationError."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{path}: expected a table, not {value!r}")
    return typing.cast(Mapping[str, Any], value)


def _items(value: object, path: str) -> list[Any]:
    """A list, or text with commas as the environment gives it."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"{path}: expected a list, not {value!r}")
    return list(typing.cast(list[Any], value))


_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def _plain(hint: type[Any], value: Any, path: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.replace("_", "").lstrip("-").isdecimal():
            return int(value)
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
    elif hint is str and isinstance(value, str):
        return value
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    raise ConfigurationError(f"{path}: expected {names.get(hint, hint.__name__)}, not {value!r}")
