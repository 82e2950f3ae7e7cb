"""The same public calls with the official package and with ours: what a server gets is equal field by field."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import snowplow_tracker as official

from spoorway_tracker import compat
from tests.trackers.python.answering import Answering, status

MEANT_TO_DIFFER = {"eid", "dtm", "stm", "tv"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def subject(package: ModuleType) -> Any:
    made = package.Subject()
    made.set_platform("mob").set_user_id("ü@example.com").set_screen_resolution(1920, 1080).set_viewport(800, 600)
    made.set_color_depth(24).set_timezone("Europe/London").set_lang("de").set_domain_user_id("duid")
    made.set_domain_session_id("sid").set_domain_session_index(3).set_ip_address("203.0.113.7").set_useragent("UA/1.0")
    made.set_network_user_id("tnuid")
    return made


def calls(package: ModuleType, tracker: Any) -> None:
    json = package.SelfDescribingJson
    context = [json("iglu:com.acme/a/jsonschema/1-0-0", {"ü": [1, 2.5, None]}), json("iglu:com.acme/b/jsonschema/1-0-0", {})]
    other = package.Subject().set_user_id("other")
    more: dict[str, Any] = {"context": context, "true_timestamp": 1_700_000_000_000.7, "event_subject": other}
    more_by_place = (other, context, 1_700_000_000_000)
    for event in (
        package.PageView("https://x/é?a=1", "Title", "https://r/", **more),
        package.PageView("https://x/", "", None),
        package.PagePing("https://x/", "T", "R", 0, 10, -5, 20),
        package.StructuredEvent("c", "a", "l", "p", 0, **more),
        package.StructuredEvent("c", "a", value=1.5),
        package.ScreenView("id", "name", "type", "pn", "pi", "pt", "tt", **more),
        package.SelfDescribing(json("iglu:com.acme/e/jsonschema/1-0-0", {"k": "v\n€"}), **more),
        package.PageView("https://x/", "T", "R", *more_by_place),
        package.PagePing("https://x/", "T", "R", 0, 10, -5, 20, other, context, None),
        package.StructuredEvent("c", "a", "l", "p", 2, other, context, 1.9),
        package.SelfDescribing(json("iglu:com.acme/e/jsonschema/1-0-0", {}), other, None, 1_700_000_000_000),
        package.ScreenView("id", "name", "type", "pn", "pi", "pt", "tt", *more_by_place),
    ):
        tracker.track(event)
    old = {"context": context, "tstamp": 1_700_000_000_000, "event_subject": other}
    tracker.track_page_view("https://x/", "T", "R", **old)
    tracker.track_page_ping("https://x/", "T", "R", 1, 2, 3, 4, **old)
    tracker.track_link_click("https://t/", "id", ["c1"], "_blank", "text", **old)
    tracker.track_add_to_cart("sku", 2, "n", "c", 9.99, "EUR", **old)
    tracker.track_remove_from_cart("sku", 1)
    tracker.track_form_change("f", None, "INPUT", None, "text", ["c"], **old)
    element = {"name": "n", "value": "v", "nodeName": "INPUT", "type": "text"}
    tracker.track_form_submit("f", ["c"], [element], **old)
    tracker.track_site_search(["a", "b"], {"f": True}, 10, 5, **old)
    tracker.track_screen_view("n", "i", **old)
    tracker.track_mobile_screen_view("n", "i", "t", "pn", "pi", "pt", "tt", **old)
    tracker.track_struct_event("c", "a", "l", "p", 3, **old)
    tracker.track_self_describing_event(json("iglu:com.acme/e/jsonschema/1-0-0", {"k": 1}), **old)
    tracker.track_unstruct_event(json("iglu:com.acme/e/jsonschema/1-0-0", {"k": 2}))
    items = [{"sku": "s1", "price": 1.5, "quantity": 2, "name": "n", "category": "c"}, {"sku": "s2", "price": 3, "quantity": 1}]
    tracker.track_ecommerce_transaction("o", 10.5, "aff", 1.0, 2.0, "Berlin", "BE", "DE", "EUR", items, **old)


@pytest.fixture
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SPOORWAY_TRACKER_FOLDER", str(tmp_path))
    yield
    for tracker in compat.Snowplow._trackers.values():
        tracker.emitters[0].delivery.close(1)
    compat.Snowplow.reset()


@pytest.mark.parametrize("encode", [True, False], ids=["base64", "plain"])
@pytest.mark.parametrize("method", ["post", "get"])
def test_payloads_are_equal_field_by_field(folder: None, method: str, encode: bool) -> None:
    arrived: list[list[dict[str, str]]] = []
    for package in (official, compat):
        with Answering() as server:
            emitter = package.Emitter("127.0.0.1", "http", server.port, method)
            tracker = package.Tracker("ns", emitter, subject(package), "app", encode)
            calls(package, tracker)
            tracker.flush()
            arrived.append([event for asked in server.asked for event in asked.events])
            if package is compat:
                emitter.delivery.close(5)
    theirs, ours = arrived
    assert len(theirs) == len(ours) == 28
    for a, b in zip(theirs, ours, strict=True):
        assert a.keys() == b.keys()
        assert {k: v for k, v in a.items() if k not in MEANT_TO_DIFFER} == {
            k: v for k, v in b.items() if k not in MEANT_TO_DIFFER
        }


def test_every_public_name_and_argument_is_there() -> None:
    names = {name for name, value in vars(official).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert names <= set(compat.__all__)
    for name in names - {"logger", "EventStore"}:
        theirs, ours = getattr(official, name), getattr(compat, name)
        if not inspect.isclass(theirs):
            continue
        for method in vars(theirs):
            if (
                method == "complete_payload"
                or (method.startswith("_") and method != "__init__")
                or not callable(getattr(theirs, method))
            ):
                continue
            if name.endswith(("View", "Ping", "Event", "Describing", "Emitter")) and method != "__init__":
                continue  # their inner works; what a program calls is in the test above
            assert hasattr(ours, method), f"{name}.{method}"
            accepted = inspect.signature(getattr(ours, method)).parameters
            if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
                continue
            missing = inspect.signature(getattr(theirs, method)).parameters.keys() - accepted.keys()
            assert not missing, f"{name}.{method} lacks {missing}"


def test_the_packages_own_example_runs(folder: None, answering: Answering) -> None:
    """Made after the calls that the official package's documentation shows."""
    happened: list[str] = []
    emitter_config = compat.EmitterConfiguration(
        batch_size=5, on_success=lambda events: happened.extend(e["e"] for e in events), on_failure=lambda n, events: None
    )
    tracker = compat.Snowplow.create_tracker(
        namespace="ns", endpoint=answering.url, app_id="app1", subject=compat.Subject().set_platform("pc"),
        tracker_config=compat.TrackerConfiguration(encode_base64=True), emitter_config=emitter_config,
    )  # fmt: skip
    assert compat.Snowplow.get_tracker("ns") is tracker
    event_id = tracker.track(compat.PageView("https://www.snowplow.io", "Homepage"))
    tracker.track(compat.StructuredEvent("shop", "add-to-basket", None, "pcs", 2))
    tracker.flush()
    assert happened == ["pv", "se"]
    assert answering.asked[0].events[0]["eid"] == event_id
    with pytest.raises(ValueError, match="empty"):
        compat.PageView("")
    with pytest.raises(TypeError, match="unexpected argument"):
        compat.PageView("http://x/", None, None, None, event_subject=None)
    with pytest.raises(TypeError, match="already exists"):
        compat.Snowplow.create_tracker("ns", answering.url)


def test_emitter_of_the_users_own_is_given_parameters_and_ours_takes_them_later(folder: None, answering: Answering) -> None:
    """As the official package's example with a Redis between two programs does."""

    class Kept:
        def __init__(self) -> None:
            self.payloads: list[dict[str, Any]] = []

        def input(self, payload: dict[str, Any]) -> None:
            self.payloads.append(dict(payload))

        def sync_flush(self) -> None: ...

    kept = Kept()
    tracker: Any = compat.Tracker("ns", kept)  # type: ignore[arg-type]
    tracker.track_link_click("https://x/")
    tracker.flush()
    emitter = compat.Emitter(answering.url)
    for payload in kept.payloads:
        emitter.input(payload)
    emitter.sync_flush()
    (event,) = answering.asked[0].events
    assert (event["e"], event["tna"], event["eid"]) == ("ue", "ns", kept.payloads[0]["eid"])
    emitter.delivery.close(5)


def test_failure_is_told_and_the_event_stays(folder: None, answering: Answering) -> None:
    answering.answers = [status(503, "Retry-After: 60")]
    failed: list[Any] = []
    emitter = compat.Emitter(answering.url, on_failure=lambda n, events: failed.append((n, len(events))), batch_size=1)
    tracker = compat.Tracker("ns", emitter)
    tracker.track(compat.PageView("http://x/"))
    emitter.delivery.close(0.7)
    assert failed == [(0, 1)]
    assert emitter.delivery.counters.sent == 0


def test_root_logger_is_left_alone() -> None:
    import subprocess
    import sys
    from pathlib import Path

    program = (
        "import logging, spoorway_tracker.compat; assert logging.root.handlers == [] and logging.root.level == logging.WARNING"
    )
    sources = str(Path(__file__).parents[3] / "trackers/python")
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": sources}, check=False).returncode == 0
    assert logging.getLogger("spoorway_tracker").handlers == []
