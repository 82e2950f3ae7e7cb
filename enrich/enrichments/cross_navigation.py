"""The `_sp` parameter of a link from another of your sites, as an entity: who clicked it there, when, and why.

Two of its fields are columns that every event gets, and only there an unreadable time fails the event (enrich/pages.py). What
else is unreadable is null here: the link may have passed through anybody's hands.
Source: tracker protocol, "_sp link decoration"; vectors enrich/cross_navigation-*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from enrich.conversions import text
from enrich.enrichments import RawEvent, World
from protocol.seams import Event, Json, Reason
from protocol.tables import PLATFORMS
from protocol.wire import decode_base64, parse_query

_SCHEMA = "iglu:com.snowplowanalytics.snowplow/cross_navigation/jsonschema/1-0-0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LONGEST_USER, _LONGEST = 128, 4_096


@dataclass(frozen=True, slots=True)
class Config:
    """No options."""


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        pass

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        user, clicked_ms = event.get("refr_domain_userid"), event.get("refr_dvce_tstamp")
        if user is None or clicked_ms is None or len(user) > _LONGEST_USER:
            return {}
        try:
            clicked = _EPOCH + timedelta(milliseconds=clicked_ms)
        except OverflowError:  # the year 0
            return {}
        parts = (parse_query(event.get("page_urlquery", "")).get("_sp") or "").split(".")
        session, who, source, platform, reason = (*parts[2:], "", "", "", "", "")[:5]
        data: dict[str, Json] = {
            "domain_user_id": user,
            "timestamp": clicked.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "session_id": session if _UUID.fullmatch(session) else None,
            "user_id": _decoded(who),
            "source_id": _decoded(source),
            "source_platform": platform if platform in PLATFORMS else None,
            "reason": _decoded(reason),
        }
        return {"derived_contexts": [{"schema": _SCHEMA, "data": data}]}


def _decoded(part: str) -> str | None:
    try:
        found = text(decode_base64(part).decode())
    except UnicodeDecodeError:
        return None
    return found if found is not None and len(found) <= _LONGEST else None
