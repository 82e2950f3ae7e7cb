"""What a person or a script changes in a failed event's parameters before another try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import orjson

from enrich.enrichments import Unanswered
from protocol.seams import ConfigurationError
from spoorway.apart import Apart

_LIMITS = {"instructions": 1_000_000, "memory_bytes": 16_000_000}
_TIMEOUT_S = 0.5

# The parameters, and the columns that were understood -> the parameters to try.
Mending = Callable[[Mapping[str, str], Mapping[str, Any]], Mapping[str, str]]


class Unmended(Exception):
    """The script would not: this event is not tried. The message says why."""


def assignments(texts: Sequence[str]) -> Mending:
    """NAME=VALUE sets a parameter, NAME= takes it away. Raises ConfigurationError."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ConfigurationError(f"--set: expected PARAMETER=VALUE, such as aid=shop, not {name!r}")
    given = {name: value for name, _, value in pairs}
    return lambda parameters, _: _with(parameters, given)


def script(file: Path) -> Mending:
    """`function enrich(event, parameters)` in Lua, in the sandbox of the enrichment `script_lua`: it answers with a table of the
    parameters to set (false takes one away), nil to leave them, or nil and why it would not. Raises ConfigurationError.
    """
    try:
        setup = {"source": file.read_text("utf-8"), "name": file.name, **_LIMITS}
        ask = Apart("enrich.lua", orjson.dumps(setup), _TIMEOUT_S)
    except OSError as error:
        raise ConfigurationError(f"--script: {file}: {error.strerror}") from None
    except (ValueError, Unanswered) as error:
        hint = "; install spoorway[lua]" if "needs the package" in str(error) else ""
        raise ConfigurationError(f"--script: {file}: {error}{hint}") from None

    def mend(parameters: Mapping[str, str], event: Mapping[str, Any]) -> Mapping[str, str]:
        try:
            answer = orjson.loads(ask(orjson.dumps([event, parameters])))
        except Unanswered as error:
            raise Unmended(str(error)) from None
        if "refused" in answer:
            raise Unmended(answer["refused"])
        if not isinstance(answer["added"], dict):  # Lua's empty list is its empty table
            return parameters
        changes: dict[str, str] = {}
        for name, value in cast(dict[str, object], answer["added"]).items():
            if value is not False and not isinstance(value, str | int | float):
                raise Unmended(f"parameter {name}: a value must be text, a number or false")
            changes[name] = "" if value is False else value if isinstance(value, str) else orjson.dumps(value).decode()
        return _with(parameters, changes)

    return mend


def _with(parameters: Mapping[str, str], changes: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in {**parameters, **changes}.items() if value or name not in changes}
