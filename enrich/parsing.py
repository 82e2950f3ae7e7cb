"""Text -> JSON, with the limits and the leniency of the protocol.

Pure. What no parser should take is NotJson; what only strict parsers refuse is mended.
"""

from __future__ import annotations

import json
from typing import cast

import orjson

from protocol.seams import Json

DEEPEST = 50


class NotJson(ValueError):
    """The message says why the text is no JSON we take."""


def parse_json(text: str | bytes, deepest: int | None = DEEPEST) -> Json:
    """Raises NotJson: not JSON, or more than so many levels deep."""
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        value = _parse_slowly(text, error)
    if deepest is not None and _openings(text) >= deepest and deeper_than(value, deepest):
        raise NotJson(f"deeper than {deepest} levels")
    return value


def _openings(text: str | bytes) -> int:
    if isinstance(text, bytes):
        return text.count(b"{") + text.count(b"[")
    return text.count("{") + text.count("[")


def _parse_slowly(text: str | bytes, error: ValueError) -> Json:
    """What a strict parser refuses and other parsers do not: half a surrogate pair, broken UTF-8. They become U+FFFD."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if "\\u" not in text and "\ufffd" not in text:
        raise NotJson(str(error)) from None
    try:
        value = json.loads(text, parse_constant=_no_constant)
        return cast(Json, orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")))
    except (ValueError, RecursionError):
        raise NotJson(str(error)) from None


def _no_constant(name: str) -> None:
    raise NotJson(f"{name} is not JSON")


def deeper_than(value: Json, limit: int) -> bool:
    level: list[Json] = [value]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
