"""The steps every event takes after its columns are known: page, referrer, cross-domain link, time, schema columns.

Pure. Each adds columns and returns its reasons; a step that fails does not stop the others.
"""

from __future__ import annotations

from typing import Any

from enrich import conversions, urls
from enrich.reasons import reason
from protocol.seams import Event, Reason
from protocol.tables import EVENT_SCHEMAS
from protocol.wire import parse_query

_MOST_CROSS_PARTS = 7


def page(event: Event, referer: str | None) -> list[Reason]:
    """referer: the HTTP header, used when the tracker sent no URL. The column becomes the URL's text after repair."""
    text = event.get("page_url") or referer
    if not text:
        return []
    url = urls.split(text)
    if url is None:
        return [reason("page_url", "url", "this URL cannot be understood, not even repaired", text)]
    event["page_url"] = url.text
    _components(event, "page", url)
    return []


def referrer(event: Event) -> list[Reason]:
    text = event.get("page_referrer")
    if not text:
        return []
    url = urls.split(text)
    if url is None:
        return [reason("referrer", "refr", "this URL cannot be understood, not even repaired", text)]
    _components(event, "refr", url)
    return []


def _components(event: Event, prefix: str, url: urls.Url) -> None:
    columns: dict[str, Any] = event  # type: ignore[assignment]  # column names are put together
    columns[f"{prefix}_urlport"] = url.port
    if url.scheme is not None:
        columns[f"{prefix}_urlscheme"] = url.scheme
    if url.host is not None:
        columns[f"{prefix}_urlhost"] = url.host
    if url.path is not None:
        columns[f"{prefix}_urlpath"] = url.path
    if url.query is not None:
        columns[f"{prefix}_urlquery"] = url.query
    if url.fragment is not None:
        columns[f"{prefix}_urlfragment"] = url.fragment


def cross_navigation(event: Event) -> list[Reason]:
    """The `_sp` parameter of a link from another domain: who clicked, and when."""
    query = event.get("page_urlquery")
    if query is None or "_sp" not in query:
        return []
    parts = (parse_query(query).get("_sp") or "").split(".")
    if len(parts) > _MOST_CROSS_PARTS:
        return []
    if user := conversions.text(parts[0]):
        event["refr_domain_userid"] = user
    if len(parts) > 1 and parts[1]:
        try:
            event["refr_dvce_tstamp"] = conversions.epoch_ms(parts[1])
        except conversions.Unconvertible as error:
            return [reason("cross_navigation", "sp_dtm", str(error), parts[1])]
    return []


def derived_tstamp(event: Event, received_ms: int) -> int:
    """When the event happened, by the server's clock (received_ms is its), in milliseconds since 1970.

    The true time when the tracker knew it, else receipt minus the time the event waited in the device.
    Source: tracker protocol, "Time"; vectors enrich/time-*.
    """
    if (true := event.get("true_tstamp")) is not None:
        return true
    created, sent = event.get("dvce_created_tstamp"), event.get("dvce_sent_tstamp")
    if created is not None and sent is not None and created < sent:
        return received_ms - (sent - created)
    return received_ms


def schema_columns(event: Event, *, sent: bool) -> list[Reason]:
    """Vendor, name, format and version of what the event is. sent: the tracker named an event type, good or bad."""
    if "v_collector" not in event:
        return [reason("event", "v_collector", "the collector's name may be changed by cv, not be taken away")]
    code = event.get("event")
    if code is None:
        return [] if sent else [reason("event", "event", "the parameter e is missing")]
    if code == "unstruct":
        return []
    names = EVENT_SCHEMAS.get(code)
    if names is None:
        return [reason("event", "event", "this event type has no schema", code)]
    event["event_vendor"], event["event_name"] = names
    event["event_format"], event["event_version"] = "jsonschema", "1-0-0"
    return []
