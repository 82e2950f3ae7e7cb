"""Sends what goes wrong in real life, one request each, and says what each one must become.

    python examples/demo/broken.py http://127.0.0.1:8080

Every request is answered 200: the gateway keeps what arrives and judges it afterwards. None of it becomes an event, none of
it is lost: look with `spoorway failed list`. Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import time
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

TP2 = "/com.snowplowanalytics.snowplow/tp2"
JSON = "application/json; charset=utf-8"
SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
EVENT, STEP = "schema_violations", "enrichment_failures"
PROTOCOL, ADAPTER, FORMAT = "tracker_protocol_violations", "adapter_failures", "collector_payload_format_violation"
LINK_CLICK = f"{SNOWPLOW}/link_click/jsonschema/1-0-1"


class Broken(NamedTuple):
    """kind: what it becomes (the failed event's kind); failures: how many. why: what is wrong with it."""

    name: str
    why: str
    kind: str
    path: str
    body: bytes | None = None
    content_type: str | None = None
    failures: int = 1


def event(**changed: str) -> dict[str, str]:
    """A page view that would be good."""
    now_ms = str(time.time_ns() // 1_000_000)
    good = {"e": "pv", "p": "web", "tv": "broken-demo-1.0.0", "aid": "broken", "url": "https://shop.example/", "dtm": now_ms}
    return good | changed


def described(schema: str, data: object) -> dict[str, str]:
    """A self-describing event."""
    wrapped = {"schema": f"{SNOWPLOW}/unstruct_event/jsonschema/1-0-0", "data": {"schema": schema, "data": data}}
    return event(e="ue", ue_pr=json.dumps(wrapped))


def posted(name: str, why: str, kind: str, *events: dict[str, str], failures: int = 1) -> Broken:
    body = json.dumps({"schema": f"{SNOWPLOW}/payload_data/jsonschema/1-0-4", "data": events}).encode()
    return Broken(name, why, kind, TP2, body, JSON, failures)


def got(name: str, why: str, kind: str, parameters: dict[str, str]) -> Broken:
    return Broken(name, why, kind, "/i?" + urlencode(parameters, quote_via=quote))


def cases() -> list[Broken]:
    cut = base64.urlsafe_b64encode(b'{"schema":"iglu:com.snowplow').decode()  # the rest was lost on the way
    return [
        # -- one event is wrong: by far the most frequent kind
        posted("unknown schema", "nobody published com.acme/espresso", EVENT,
               described("iglu:com.acme/espresso/jsonschema/1-0-0", {"grams": 18})),
        posted("wrong type", "targetUrl is a number; the schema says text", EVENT, described(LINK_CLICK, {"targetUrl": 42})),
        posted("missing property", "a link click without its targetUrl", EVENT, described(LINK_CLICK, {"elementId": "a"})),
        posted("no schema URI", "the version is not SchemaVer", EVENT, described("iglu:com.acme/espresso/jsonschema/1", {})),
        posted("too long", "a category of 1001 characters; the column holds 1000", EVENT,
               event(e="se", se_ca="x" * 1001, se_ac="open")),
        posted("bad UUID", "the event id is no UUID", EVENT, event(eid="not-a-uuid")),
        posted("negative viewport", "a width below zero", EVENT, event(vp="-1105x390")),
        posted("decimal comma", "4,25 is no number", EVENT, event(e="se", se_ca="shop", se_ac="rate", se_va="4,25")),
        posted("unknown platform", "platforms are a closed list", EVENT, event(p="toaster")),
        posted("two things wrong", "both are reported, in one failed event", EVENT, event(eid="1", res="wide")),
        got("bad base64", "the base64 of an entity was cut off: no JSON inside", EVENT, event(cx=cut)),
        got("unknown event", "there is no event code zz", EVENT, event(e="zz")),
        # -- the event was understood, a step could not do its work
        got("bad link", "the time in a cross-domain link is no number", STEP, event(url="https://shop.example/?_sp=visitor.noon")),
        # -- the whole request is wrong: nothing in it can be read as an event
        Broken("no JSON", "the body ends in the middle", PROTOCOL, TP2, b'{"schema": "iglu:com.snow', JSON),
        Broken("no envelope", "JSON, but not payload_data", PROTOCOL, TP2, b'{"e": "pv"}', JSON),
        Broken("wrong content type", "a naive sendBeacon: text/plain", PROTOCOL,
               TP2, json.dumps(event()).encode(), "text/plain;charset=UTF-8"),
        posted("unknown key", "POST knows a closed list of parameters", PROTOCOL, event(favourite="tomato")),
        Broken("unknown path", "no adapter for this vendor", ADAPTER, "/com.acme/v9", b"{}", JSON),
        Broken("empty pixel", "a health check that hit /i without parameters", ADAPTER, "/i"),
        Broken("bad query string", "a raw < makes it no URI", FORMAT, "/i?e=pv&p=web&tv=x&page=<b>"),
    ]  # fmt: skip


def send(url: str, broken: Broken) -> int:
    """The status of the answer."""
    host = urlsplit(url)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=10)
    try:
        headers = {"User-Agent": "broken-demo/1.0"} | ({"Content-Type": broken.content_type} if broken.content_type else {})
        connection.request("POST" if broken.body is not None else "GET", broken.path, broken.body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="the gateway, http://host:port")
    options = parser.parse_args()
    for broken in cases():
        print(f"{send(options.url, broken)}  {broken.kind:<36}{broken.name}: {broken.why}")


if __name__ == "__main__":
    main()
