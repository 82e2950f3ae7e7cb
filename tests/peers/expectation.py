"""Turns what a peer says it tracked into the row that must be stored, and names every column that differs.

All 131 columns are looked at: one that was not tracked must be null, unless the pipeline itself fills it (PIPELINE).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from protocol.tables import COLUMNS, EVENT_SCHEMAS

UNSTRUCT_ENVELOPE = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
CONTEXTS_ENVELOPE = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
NIL_UUID = "00000000-0000-0000-0000-000000000000"

TIMES = ("etl_tstamp", "collector_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp", "derived_tstamp", "true_tstamp")
_ENRICHED_STARTS = (
    *("geo_", "ip_", "mkt_", "refr_medium", "refr_source", "refr_term"),
    *("br_name", "br_family", "br_version", "br_type", "br_renderengine"),
    *("os_name", "os_family", "os_manufacturer", "dvce_type", "dvce_ismobile"),
    *("derived_contexts", "etl_tags", "event_fingerprint"),
)
ENRICHED = frozenset(column.name for column in COLUMNS if column.name.startswith(_ENRICHED_STARTS))
"""Columns that no tracker sends and an enrichment may fill: which ones run is configuration, so they are not judged here."""
PIPELINE = ENRICHED | set(TIMES) | {"v_collector", "v_etl", "network_userid", "user_ipaddress"}


class Run(NamedTuple):
    """One run of a peer against a gateway, with the test's own clock around it (milliseconds since 1970)."""

    answer: dict[str, Any]
    started_ms: int
    ended_ms: int
    anonymous: bool


class Gateway(Protocol):
    """The fixture `spoorway_run`."""

    @property
    def url(self) -> str: ...
    def query(self, sql: str) -> list[dict[str, Any]]: ...
    def wait(self, n: int) -> None: ...


def judge(
    gateway: Gateway,
    run: Run,
    table: Mapping[str, Any],
    unsupported: set[str],
    quirks: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    created_with_true: bool = True,
) -> str:
    """Everything that is wrong with what a peer left in the store, one "call: column: …" a line; empty when all is well.

    table: calls.json. unsupported: the calls this tracker is known not to have; any other must have been made.
    quirks: by call, columns that this tracker cannot send as they were tracked (tests/peers/README.md says why).
    created_with_true: whether it sends the creation time beside a true time.
    """
    answer = run.answer
    event_ids = [event_id for call in answer["calls"] for event_id in call["event_ids"]]
    assert set(answer["unsupported"]) == unsupported
    assert {call["name"] for call in answer["calls"]} == {call["name"] for call in table["calls"]} - unsupported
    assert sorted(answer["delivered"]) == sorted(event_ids), answer  # what the tracker itself believes

    rows = stored(gateway, event_ids)
    subject, calls = table["subject"], {call["name"]: call for call in table["calls"]}
    common = of_subject(table, answer["tracker"], run.anonymous)
    wrong = [f"stored but not tracked: {event_id}" for event_id in rows.keys() - set(event_ids)]
    for made in answer["calls"]:
        call, name = calls[made["name"]], made["name"]
        true_ms = call.get("true_timestamp_ms")
        for event_id, tracked in zip(made["event_ids"], call["rows"], strict=True):
            if (row := rows.get(event_id)) is None:
                wrong.append(f"{name}: not stored{why_not(gateway, event_id)}")
                continue
            tracked = tracked | (quirks or {}).get(name, {})
            found = differences(row, of_call(tracked, common | {"event_id": event_id}))
            found += time_differences(row, run, true_ms, created=true_ms is None or created_with_true)
            found += identity_differences(row, run, subject["network_userid"], subject["ip"])
            wrong += [f"{name}: {line}" for line in found]
    return "\n".join(wrong)


def stored(gateway: Gateway, event_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Every stored row by its id, once the tracked ones are there or have had their time.

    A tracker may send an event twice (a page left while it waited for the answer); such a duplicate counts for `wait`.
    """
    gateway.wait(len(event_ids))
    deadline = time.monotonic() + 3
    while True:
        rows = {row["event_id"]: row for row in gateway.query("select * from atomic.events")}
        if rows.keys() >= set(event_ids) or time.monotonic() > deadline:
            return rows
        time.sleep(0.05)


def why_not(gateway: Gateway, event_id: str) -> str:
    """For a message: the first reason of the failed event of that id, if there is one."""
    sql = "select kind, first_reason, parameters from atomic.failed_events"
    failed = [row for row in gateway.query(sql) if json.loads(row["parameters"] or "{}").get("eid") == event_id]
    return f", {failed[0]['kind']}: {failed[0]['first_reason']}" if failed else ", and not failed"


def of_call(row: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of one event: what the call decided, what every call of this tracker shares, and the schema columns."""
    expected = {name: value for name, value in (dict(common) | dict(row)).items() if value is not None}
    if expected["event"] == "unstruct":
        vendor, name, kind, version = expected["unstruct_event"]["schema"].removeprefix("iglu:").split("/")
    else:
        (vendor, name), kind, version = EVENT_SCHEMAS[expected["event"]], "jsonschema", "1-0-0"
    return expected | {"event_vendor": vendor, "event_name": name, "event_format": kind, "event_version": version}


def of_subject(table: Mapping[str, Any], tracker: str, anonymous: bool) -> dict[str, Any]:
    """What calls.json's subject puts on every row."""
    s = table["subject"]
    known = {
        "user_id": s["user_id"],
        "domain_userid": s["domain_userid"],
        "domain_sessionid": s["session_id"],
        "domain_sessionidx": s["session_index"],
    }
    return {
        "app_id": table["tracker"]["app_id"],
        "name_tracker": table["tracker"]["namespace"],
        "v_tracker": tracker,
        "platform": s["platform"],
        "dvce_screenwidth": s["screen"][0],
        "dvce_screenheight": s["screen"][1],
        "br_viewwidth": s["viewport"][0],
        "br_viewheight": s["viewport"][1],
        "br_colordepth": str(s["color_depth"]),
        "os_timezone": s["timezone"],
        "br_lang": s["lang"],
        "useragent": s["useragent"],
    } | ({} if anonymous else known)


def differences(row: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """One line per column that is not what was tracked; empty when the row is right."""
    found = [f"unknown column {name}" for name in expected if name not in {c.name for c in COLUMNS}]
    for column in COLUMNS:
        if column.name in PIPELINE and column.name not in expected:
            continue
        actual, wanted = row[column.name], expected.get(column.name)
        if _value(column.name, column.type, actual) != wanted_value(column.type, wanted):
            found.append(f"{column.name}: stored {actual!r}, tracked {wanted!r}")
    return found


def time_differences(row: Mapping[str, Any], run: Run, true_ms: int | None, created: bool = True) -> list[str]:
    """What is wrong with the row's six times. created: whether the tracker sent when the event was made."""
    at = {name: milliseconds(row[name]) for name in TIMES}
    found: list[str] = []

    def check(holds: bool, message: str) -> None:
        if not holds:
            found.append(f"{message}: {at}, run {run.started_ms}..{run.ended_ms}")

    collector, etl, made, sent = (at[n] for n in ("collector_tstamp", "etl_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp"))
    check(collector is not None and run.started_ms <= collector <= run.ended_ms, "collector_tstamp outside the run")
    check(etl is not None and collector is not None and etl >= collector, "etl_tstamp before collector_tstamp")
    check(sent is not None and run.started_ms - 1000 <= sent <= run.ended_ms, "dvce_sent_tstamp outside the run")
    check(at["true_tstamp"] == true_ms, f"true_tstamp is not {true_ms}")
    if created:
        check(made is not None and run.started_ms <= made <= run.ended_ms, "dvce_created_tstamp outside the run")
    else:
        check(made is None, "dvce_created_tstamp though the tracker sent none")
    if true_ms is not None:
        derived: int | None = true_ms
    elif collector is not None and made is not None and sent is not None and made < sent:
        derived = collector - (sent - made)
    else:
        derived = collector
    check(at["derived_tstamp"] == derived, f"derived_tstamp is not {derived}")
    return found


def identity_differences(row: Mapping[str, Any], run: Run, network_userid: str | None, ip: str) -> list[str]:
    """What is wrong with the columns that say who it was. ip: the address that was sent; every stored one is truncated."""
    found: list[str] = []
    if run.anonymous:
        network_userid, address_ok = NIL_UUID, row["user_ipaddress"] == "unknown"
    else:
        address_ok = row["user_ipaddress"].startswith(ip.rpartition(".")[0] + ".") and row["user_ipaddress"] != ip
    if not address_ok:
        found.append(f"user_ipaddress: stored {row['user_ipaddress']!r}, sent {ip!r}, anonymous {run.anonymous}")
    if network_userid is not None and row["network_userid"] != network_userid:
        found.append(f"network_userid: stored {row['network_userid']!r}, wanted {network_userid!r}")
    found += [f"{name} is empty" for name in ("v_collector", "v_etl") if not row[name]]
    return found


def milliseconds(text: str | None) -> int | None:
    """A stored time, `yyyy-MM-dd HH:mm:ss.SSS` in UTC, as milliseconds since 1970."""
    if text is None:
        return None
    moment = datetime.strptime(f"{text}+0000", "%Y-%m-%d %H:%M:%S.%f%z")
    return round(moment.timestamp() * 1000)


def wanted_value(kind: str, wanted: Any) -> Any:
    return Decimal(wanted) if kind == "decimal" and wanted is not None else wanted


def _value(name: str, kind: str, stored: Any) -> Any:
    """A stored value, as comparable as the tracked one: SQLite has no decimals, booleans or documents."""
    if stored is None:
        return None
    if kind == "decimal":
        return Decimal(str(stored))
    if kind == "boolean":
        return bool(stored)
    if kind == "json":
        return unwrapped(name, stored)
    return stored


def unwrapped(name: str, stored: str) -> Any:
    """What a document column holds inside its envelope; the whole document when the envelope is not the right one."""
    document = json.loads(stored)
    envelope = UNSTRUCT_ENVELOPE if name == "unstruct_event" else CONTEXTS_ENVELOPE
    return document["data"] if document["schema"] == envelope else document
