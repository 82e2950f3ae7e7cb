"""What old trackers send against the protocol, mended by name.

Pure. Each is an option of the configuration (`enrich.lenient`); with an empty list the strict reference rules hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from enrich.parsing import NotJson, parse_json
from protocol.wire import decode_base64

LENIENCIES: dict[str, str] = {
    "bad_object": "one bad object in a POST fails alone; strict: its whole batch fails",
    "integral_number": "integers may end in .0 (the old Arduino tracker's tid); strict: such an event fails",
    "seconds_dtm": "times of trackers lua-0.* and arduino-0.* with 9 or 10 digits are seconds; strict: they land in 1970",
    "screen_view_code": "e=sv becomes a screen_view event (the old Lua tracker); strict: it fails",
    "legacy_unstruct": "e=ue with bare properties and ue_na is wrapped in a schema of ours (old Lua tracker); strict: it fails",
}
"""Name -> what it does and what happens without it."""

EVERY_LENIENCY: frozenset[str] = frozenset(LENIENCIES)

_UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
_SCREEN_VIEW = "iglu:com.snowplowanalytics.snowplow/screen_view/jsonschema/1-0-0"
_LEGACY = "iglu:io.spoorway/legacy_unstruct/jsonschema/1-0-0"
_TIMES = ("dtm", "stm", "ttm")
# With the version each had, and no other: ours have other names, and an uptime of a day has nine digits too.
_OLD_TRACKERS = ("lua-0.", "arduino-0.")


def mended(parameters: Mapping[str, str], lenient: frozenset[str]) -> Mapping[str, str]:
    """The parameters, or a mended copy where a leniency applies."""
    event = parameters.get("e")
    if "seconds_dtm" in lenient and parameters.get("tv", "").startswith(_OLD_TRACKERS):
        seconds = {n: v for n in _TIMES if (v := parameters.get(n, "")).isascii() and v.isdigit() and len(v) in (9, 10)}
        if seconds:
            parameters = {**parameters, **{name: value + "000" for name, value in seconds.items()}}
    if event == "sv" and "screen_view_code" in lenient:
        data = {key: parameters[name] for key, name in (("name", "sv_na"), ("id", "sv_id")) if parameters.get(name)}
        if data:
            return {**parameters, "e": "ue", "ue_pr": _wrapped(_SCREEN_VIEW, data)}
    if event == "ue" and "ue_na" in parameters and "legacy_unstruct" in lenient:
        return _legacy(parameters)
    return parameters


def _legacy(parameters: Mapping[str, str]) -> Mapping[str, str]:
    text: str | bytes = parameters.get("ue_pr") or decode_base64(parameters.get("ue_px", ""))
    try:
        properties = parse_json(text)
    except NotJson:
        return parameters
    if not isinstance(properties, dict) or "schema" in properties:
        return parameters
    kept = {name: value for name, value in parameters.items() if name != "ue_px"}
    return {**kept, "ue_pr": _wrapped(_LEGACY, {"name": parameters["ue_na"], "properties": properties})}


def _wrapped(schema: str, data: object) -> str:
    return orjson.dumps({"schema": _UNSTRUCT, "data": {"schema": schema, "data": data}}).decode()
