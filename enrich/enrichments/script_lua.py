"""A Lua script of the user's: `function enrich(event, parameters)` answers with columns and entities to add, or a refusal.

The script runs in a sandbox in a process of its own (enrich/lua.py): it cannot read, write, connect or keep anything, and
what does not end is ended. It answers nil, or a table of columns with entities under derived_contexts, or nil and why not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from enrich import answers
from enrich.answers import Unusable
from enrich.enrichments import RawEvent, Unanswered, World
from enrich.reasons import reason
from protocol.seams import ConfigurationError, Decimal, Event, Reason


@dataclass(frozen=True, slots=True)
class Config:
    """file: the script; read again when it changes. Per event: instructions of Lua's machine, bytes of its memory, seconds.

    The time is the last resort, for what Lua itself cannot interrupt.
    """

    file: str = ""
    max_instructions: int = 1_000_000
    max_memory_bytes: int = 16_000_000
    timeout_s: float = 0.5


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        if not config.file:
            raise ConfigurationError("script_lua.file: name a script")
        if config.max_instructions < 1_000 or config.max_memory_bytes < 1_000_000:
            raise ConfigurationError("script_lua: no script runs with less than 1000 instructions and 1000000 bytes")
        limits = {"instructions": config.max_instructions, "memory_bytes": config.max_memory_bytes}

        def build(content: bytes) -> Callable[[bytes], bytes]:
            setup = {"source": content.decode(), "name": config.file.rpartition("/")[2], **limits}
            try:
                return world.apart("enrich.lua", orjson.dumps(setup), config.timeout_s)
            except Unanswered as error:
                raise ValueError(str(error)) from None

        self._script = world.watch(config.file, build)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        message = orjson.dumps([event, raw.parameters], default=_number)
        try:
            answer = orjson.loads(self._script()(message))
            if "refused" in answer:
                return reason("script_lua", "", answer["refused"], None, "Refused")
            return answers.added(answer["added"])
        except Unanswered as error:
            return reason("script_lua", "", str(error))
        except Unusable as error:
            return reason("script_lua", error.field, str(error))


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError
