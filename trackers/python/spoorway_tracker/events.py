"""A call, or an exception, -> the wire parameters of its event. Pure: no clock, no ids, no queue.

Each function gives None where a required argument is empty. Raises ValueError or TypeError where data has no form in JSON.
Source: Snowplow Tracker Protocol; protocol/vectors/tracker.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from typing import Any

from spoorway_tracker.described import Described, described

UNSTRUCT_EVENT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
APPLICATION_ERROR = "iglu:com.snowplowanalytics.snowplow/application_error/jsonschema/1-0-2"
TIMING = "iglu:com.snowplowanalytics.snowplow/timing/jsonschema/1-0-0"
SCREEN_VIEW = "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0"

Parameters = dict[str, str]


def _known(value: object) -> str:
    # By what they have, since importing datetime and uuid would cost more than all the rest of this module.
    if (iso := getattr(value, "isoformat", None)) is not None:
        return str(iso())
    if type(value).__name__ == "UUID":
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_known).encode
"""Compact JSON text. Raises ValueError, TypeError or RecursionError."""


def page_view(url: str, title: str | None, referrer: str | None) -> Parameters | None:
    return _page("pv", url, title, referrer) if url else None


def page_ping(
    url: str, title: str | None, referrer: str | None, offsets: tuple[int | None, int | None, int | None, int | None]
) -> Parameters | None:
    """offsets: min_x, max_x, min_y, max_y in pixels; they may be negative."""
    if not url:
        return None
    found = _page("pp", url, title, referrer)
    for name, offset in zip(("pp_mix", "pp_max", "pp_miy", "pp_may"), offsets, strict=True):
        if offset is not None:
            found[name] = str(offset)
    return found


def _page(kind: str, url: str, title: str | None, referrer: str | None) -> Parameters:
    found = {"e": kind, "url": url}
    if title:
        found["page"] = title
    if referrer:
        found["refr"] = referrer
    return found


def structured(category: str, action: str, label: str | None, property: str | None, value: float | None) -> Parameters | None:
    if not category or not action:
        return None
    found = {"e": "se", "se_ca": category, "se_ac": action}
    if label:
        found["se_la"] = label
    if property:
        found["se_pr"] = property
    if value is not None:
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("value is not a number")
        found["se_va"] = str(value)
    return found


def self_describing(schema: str, data: object, base64: bool) -> Parameters | None:
    if not schema:
        return None
    # Put together as text: the schema's name is the only part of the wrapper that varies.
    text = f'{{"schema":"{UNSTRUCT_EVENT}","data":{{"schema":{to_json(schema)},"data":{to_json(data)}}}}}'
    return {"e": "ue", "ue_px": _base64(text)} if base64 else {"e": "ue", "ue_pr": text}


def entities(each: Iterable[Described | Mapping[str, Any] | object], base64: bool) -> Parameters:
    """No entities, no parameter. Raises ValueError where one has no schema."""
    listed = [described(entity) for entity in each]
    if not listed:
        return {}
    text = to_json({"schema": CONTEXTS, "data": [{"schema": one.schema, "data": one.data} for one in listed]})
    return {"cx": _base64(text)} if base64 else {"co": text}


def _base64(text: str) -> str:
    return b2a_base64(text.encode("utf-8", "replace"), newline=False).translate(_URL_SAFE).decode("ascii")


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def error_event(error: BaseException | None, message: str = "", **more: Any) -> Described:
    """What, where, with its trace; texts are cut to what the schema takes. more: further properties of the schema.

    The end of a trace is what names the cause, so the beginning is cut.
    """
    import traceback  # only with an error in hand

    data: dict[str, Any] = {"programmingLanguage": "PYTHON", "message": (message or str(error) or type(error).__name__)[:2048]}
    if error is not None:
        data["exceptionName"] = type(error).__qualname__[:1024]
        data["stackTrace"] = "".join(traceback.format_exception(error))[-8192:]
        if frames := traceback.extract_tb(error.__traceback__):
            data["fileName"], data["lineNumber"] = frames[-1].filename[-1024:], frames[-1].lineno or 0
    return Described(APPLICATION_ERROR, data | {name: value for name, value in more.items() if value is not None})
