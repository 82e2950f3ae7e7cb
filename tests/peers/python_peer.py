"""Drives the official Python tracker through every call of calls.json and prints as JSON which event ids each call got.

    python tests/peers/python_peer.py http://127.0.0.1:8080 [--method get|post] [--base64 on|off] [--anonymous]

What was tracked stands in calls.json alone; nothing here knows a wire parameter.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from snowplow_tracker.constants import VERSION
from snowplow_tracker.emitters import Emitter
from snowplow_tracker.events.event import Event
from snowplow_tracker.events.page_ping import PagePing
from snowplow_tracker.events.page_view import PageView
from snowplow_tracker.events.self_describing import SelfDescribing
from snowplow_tracker.events.structured_event import StructuredEvent
from snowplow_tracker.self_describing_json import SelfDescribingJson
from snowplow_tracker.subject import Subject
from snowplow_tracker.tracker import Tracker

UNSUPPORTED = {
    "form_focus": "no method",
    "social_interaction": "no method",
}


class Recorder(Tracker):
    """The official tracker, remembering the ids it gave out: its older methods return the tracker instead."""

    event_ids: list[str]

    def track(self, event: Event) -> str | None:
        event_id = super().track(event)
        assert event_id is not None
        self.event_ids.append(event_id)
        return event_id


def subject_of(facts: dict[str, Any], anonymous: bool) -> Subject:
    subject = Subject()
    subject.set_platform(facts["platform"])
    subject.set_screen_resolution(*facts["screen"])
    subject.set_viewport(*facts["viewport"])
    subject.set_color_depth(facts["color_depth"])
    subject.set_timezone(facts["timezone"])
    subject.set_lang(facts["lang"])
    subject.set_useragent(facts["useragent"])
    if not anonymous:
        subject.set_user_id(facts["user_id"])
        subject.set_domain_user_id(facts["domain_userid"])
        subject.set_domain_session_id(facts["session_id"])
        subject.set_domain_session_index(facts["session_index"])
        subject.set_ip_address(facts["ip"])
        subject.set_network_user_id(facts["network_userid"])
    return subject


def entities(documents: list[dict[str, Any]]) -> list[SelfDescribingJson]:
    return [SelfDescribingJson(d["schema"], d["data"]) for d in documents]


def calls(tracker: Tracker) -> dict[str, Callable[[dict[str, Any], float | None], object]]:
    """Name in calls.json -> the tracker's own method. The second argument is the true timestamp in milliseconds."""
    return {
        "page_view": lambda a, t: tracker.track(PageView(a["url"], a["title"], a["referrer"], true_timestamp=t)),
        "page_ping": lambda a, t: tracker.track(
            PagePing(a["url"], a["title"], a["referrer"], a["min_x"], a["max_x"], a["min_y"], a["max_y"], true_timestamp=t)
        ),
        "struct": lambda a, t: tracker.track(
            StructuredEvent(a["category"], a["action"], a["label"], a["property"], a["value"], true_timestamp=t)
        ),
        "struct_bare": lambda a, t: tracker.track(StructuredEvent(a["category"], a["action"], true_timestamp=t)),
        "self_describing": lambda a, t: tracker.track(
            SelfDescribing(entities([a["event"]])[0], context=entities(a["entities"]), true_timestamp=t)
        ),
        "link_click": lambda a, t: tracker.track_link_click(**a, tstamp=t),
        "form_change": lambda a, t: tracker.track_form_change(**_renamed(a, element_type="type_"), tstamp=t),
        "form_submit": lambda a, t: tracker.track_form_submit(**a, tstamp=t),
        "site_search": lambda a, t: tracker.track_site_search(**a, tstamp=t),
        "add_to_cart": lambda a, t: tracker.track_add_to_cart(**a, tstamp=t),
        "remove_from_cart": lambda a, t: tracker.track_remove_from_cart(**a, tstamp=t),
        "transaction": lambda a, t: tracker.track_ecommerce_transaction(
            **_renamed(a, total="total_value", tax="tax_value"), tstamp=t
        ),
        "screen_view": lambda a, t: tracker.track_screen_view(**_renamed(a, id="id_"), tstamp=t),
        "mobile_screen_view": lambda a, t: tracker.track_mobile_screen_view(**_renamed(a, id="id_"), tstamp=t),
    }


def _renamed(arguments: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in arguments.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="the collector, http://host:port")
    parser.add_argument("--method", choices=("get", "post"), default="post")
    parser.add_argument("--base64", choices=("on", "off"), default="on")
    parser.add_argument("--anonymous", action="store_true", help="send SP-Anonymous, and nothing that identifies anybody")
    options = parser.parse_args()
    table = json.loads(Path(__file__).with_name("calls.json").read_text("utf-8"))

    session = requests.Session()
    session.trust_env = False  # no proxy of the surroundings between the tracker and the loopback collector
    if options.anonymous:
        session.headers["SP-Anonymous"] = "*"
    delivered: list[str] = []
    collector = urlsplit(str(options.url))
    emitter = Emitter(
        collector.hostname or "",
        protocol="https" if collector.scheme == "https" else "http",
        port=collector.port,
        method=options.method,
        batch_size=5,  # several batches, and one that is not full
        on_success=lambda events: delivered.extend(event["eid"] for event in events),
        session=session,
    )
    tracker = Recorder(
        table["tracker"]["namespace"],
        emitter,
        subject=subject_of(table["subject"], options.anonymous),
        app_id=table["tracker"]["app_id"],
        encode_base64=options.base64 == "on",
    )
    methods = calls(tracker)
    made: list[dict[str, Any]] = []
    for call in table["calls"]:
        if call["name"] in UNSUPPORTED:
            continue
        tracker.event_ids = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the older methods are what deployed programs call
            methods[call["name"]](call["arguments"], call.get("true_timestamp_ms"))
        made.append({"name": call["name"], "event_ids": tracker.event_ids})
    tracker.flush()
    print(json.dumps({"tracker": VERSION, "calls": made, "unsupported": UNSUPPORTED, "delivered": delivered}))


if __name__ == "__main__":
    main()
