"""The official browser trackers in a real Chromium, run against a gateway: every row holds what the browser showed and did."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.peers import expectation, programs

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.peers.fixtures"]

SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
VERSIONS = {"v3": "js-3.24.6", "v4": "js-4.6.8", "newest": "js-4.10.1"}
PRODUCT = {"id": "WC-10", "name": "Watering can 10 l", "category": "watering", "price": 24.95, "currency": "EUR"}


def described(uri: str, data: dict[str, Any], *entities: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    contexts = [{"schema": schema, "data": entity} for schema, entity in entities]
    return {"event": "unstruct", "unstruct_event": {"schema": uri, "data": data}, "contexts": contexts}


def field(name: str, kind: str | None, value: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "nodeName": "SELECT" if kind is None else "INPUT",
        **({"type": kind} if kind else {}),
        **more,
    }


EMAIL: dict[str, Any] = {"formId": "sign-up", "elementId": "email", "nodeName": "INPUT", "elementClasses": ["wide"]}
COLOUR: dict[str, Any] = {"formId": "sign-up", "elementId": "colour", "nodeName": "SELECT", "elementClasses": []}
SHOP = "iglu:com.snowplowanalytics.snowplow.ecommerce"
ACTION = f"{SHOP}/snowplow_ecommerce_action/jsonschema/1-0-2"
GOOGLE = "iglu:com.google.analytics.enhanced-ecommerce"

LINK = {
    "targetUrl": "http://shop.test/next.html?from=a%20link&n=1#bed",
    "elementId": "next",
    "elementClasses": ["button", "wide"],
    "elementTarget": "_self",
    "elementContent": "To the <b>next</b> bed",
}
# The generation before decodes the address of a link.
LINK_V3 = LINK | {"targetUrl": "http://shop.test/next.html?from=a link&n=1#bed"}

STEPS: dict[str, list[dict[str, Any]]] = {call["name"]: call["rows"] for call in programs.TABLE["calls"]} | {
    "page_view": [{"event": "page_view"}],
    "next_page_view": [{"event": "page_view"}],
    "page_ping": [{"event": "page_ping", "pp_yoffset_max": 300}],  # it leaves out offsets that are zero
    "focus": [described(f"{SNOWPLOW}/focus_form/jsonschema/1-0-0", EMAIL | {"elementType": "email", "value": ""})],
    "change_and_focus": [
        described(f"{SNOWPLOW}/change_form/jsonschema/1-0-0", EMAIL | {"type": "email", "value": "zoë@example.org"}),
        described(f"{SNOWPLOW}/focus_form/jsonschema/1-0-0", COLOUR | {"value": "red"}),
    ],
    "choose": [described(f"{SNOWPLOW}/change_form/jsonschema/1-0-0", COLOUR | {"value": "blue"})],
    "submit": [
        described(
            f"{SNOWPLOW}/submit_form/jsonschema/1-0-0",
            {
                "formId": "sign-up",
                "formClasses": ["card"],
                "elements": [field("email", "email", "zoë@example.org"), field("colour", None, "blue")],
            },
        )
    ],
    "link_click": [described(f"{SNOWPLOW}/link_click/jsonschema/1-0-1", LINK)],
    "product_view": [described(ACTION, {"type": "product_view"}, (f"{SHOP}/product/jsonschema/1-0-0", PRODUCT))],
    "shop_add_to_cart": [
        described(
            ACTION,
            {"type": "add_to_cart"},
            (f"{SHOP}/product/jsonschema/1-0-0", PRODUCT | {"quantity": 2}),
            (f"{SHOP}/cart/jsonschema/1-0-0", {"total_value": 49.9, "currency": "EUR"}),
        )
    ],
    "shop_transaction": [
        described(
            ACTION,
            {"type": "transaction"},
            (f"{SHOP}/product/jsonschema/1-0-0", PRODUCT | {"quantity": 2}),
            (
                f"{SHOP}/transaction/jsonschema/1-0-0",
                {
                    "transaction_id": "order/77",
                    "revenue": 56.85,
                    "currency": "EUR",
                    "payment_method": "card",
                    "shipping": 6.95,
                    "total_quantity": 2,  # the plugin counts the products
                },
            ),
        )
    ],
    "enhanced_action": [
        described(
            f"{GOOGLE}/action/jsonschema/1-0-0",
            {"action": "add"},
            (
                f"{GOOGLE}/productFieldObject/jsonschema/1-0-0",
                {"id": "WC-10", "name": "Watering can 10 l", "price": 24.95, "quantity": 2, "currency": "EUR"},
            ),
        )
    ],
}
API = ["page_view", "page_ping", "struct", "struct_bare", "self_describing"]
FORM = ["focus", "change_and_focus", "choose", "submit"]
MADE = {
    "newest": API,
    "v4": [*API, *FORM, "site_search", "social_interaction", "product_view", "shop_add_to_cart", "shop_transaction"],
    "v3": [*API, *FORM, "add_to_cart", "remove_from_cart", "transaction", "enhanced_action"],
}
LAST = ["link_click", "next_page_view"]


@pytest.fixture(scope="module")
def bundles(npm_peers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {name: programs.bundle(f"{name}.js", folder / f"{name}.js") for name in VERSIONS}


@pytest.mark.parametrize(
    ("generation", "method", "base64"),
    [
        *[("v4", method, base64) for method in ("post", "get") for base64 in ("off", "on")],
        *[("v3", method, base64) for method, base64 in (("post", "on"), ("get", "off"), ("beacon", "off"))],
        ("newest", "post", "off"),
        ("newest", "get", "on"),
    ],
)
def test_a_visit_is_stored_as_it_happened(
    spoorway_run: Any, chromium: str, bundles: dict[str, Path], generation: str, method: str, base64: str
) -> None:
    run = programs.run_browser(spoorway_run.url, bundles[generation], generation, method, base64)
    assert judge(spoorway_run, run, generation) == ""


@pytest.mark.parametrize("generation", ["v4", "v3"])
def test_an_anonymous_visit_leaves_no_address_and_no_id(
    spoorway_run: Any, chromium: str, bundles: dict[str, Path], generation: str
) -> None:
    run = programs.run_browser(spoorway_run.url, bundles[generation], generation, anonymous=True)
    assert judge(spoorway_run, run, generation) == ""


def judge(gateway: Any, run: expectation.Run, generation: str) -> str:
    """Everything that is wrong, one "step: column: …" a line; empty when all is well."""
    steps = run.answer["steps"]
    assert [step["name"] for step in steps] == MADE[generation] + (LAST if generation != "newest" else [])
    assert run.answer["console"] == []
    tracked = run.answer["tracked"]
    rows = expectation.stored(gateway, tracked)
    wrong = [f"stored but not tracked: {event_id}" for event_id in rows.keys() - set(tracked)]
    true_ms = {call["name"]: call.get("true_timestamp_ms") for call in programs.TABLE["calls"]}
    true_ms["transaction"] = None  # here it was not asked for
    for step in steps:
        name = step["name"]
        for event_id, tracked_row in zip(step["event_ids"], STEPS[name], strict=name != "page_ping"):
            if (generation, name) == ("v3", "link_click"):
                tracked_row = described(f"{SNOWPLOW}/link_click/jsonschema/1-0-1", LINK_V3)
            if (row := rows.get(event_id)) is None:
                wrong.append(f"{name}: not stored{expectation.why_not(gateway, event_id)}")
                continue
            entities = list(tracked_row.get("contexts", []))
            entities.append({"schema": f"{SNOWPLOW}/web_page/jsonschema/1-0-0", "data": {"id": step["facts"]["page_view_id"]}})
            if not run.anonymous:
                entities.append(session(step["facts"], tracked, event_id, rows))
            columns = common(step["facts"], generation, run.anonymous)
            if tracked_row["event"] not in ("page_view", "page_ping"):
                columns["page_title"] = None  # it sends the title with these two only
            expected = expectation.of_call(tracked_row | {"contexts": None}, columns)
            found = expectation.differences(row | {"contexts": None}, expected | {"event_id": event_id})
            found += entity_differences(row["contexts"], entities)
            found += expectation.time_differences(row, run, true_ms.get(name), created=true_ms.get(name) is None)
            found += expectation.identity_differences(row, run, None, "127.0.0.1")
            wrong += [f"{name}: {line}" for line in found]
    return "\n".join(wrong)


def common(facts: dict[str, Any], generation: str, anonymous: bool) -> dict[str, Any]:
    """What the browser itself says, as columns."""
    columns = {name: value for name, value in facts.items() if name != "page_view_id"}
    for prefix in ("page", "refr"):
        url: str | None = facts["page_url" if prefix == "page" else "page_referrer"]
        if url:
            parts = urlsplit(url)
            columns[f"{prefix}_urlscheme"] = parts.scheme
            columns[f"{prefix}_urlhost"] = parts.hostname
            columns[f"{prefix}_urlport"] = parts.port or 80
            columns[f"{prefix}_urlpath"] = parts.path
            columns[f"{prefix}_urlquery"] = parts.query or None
            columns[f"{prefix}_urlfragment"] = parts.fragment or None
    if generation == "v3":
        columns["os_timezone"] = None  # a plugin's business in that generation
    if not anonymous:
        columns["user_id"] = programs.TABLE["subject"]["user_id"]
    return columns | {
        "app_id": programs.TABLE["tracker"]["app_id"],
        "name_tracker": programs.TABLE["tracker"]["namespace"],
        "v_tracker": VERSIONS[generation],
        "platform": "web",
    }


def session(facts: dict[str, Any], tracked: list[str], event_id: str, rows: dict[str, Any]) -> dict[str, Any]:
    """The session entity that the tracker has to have kept: the same ids as in the cookie, events counted from 1."""
    first = rows[tracked[0]]["dvce_created_tstamp"].replace(" ", "T") + "Z"
    return {
        "schema": f"{SNOWPLOW}/client_session/jsonschema/1-0-2",
        "data": {
            "userId": facts["domain_userid"],
            "sessionId": facts["domain_sessionid"],
            "sessionIndex": 1,
            "eventIndex": tracked.index(event_id) + 1,
            "previousSessionId": None,
            "storageMechanism": "COOKIE_1",
            "firstEventId": tracked[0],
            "firstEventTimestamp": first,
        },
    }


def entity_differences(stored: str | None, wanted: list[dict[str, Any]]) -> list[str]:
    """Entities have no order of their own."""
    kept: list[Any] = expectation.unwrapped("contexts", stored) if stored else []
    missing = [entity for entity in wanted if entity not in kept]
    extra = [entity for entity in kept if entity not in wanted]
    return [f"contexts: missing {missing}, extra {extra}"] if missing or extra else []
