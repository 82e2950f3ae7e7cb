"""A Python file of the user's: `def enrich(event, parameters)` answers with columns and entities to add, or None.

Trusted code: it runs in this process with all its rights and without limits. Run Lua where it is not your own.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from enrich import answers
from enrich.answers import Unusable
from enrich.enrichments import RawEvent, World
from enrich.reasons import reason
from protocol.seams import ConfigurationError, Event, Reason

Function = Callable[[dict[str, Any], dict[str, str]], object]


@dataclass(frozen=True, slots=True)
class Config:
    """file: the script; read again when it changes."""

    file: str = ""


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        if not config.file:
            raise ConfigurationError("script_python.file: name a script")
        self._script = world.watch(config.file, lambda content: _function(content, config.file))

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        try:
            answer = self._script()(_copied(event), dict(raw.parameters))
            return {} if answer is None else answers.added(answer)
        except Unusable as error:
            return reason("script_python", error.field, str(error))
        except (Exception, SystemExit) as error:  # the script's own: it must not cost more than this event's answer
            text = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
            return reason("script_python", "", text[:1_000], None, "Refused")


def _copied(event: Event) -> dict[str, Any]:
    """What a script may do with as it likes: it cannot be held to leaving alone what other events share."""
    entities = event.get("derived_contexts")
    return dict(event) if entities is None else {**event, "derived_contexts": deepcopy(entities)}


def _function(content: bytes, file: str) -> Function:
    """Raises ValueError: what the watcher of the file expects."""
    names: dict[str, Any] = {"__name__": "script", "__file__": file}
    try:
        exec(compile(content, file, "exec"), names)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    function: Function | None = names.get("enrich")
    if not callable(function):
        raise ValueError("the script has no function enrich(event, parameters)")
    return function
