"""The values handed from room to room: RawPayload -> Event | FailedEvent, and where a reader stands.

Values only: no behaviour, no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypedDict

# Any JSON value. A border type: it is narrowed where it is used.
Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


@dataclass(slots=True, unsafe_hash=True)
class RawPayload:
    """One request, message or line exactly as it arrived: not decoded, validated or split.

    Never changed once made; Final says so, because a frozen dataclass takes seven times as long to make.

    id: 32 lower-case hex digits, made by the gateway; unique for ever.
    received_ms: the gateway's clock, milliseconds since 1970.
    transport: name of the file in gateway/transports that took it in.
    path: request path with its leading slash, custom paths already replaced by what they stand for.
    query: raw query string without "?"; "" when there was none.
    body: None when the request had none by its nature (GET); b"" for an empty POST.
    headers: allowed request headers in order, as (name, value).
    ip: client address; None when unknown or withheld (anonymous).
    network_userid: the cookie's or `nuid`'s value; None when no such id exists.
    device: the device that proved its identity; None for browsers, emails and other open sources.
    erased: places (from 0) of the events in it that were erased for somebody's sake. Nothing of them is left; where neither
        query nor body is, nothing is left of the whole payload.
    """

    id: Final[str]
    received_ms: Final[int]
    transport: Final[str]
    path: Final[str]
    query: Final[str] = ""
    body: Final[bytes | None] = None
    content_type: Final[str | None] = None
    headers: Final[tuple[tuple[str, str], ...]] = ()
    ip: Final[str | None] = None
    host: Final[str | None] = None
    network_userid: Final[str | None] = None
    device: Final[str | None] = None
    erased: Final[tuple[int, ...]] = ()


class SelfDescribing(TypedDict):
    """A JSON with the URI of the schema that describes it; keys in this order."""

    schema: str
    data: Json


class Event(TypedDict, total=False):
    """The canonical event: only the columns that have a value. Generated from columns.json.

    Timestamps are milliseconds since 1970 (UTC), decimals keep their scale, booleans are bool.
    """

    # <generated from columns.json: make generate>
    app_id: str
    platform: str
    etl_tstamp: int
    collector_tstamp: int
    dvce_created_tstamp: int
    event: str
    event_id: str
    txn_id: int
    name_tracker: str
    v_tracker: str
    v_collector: str
    v_etl: str
    user_id: str
    user_ipaddress: str
    user_fingerprint: str
    domain_userid: str
    domain_sessionidx: int
    network_userid: str
    geo_country: str
    geo_region: str
    geo_city: str
    geo_zipcode: str
    geo_latitude: float
    geo_longitude: float
    geo_region_name: str
    ip_isp: str
    ip_organization: str
    ip_domain: str
    ip_netspeed: str
    page_url: str
    page_title: str
    page_referrer: str
    page_urlscheme: str
    page_urlhost: str
    page_urlport: int
    page_urlpath: str
    page_urlquery: str
    page_urlfragment: str
    refr_urlscheme: str
    refr_urlhost: str
    refr_urlport: int
    refr_urlpath: str
    refr_urlquery: str
    refr_urlfragment: str
    refr_medium: str
    refr_source: str
    refr_term: str
    mkt_medium: str
    mkt_source: str
    mkt_term: str
    mkt_content: str
    mkt_campaign: str
    contexts: list[SelfDescribing]
    se_category: str
    se_action: str
    se_label: str
    se_property: str
    se_value: Decimal
    unstruct_event: SelfDescribing
    tr_orderid: str
    tr_affiliation: str
    tr_total: Decimal
    tr_tax: Decimal
    tr_shipping: Decimal
    tr_city: str
    tr_state: str
    tr_country: str
    ti_orderid: str
    ti_sku: str
    ti_name: str
    ti_category: str
    ti_price: Decimal
    ti_quantity: int
    pp_xoffset_min: int
    pp_xoffset_max: int
    pp_yoffset_min: int
    pp_yoffset_max: int
    useragent: str
    br_name: str
    br_family: str
    br_version: str
    br_type: str
    br_renderengine: str
    br_lang: str
    br_features_pdf: bool
    br_features_flash: bool
    br_features_java: bool
    br_features_director: bool
    br_features_quicktime: bool
    br_features_realplayer: bool
    br_features_windowsmedia: bool
    br_features_gears: bool
    br_features_silverlight: bool
    br_cookies: bool
    br_colordepth: str
    br_viewwidth: int
    br_viewheight: int
    os_name: str
    os_family: str
    os_manufacturer: str
    os_timezone: str
    dvce_type: str
    dvce_ismobile: bool
    dvce_screenwidth: int
    dvce_screenheight: int
    doc_charset: str
    doc_width: int
    doc_height: int
    tr_currency: str
    tr_total_base: Decimal
    tr_tax_base: Decimal
    tr_shipping_base: Decimal
    ti_currency: str
    ti_price_base: Decimal
    base_currency: str
    geo_timezone: str
    mkt_clickid: str
    mkt_network: str
    etl_tags: str
    dvce_sent_tstamp: int
    refr_domain_userid: str
    refr_dvce_tstamp: int
    derived_contexts: list[SelfDescribing]
    domain_sessionid: str
    derived_tstamp: int
    event_vendor: str
    event_name: str
    event_format: str
    event_version: str
    event_fingerprint: str
    true_tstamp: int
    # </generated>


FailedKind = Literal[
    "collector_payload_format_violation",
    "adapter_failures",
    "tracker_protocol_violations",
    "schema_violations",
    "enrichment_failures",
    "size_violation",
    "journal_damage",
    "relay_refused",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was wrong.

    step: where it was found: payload, adapter, atomic, unstruct_event, contexts, derived_contexts or an enrichment's name.
    field: the parameter, column, header or JSON path it concerns; "" when none.
    value: what was received, shortened to 1,000 characters; None when there is no single value.
    keyword: machine-readable name of the rule that was broken; "" when the message is all there is.
    schema: the schema URI it was checked against, if any.
    """

    step: str
    field: str
    message: str
    value: str | None = None
    keyword: str = ""
    schema: str | None = None


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event, or a whole payload, that could not be finished: kept with every reason, never dropped.

    id: derived from the payload's id and index, so the same failure always has the same id.
    index: 0-based place in the payload; None when the whole payload failed.
    parameters: the event as the tracker sent it; empty when the whole payload failed.
    event: the columns that were understood before it failed.
    """

    id: str
    kind: FailedKind
    reasons: tuple[Reason, ...]
    payload: RawPayload
    failed_ms: int
    index: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    event: Event = field(default_factory=Event)


Outcome = Event | FailedEvent


class Position(NamedTuple):
    """A place in one lane of the journal: everything before it has been read.

    offset: bytes from the start of the uncompressed segment, always at the start of a line.
    sequence: number of the last payload before it in this lane, counted from 1; 0 = nothing read.
    """

    segment: int
    offset: int
    sequence: int


START = Position(0, 0, 0)

# A position per lane of the journal, by the lane's name. A lane that is missing has not been read at all.
Cursor = Mapping[str, Position]


class TransientError(Exception):
    """Our machine is in trouble: nothing was taken; the same call may succeed later."""


class PermanentError(Exception):
    """Our machine is in trouble and trying again will not help."""


class ConfigurationError(Exception):
    """What the configuration asks for does not exist; the message lists what does."""


__all__ = [
    "START",
    "ConfigurationError",
    "Cursor",
    "Decimal",
    "Event",
    "FailedEvent",
    "FailedKind",
    "Json",
    "Outcome",
    "PermanentError",
    "Position",
    "RawPayload",
    "Reason",
    "SelfDescribing",
    "TransientError",
]
