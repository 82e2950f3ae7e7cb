"""What a relay does about each answer, and about none: nothing lost, nothing skipped, nobody hammered."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.payloads import from_json
from protocol.seams import ConfigurationError, TransientError
from storage.targets import Counts
from tests.unit.relay_bench import (
    CUT,
    HANG,
    NOW_MS,
    Bench,
    Seen,
    Upstream,
    batch_of,
    benched,
    payload_of,
    said,
    signed_right,
    taken,
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with benched(tmp_path) as made:
        yield made


def test_payloads_are_sent_as_they_came_signed_and_on_one_connection(bench: Bench) -> None:
    relay = bench.open()
    relay.commit(batch_of(payload_of(1), payload_of(2), end=2))
    relay.commit(batch_of(payload_of(3), end=3))
    first, second = bench.upstream.requests
    assert [from_json(line) for line in first.lines] == [payload_of(1), payload_of(2)]
    assert (first.method, first.target, signed_right(first), signed_right(second)) == ("POST", "/io.spoorway/relay", True, True)
    numbers = [(int(r.headers["spoorway-boot"]), int(r.headers["spoorway-sequence"])) for r in (first, second)]
    assert numbers == [(NOW_MS // 1000, 1), (NOW_MS // 1000, 2)]
    assert bench.upstream.connections == 1
    assert relay.totals() == Counts(payloads=3, forwarded=3)


def test_each_start_is_a_later_boot_also_when_the_clock_went_back(bench: Bench) -> None:
    boots = []
    for hours in (0, -5, -5):
        bench.time.ms = NOW_MS + hours * 3_600_000
        bench.open().commit(batch_of(payload_of(len(boots)), end=len(boots) + 1))
        boots.append(int(bench.upstream.requests[-1].headers["spoorway-boot"]))
    assert boots == [boots[0], boots[0] + 1, boots[0] + 2]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (CUT, "cut", "127.0.0.1"),
        (HANG, "timeout", "did not answer within"),
        (said(200, b'{"accepted":2}')[:-3], "timeout", "did not answer within"),
        (said(200, b"<html>log in</html>"), "answer", "something answers for the upstream that is none"),
        (said(200, b'{"accepted":1}'), "answer", "none"),
        (said(200, b"ok"), "answer", "none"),
        (said(401, b"unknown device"), "identity", "does not know 'site-7' by its key .401 unknown device."),
        (said(403), "identity", "does not let 'site-7' relay"),
        (said(404), "answer", "no upstream of kind spoorway"),
        (said(302, b"", "Location: http://elsewhere/"), "answer", "no upstream of kind spoorway"),
        (said(429), "busy", "takes nothing now"),
        (said(500), "busy", "takes nothing now"),
        (b"SSH-2.0-x\r\n", "cut", "127.0.0.1"),
    ],
)
def test_what_is_no_receipt_moves_nothing_and_all_is_sent_again(bench: Bench, answer: bytes, kind: str, message: str) -> None:
    relay = bench.open(timeout_s=0.3)
    batch = batch_of(payload_of(1), payload_of(2), end=2)
    bench.upstream.answer = lambda request: answer
    with pytest.raises(TransientError, match=message):
        relay.commit(batch)
    assert (relay.cursor(), relay.totals(), relay.contact().errors) == ({}, Counts(), {kind: 1})
    assert relay.pause_s(finishing=True) > 0
    bench.upstream.answer = taken
    assert relay.commit(batch) == Counts(payloads=2, forwarded=2)
    assert relay.pause_s(finishing=False) == 0
    assert bench.upstream.requests[-1].lines == bench.upstream.requests[0].lines


def test_an_answer_that_stops_half_way_ends_with_the_timeout(bench: Bench) -> None:
    relay = bench.open(timeout_s=0.3)
    bench.upstream.answer = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
    with pytest.raises(TransientError, match=r"did not answer within 0\.3 s"):
        relay.commit(batch_of(payload_of(1)))


def test_nobody_listens(bench: Bench) -> None:
    relay = bench.open(url="http://127.0.0.1:1")
    with pytest.raises(TransientError, match=r"nothing listens on 127\.0\.0\.1:1"):
        relay.commit(batch_of(payload_of(1)))
    assert relay.probe() == "nothing listens on 127.0.0.1:1"


def test_a_connection_that_the_upstream_closed_meanwhile_costs_nothing(bench: Bench) -> None:
    relay = bench.open()
    bench.upstream.answer = lambda request: taken(request) if bench.upstream.connections > 1 or not asked else CUT
    asked: list[int] = []
    relay.commit(batch_of(payload_of(1), end=1))
    asked.append(1)
    assert relay.commit(batch_of(payload_of(2), end=2)).forwarded == 1
    assert (bench.upstream.connections, relay.contact().errors) == (2, {})
    # The very same bytes: an upstream that had taken them knows them again.
    assert bench.upstream.requests[-1] == bench.upstream.requests[-2]


def test_the_wait_grows_with_each_failure_under_full_jitter(bench: Bench) -> None:
    bench.upstream.answer = lambda request: said(503)
    relay = bench.open(longest_wait_s=10)
    waits: list[float] = []
    for chance in (1.0, 1.0, 0.5, 1.0, 1.0, 1.0):
        bench.chance = chance
        with pytest.raises(TransientError):
            relay.commit(batch_of(payload_of(1)))
        waits.append(round(relay.pause_s(finishing=False), 3))
        bench.time.sleep(waits[-1])
    assert waits == [1, 2, 2, 8, 10, 10]


@pytest.mark.parametrize(
    ("header", "chance", "wait"),
    [
        ("120", 0.0, 120.0),
        ("120", 1.0, 132.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 0.0, 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0, 0.001),
        ("999999999999", 0.0, 86_400.0),
        ("soon", 0.0, 0.001),
    ],
)
def test_retry_after_is_heeded(bench: Bench, header: str, chance: float, wait: float) -> None:
    bench.chance = chance
    bench.upstream.answer = lambda request: said(503, b"", f"Retry-After: {header}")
    relay = bench.open()
    with pytest.raises(TransientError):
        relay.commit(batch_of(payload_of(1)))
    assert relay.pause_s(finishing=False) == pytest.approx(wait, abs=0.002)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_somebody_must_mend_first_is_tried_slowly(bench: Bench, status: int) -> None:
    bench.chance = 0.0
    bench.upstream.answer = lambda request: said(status)
    relay = bench.open()
    with pytest.raises(TransientError):
        relay.commit(batch_of(payload_of(1)))
    assert relay.pause_s(finishing=False) == 150


def test_later_messages_than_ours_were_seen_and_a_new_boot_begins(bench: Bench) -> None:
    relay = bench.open()
    bench.upstream.answer = lambda request: said(409)
    with pytest.raises(TransientError, match="later messages"):
        relay.commit(batch_of(payload_of(1)))
    bench.upstream.answer = taken
    relay.commit(batch_of(payload_of(1)))
    first, second = (int(r.headers["spoorway-boot"]) for r in bench.upstream.requests)
    assert second > first


@pytest.mark.parametrize("status", [400, 413])
def test_one_payload_that_is_refused_stays_here_and_blocks_nobody(bench: Bench, status: int) -> None:
    bad = payload_of(5)

    def answer(request: Seen) -> bytes:
        return said(status, b"no") if any(from_json(line) == bad for line in request.lines) else taken(request)

    bench.upstream.answer = answer
    relay = bench.open()
    counts = relay.commit(batch_of(*(payload_of(n) for n in range(1, 9)), end=8))
    assert counts == Counts(payloads=8, failed=1, forwarded=7)
    (row,) = relay.list_failed()
    assert (row["kind"], row["payload_id"], row["first_reason"]) == ("relay_refused", bad.id, "the upstream will not take it")
    shown = relay.show_failed(str(row["failed_id"]))
    assert shown is not None and shown[1] == bad
    sent = [from_json(line).id for r in bench.upstream.requests if answer(r).startswith(b"HTTP/1.1 200") for line in r.lines]
    assert sorted(sent) == [payload_of(n).id for n in (1, 2, 3, 4, 6, 7, 8)]
    # The upstream's limit was raised.
    bench.upstream.answer = taken
    assert relay.send_again(str(row["failed_id"]))
    assert (relay.totals(), relay.list_failed()) == (Counts(payloads=8, forwarded=8), [])


def test_batches_are_halved_until_they_fit(bench: Bench) -> None:
    bench.upstream.answer = lambda request: taken(request) if len(request.lines) <= 3 else said(413)
    assert bench.open().commit(batch_of(*(payload_of(n) for n in range(10)), end=10)).forwarded == 10
    took = [len(r.lines) for r in bench.upstream.requests if len(r.lines) <= 3]
    assert sum(took) == 10


def test_an_upstream_that_refuses_everything_gets_time_before_more_is_given_up(bench: Bench) -> None:
    bench.upstream.answer = lambda request: said(400)
    relay = bench.open(batch_payloads=1)
    batch = batch_of(*(payload_of(n) for n in range(30)), end=30)
    with pytest.raises(TransientError, match="400 to everything that is sent"):
        relay.commit(batch)
    assert (len(bench.upstream.requests), relay.totals()) == (21, Counts())
    assert relay.pause_s(finishing=False) > 100
    bench.upstream.answer = taken
    # What was given up before the trouble stays so; the rest is taken.
    assert relay.commit(batch) == Counts(payloads=30, failed=20, forwarded=10)


def test_trouble_half_way_repeats_only_what_was_not_taken(bench: Bench) -> None:
    relay = bench.open(batch_payloads=2)
    bench.upstream.answer = lambda request: taken(request) if len(bench.upstream.requests) < 3 else said(503)
    batch = batch_of(*(payload_of(n) for n in range(6)), end=6)
    with pytest.raises(TransientError):
        relay.commit(batch)
    bench.upstream.answer = taken
    relay.commit(batch)
    assert [len(r.lines) for r in bench.upstream.requests] == [2, 2, 2, 2]
    assert relay.totals().forwarded == 6


def test_requests_keep_to_count_and_bytes(bench: Bench) -> None:
    relay = bench.open(batch_payloads=3, batch_bytes=1024)
    relay.commit(batch_of(*(payload_of(n) for n in range(4)), payload_of(4, 900), payload_of(5, 900), payload_of(6, 5000), end=7))
    assert [len(r.lines) for r in bench.upstream.requests] == [3, 1, 1, 1, 1]


def test_bytes_per_second_are_kept_to(bench: Bench) -> None:
    relay = bench.open(bytes_per_s=1000, compress="never")
    relay.commit(batch_of(payload_of(1, 5000)))
    size = len(bench.upstream.requests[0].body)
    assert 0.7 * size / 1000 < sum(bench.time.slept) < size / 1000
    assert max(bench.time.slept) <= 0.26


@pytest.mark.parametrize(
    ("hours", "zone", "moment", "open_"),
    [
        ((), "", "2026-07-01T12:00", True),
        (("22:00-06:00",), "UTC", "2026-07-01T21:59", False),
        (("22:00-06:00",), "UTC", "2026-07-01T22:00", True),
        (("22:00-06:00",), "UTC", "2026-07-02T05:59", True),
        (("22:00-06:00",), "UTC", "2026-07-02T06:00", False),
        (("22:00-06:00",), "Europe/Berlin", "2026-07-01T20:30", True),  # summer: 22:30 there
        (("22:00-06:00",), "Europe/Berlin", "2026-01-01T20:30", False),  # winter: 21:30
        (("12:00-13:00", "18:00-24:00"), "UTC", "2026-01-01T23:59", True),
    ],
)
def test_hours_of_day(bench: Bench, hours: tuple[str, ...], zone: str, moment: str, open_: bool) -> None:
    from datetime import datetime

    bench.time.ms = datetime.fromisoformat(moment + "+00:00").timestamp() * 1000
    assert (bench.open(hours=hours, time_zone=zone).pause_s(finishing=False) == 0) is open_


def test_few_payloads_wait_for_more_unless_it_is_the_end(bench: Bench) -> None:
    relay = bench.open(every_s=5.0)
    assert relay.pause_s(finishing=False) == 0
    relay.commit(batch_of(payload_of(1), end=1, more=True))
    assert relay.pause_s(finishing=False) == 0
    relay.commit(batch_of(payload_of(2), end=2))
    assert (relay.pause_s(finishing=False), relay.pause_s(finishing=True)) == (5, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": ""}, "url: expected one such as https"),
        ({"url": "ftp://x"}, "url: expected"),
        ({"url": "http://u:p@x"}, "url: expected"),
        ({"device": ""}, "device: the name"),
        ({"key_file": ""}, "key_file: the file"),
        ({"key_file": "/nowhere"}, "key_file: /nowhere: No such file"),
        ({"hours": ("22:00-06:00",)}, "hours: say in which time_zone"),
        ({"hours": ("10pm",), "time_zone": "UTC"}, "hours: expected times of day"),
        ({"hours": ("10:00-10:00",), "time_zone": "UTC"}, "no part of a day"),
        ({"time_zone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"batch_payloads": 0}, "batch_payloads = 0: it must be at least 1"),
        ({"url": "https://x", "ca_file": "/nowhere"}, "ca_file: /nowhere"),
    ],
)
def test_mistakes_are_told_at_the_start(bench: Bench, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        bench.open(**options)


def test_a_key_that_is_none_is_not_shown(bench: Bench) -> None:
    bench.key_file.write_text("secret words")
    with pytest.raises(ConfigurationError) as caught:
        bench.open()
    assert "secret" not in str(caught.value) and "64 hex digits" in str(caught.value)


def test_a_proxy_is_used_only_where_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", bench.upstream.url)
    monkeypatch.delenv("no_proxy", raising=False)
    relay = bench.open(url="http://events.invalid", proxy_from_environment=True)
    relay.commit(batch_of(payload_of(1)))
    (request,) = bench.upstream.requests
    assert (request.target, request.headers["host"]) == ("http://events.invalid/io.spoorway/relay", "events.invalid")
    with pytest.raises(TransientError, match=r"events\.invalid"):
        bench.open(url="http://events.invalid", state=str(bench.folder / "other.db")).commit(batch_of(payload_of(1)))


def test_the_path_of_the_url_comes_first_and_is_signed(bench: Bench) -> None:
    bench.open(url=bench.upstream.url + "/a/b/").commit(batch_of(payload_of(1)))
    (request,) = bench.upstream.requests
    assert (request.target, signed_right(request)) == ("/a/b/io.spoorway/relay", True)


def test_certificate_and_name_are_checked(bench: Bench) -> None:
    pem, key = bench.folder / "tls.pem", bench.folder / "tls.key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=relay", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *named, "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    upstream = Upstream(context)
    try:
        relay = bench.open(url=upstream.url, ca_file=str(pem))
        assert relay.commit(batch_of(payload_of(1))).forwarded == 1
        relay.close()
        with pytest.raises(TransientError, match="its certificate is not accepted: self-signed certificate"):
            bench.open(url=upstream.url).commit(batch_of(payload_of(2)))
        other = bench.open(url=upstream.url.replace("127.0.0.1", "localhost"), ca_file=str(pem))
        with pytest.raises(TransientError, match="its certificate is not accepted: Hostname mismatch"):
            other.commit(batch_of(payload_of(2)))
        assert other.contact().errors == {"tls": 1}
    finally:
        upstream.close()
