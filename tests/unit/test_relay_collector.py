"""Payloads as requests of the tracker protocol: what is sent to a collector that is not ours, recorded on a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.devices import device_event_id
from protocol.payloads import derived_id
from protocol.persons import Person
from protocol.seams import RawPayload, TransientError
from storage.targets import Counts, Erasure, Removed
from tests.unit.relay_bench import NOW_MS, TP2, Bench, Seen, batch_of, benched, said

SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
EVENT = {"e": "pv", "p": "web", "tv": "t"}
EID = "7b1c0f2e-58a4-4c55-9a57-3f5ad1f4a001"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with benched(tmp_path) as made:
        made.upstream.answer = lambda request: said(200, b"ok")
        yield made


def posted(*events: Any, number: int = 1, schema: str = SCHEMA, **fields: Any) -> RawPayload:
    body = json.dumps({"schema": schema, "data": events}).encode()
    filled: dict[str, Any] = {"body": body, "content_type": "application/json; charset=utf-8", **fields}
    return RawPayload(f"{number:032x}", NOW_MS, "http", TP2, **filled)


def got(number: int = 1, **fields: Any) -> RawPayload:
    filled: dict[str, Any] = {"path": "/i", **fields}
    return RawPayload(f"{number:032x}", NOW_MS, "http", **filled)


def sent(bench: Bench, *payloads: RawPayload) -> list[Seen]:
    bench.open(kind="collector", device="", key_file="").commit(batch_of(*payloads))
    return bench.upstream.requests


def events(requests: list[Seen]) -> list[dict[str, str]]:
    return [event for request in requests for event in json.loads(request.body)["data"]]


def test_events_of_several_payloads_share_a_request(bench: Bench) -> None:
    (request,) = sent(bench, posted(EVENT, EVENT), posted(EVENT, number=2), got(3, query="e=pv&p=web&tv=t"))
    assert (request.method, request.target, len(events([request]))) == ("POST", TP2, 4)
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert (request.headers["sp-anonymous"], json.loads(request.body)["schema"]) == ("*", SCHEMA)


def test_what_only_the_payload_knew_becomes_parameters(bench: Bench) -> None:
    headers = (("User-Agent", "Bö/1"), ("Referer", "http://x/r"), ("Accept-Language", "de"))
    requests = sent(bench, posted(EVENT, {**EVENT, "eid": EID, "ua": "own"}, headers=headers, ip="192.0.2.7", network_userid=EID))
    added = {"ttm": str(NOW_MS), "ip": "192.0.2.7", "nuid": EID, "url": "http://x/r"}
    assert events(requests) == [
        {**EVENT, "eid": derived_id(f"{1:032x}", 0), **added, "ua": "Bö/1"},
        {**EVENT, "eid": EID, **added, "ua": "own"},
    ]


def test_an_address_that_is_withheld_is_not_ours_instead(bench: Bench) -> None:
    (event,) = events(sent(bench, posted(EVENT)))
    assert (event["ip"], "nuid" in event, "ua" in event) == ("unknown", False, False)


@pytest.mark.parametrize(
    ("times", "ttm"),
    [
        ({}, NOW_MS),
        ({"dtm": "1000", "stm": "61000"}, NOW_MS - 60_000),
        ({"dtm": "61000", "stm": "1000"}, NOW_MS),
        ({"dtm": "1000"}, NOW_MS),
        ({"dtm": "x", "stm": "61000"}, NOW_MS),
        ({"ttm": "5", "dtm": "1000", "stm": "61000"}, 5),
        ({"tv": "arduino-1", "dtm": "1600000000", "stm": "1600000060"}, NOW_MS - 60_000),
    ],
)
def test_the_upstream_dates_an_event_as_we_would(bench: Bench, times: dict[str, str], ttm: int) -> None:
    (event,) = events(sent(bench, posted({**EVENT, **times})))
    assert event["ttm"] == str(ttm)


def test_a_device_s_event_has_the_id_of_its_boot_and_sequence(bench: Bench) -> None:
    clock = {"schema": "iglu:io.spoorway/device_clock/jsonschema/1-0-0", "data": {"boot_id": 3, "sequence": 9, "uptime_ms": 5}}
    (event,) = events(sent(bench, posted({**EVENT, "co": json.dumps({"schema": "x", "data": [clock]})}, device="greenhouse")))
    assert event["eid"] == device_event_id("greenhouse", 3, 9)


def test_a_bad_event_goes_alone_and_fails_there_as_here(bench: Bench) -> None:
    good, numeric, strange = sent(bench, posted(EVENT, {**EVENT, "se_va": 5}, {**EVENT, "own": "1"}))
    assert len(events([good])) == 1
    assert events([numeric]) == [{**EVENT, "se_va": 5}]
    assert events([strange])[0] == {**EVENT, "own": "1", **{n: events([strange])[0][n] for n in ("eid", "ttm", "ip")}}


@pytest.mark.parametrize(
    "payload",
    [
        got(path=TP2, body=b"\xff junk", content_type="application/json"),
        got(path=TP2, body=b"{}", content_type="text/plain"),
        got(path="/com.acme/v1", query="a=1", body=b"[1]", content_type="application/json"),
        got(path="/com.acme/v1", query="a=1&b=%20;c"),
    ],
)
def test_anything_else_is_sent_as_it_was(bench: Bench, payload: RawPayload) -> None:
    (request,) = sent(bench, payload)
    target = payload.path + (f"?{payload.query}" if payload.query else "")
    assert (request.target, request.body) == (target, payload.body or b"")
    assert request.method == ("GET" if payload.body is None else "POST")
    assert request.headers.get("content-type") == payload.content_type


def test_a_request_keeps_its_headers_and_its_address(bench: Bench) -> None:
    headers = (("User-Agent", "Bö/1"), ("Spoorway-Boot", "1"), ("Cookie", "sp=1"), ("X-A", "b\r\nc"), ("Accept-Language", "de"))
    headers += ((":method", "HEAD"),)  # the gateway's own note
    (request,) = sent(bench, got(path="/com.acme/v1", headers=headers, ip="192.0.2.7"))
    assert request.headers["user-agent"].encode("latin-1").decode() == "Bö/1"
    assert (request.headers["accept-language"], request.headers["x-forwarded-for"]) == ("de", "192.0.2.7")
    assert not {"cookie", "spoorway-boot", "x-a", "sp-anonymous"} & request.headers.keys()


@pytest.mark.parametrize("query", ["e=pv&tv=ünïcode", "e=pv&x=a b", "e=pv\r\nX: y"])
def test_a_query_that_no_request_line_can_hold_is_percent_encoded(bench: Bench, query: str) -> None:
    (request,) = sent(bench, got(query=query))
    assert request.target.isascii() and request.target.startswith("/i?e=pv") and " " not in request.target
    assert "x" not in request.headers


def test_webhooks_and_clicks_get_the_id_and_time_that_they_have_here(bench: Bench) -> None:
    hook, several, click = sent(
        bench,
        got(path="/com.snowplowanalytics.iglu/v1", query="schema=iglu%3Ax"),
        got(2, path="/com.snowplowanalytics.iglu/v1", query="schema=iglu%3Ax", body=b"[{},{}]", content_type="application/json"),
        got(3, path="/r/tp2", query="u=http%3A%2F%2Fx"),
    )
    eid = derived_id(f"{1:032x}", 0)
    assert hook.target == f"/com.snowplowanalytics.iglu/v1?schema=iglu%3Ax&eid={eid}&ttm={NOW_MS}"
    assert several.target == "/com.snowplowanalytics.iglu/v1?schema=iglu%3Ax"
    assert click.target == f"/r/tp2?u=http%3A%2F%2Fx&eid={derived_id(f'{3:032x}', 0)}&ttm={NOW_MS}"


def test_compact_frames_stay_here(bench: Bench) -> None:
    relay = bench.open(kind="collector")
    assert relay.commit(batch_of(got(path="/io.spoorway/c1", body=b"\xc0"))) == Counts(payloads=1, failed=1)
    assert "read by Spoorway only" in str(relay.list_failed()[0]["first_reason"])
    assert bench.upstream.requests == []


@pytest.mark.parametrize("answer", [said(200, b"<html>log in"), said(302, b"", "Location: http://portal/"), said(404)])
def test_a_page_or_a_redirect_is_no_receipt(bench: Bench, answer: bytes) -> None:
    bench.upstream.answer = lambda request: answer
    with pytest.raises(TransientError):
        sent(bench, posted(EVENT))


def test_a_webhook_the_collector_does_not_know_blocks_nobody(bench: Bench) -> None:
    bench.upstream.answer = lambda request: said(404 if request.target.startswith("/com.acme") else 200, b"ok")
    relay = bench.open(kind="collector")
    counts = relay.commit(batch_of(posted(EVENT), got(2, path="/com.acme/v1"), posted(EVENT, number=3)))
    assert counts == Counts(payloads=3, failed=1, forwarded=2)


def test_events_of_one_payload_are_halved_too(bench: Bench) -> None:
    bench.upstream.answer = lambda request: said(200 if len(events([request])) < 3 else 413, b"ok")
    relay = bench.open(kind="collector")
    assert relay.commit(batch_of(posted(*[EVENT] * 8))) == Counts(payloads=1, forwarded=1)
    taken = [len(events([request])) for request in bench.upstream.requests if len(events([request])) < 3]
    assert taken == [2, 2, 2, 2]


def test_what_was_erased_is_not_sent(bench: Bench) -> None:
    gone = got(1, erased=(0,))
    blank = {"e": "", "p": "", "tv": ""}
    shared = posted(blank, EVENT | {"eid": EID}, number=2, erased=(0,))
    (request,) = sent(bench, gone, shared)
    assert [event["eid"] for event in json.loads(request.body)["data"]] == [EID]


def test_a_refused_payload_is_erased_where_it_is_kept(bench: Bench) -> None:
    bench.upstream.answer = lambda request: said(400, b"no")
    target = bench.open(kind="collector")
    target.commit(batch_of(got(1, query="e=pv&uid=u-1"), got(2, query="e=pv&uid=u-2")))
    gone = RawPayload(f"{1:032x}", NOW_MS, "http", "/i", erased=(0,))

    def cut(payload: RawPayload) -> RawPayload | None:
        return gone if payload.id == gone.id else None

    erasure = Erasure("one", Person(user=frozenset({"u-1"})), NOW_MS, cut=cut)
    assert target.erase(erasure, None, dry=True) == (Removed(0, 1), None)
    assert target.totals().failed == 2
    assert target.erase(erasure, None) == (Removed(0, 1), None)
    totals = target.totals()
    assert (totals.payloads, totals.failed, totals.dropped) == (2, 1, 1)
    (left,) = target.list_failed()
    assert left["payload_id"] == f"{2:032x}"
