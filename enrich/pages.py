"""The steps every event takes after its columns are known: page, referrer, cross-domain link, time, schema columns.

Pure. Each adds columns and returns its reasons; a step that fails does not stop the others.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from enrich import conversions, urls
from enrich.reasons import reason
from protocol.seams import Event, Reason
from protocol.tables import EVENT_SCHEMAS
from protocol.wire import parse_query

_SCHEMA_COLUMNS: dict[str, Event] = {
    code: {"event_vendor": vendor, "event_name": name, "event_format": "jsonschema", "event_version": "1-0-0"}
    for code, (vendor, name) in EVENT_SCHEMAS.items()
}
_MOST_CROSS_PARTS = 7
_MOST_URLS = 1_024


def page(event: Event, referer: str | None) -> list[Reason]:
    """referer: the HTTP header, used when the tracker sent no URL. The column becomes the URL's text after repair."""
    text = event.get("page_url") or referer
    if not text:
        return []
    columns = _page(text)
    if columns is None:
        return [reason("page_url", "url", "this URL cannot be understood, not even repaired", text)]
    event.update(columns)
    return []


def referrer(event: Event) -> list[Reason]:
    text = event.get("page_referrer")
    if not text:
        return []
    columns = _referrer(text)
    if columns is None:
        return [reason("referrer", "refr", "this URL cannot be understood, not even repaired", text)]
    event.update(columns)
    return []


# Events of one page share its URL. What is kept is read, never changed.
@lru_cache(maxsize=_MOST_URLS)
def _page(text: str) -> Event | None:
    url = urls.split(text)
    return None if url is None else {"page_url": url.text, **_components("page", url)}


@lru_cache(maxsize=_MOST_URLS)
def _referrer(text: str) -> Event | None:
    url = urls.split(text)
    return None if url is None else _components("refr", url)


def _components(prefix: str, url: urls.Url) -> Event:
    parts = {
        "urlport": url.port,
        "urlscheme": url.scheme,
        "urlhost": url.host,
        "urlpath": url.path,
        "urlquery": url.query,
        "urlfragment": url.fragment,
    }
    columns = {f"{prefix}_{name}": part for name, part in parts.items() if part is not None}
    return cast(Event, columns)  # column names are put together


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
    columns = _SCHEMA_COLUMNS.get(code)
    if columns is None:
        return [reason("event", "event", "this event type has no schema", code)]
    event.update(columns)
    return []
