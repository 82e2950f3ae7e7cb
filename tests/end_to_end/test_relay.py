"""Two running Spoorways, one forwarding to the other: every event arrives once, as it was, whatever is killed in between."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from protocol.payloads import derived_id
from spoorway.cli import main
from tests.end_to_end.conftest import Running
from tests.peers.ports import free_port

TP2 = "/com.snowplowanalytics.snowplow/tp2"
SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
# When each side enriched an event is its own.
OWN = {"etl_tstamp"}


class Pair:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "upstream" / "data").mkdir(parents=True)
        (folder / "edge").mkdir()
        issuer = Issuer(folder / "upstream" / "data", lambda: time.time_ns() // 1_000_000, make=True)
        (secrets,) = issuer.add(["site-7"], "hmac", Limits())
        issuer.close()
        assert not isinstance(secrets, str)
        (folder / "relay.key").write_text(secrets.key)
        (folder / "upstream.toml").write_text(f"[gateway.transports.http]\nport = {self.port}\nrelays = ['site-7']\n")
        self.edge_config()
        self.started: list[Running] = []

    def edge_config(self, **options: object) -> None:
        filled = {
            "use": "relay",
            "url": f"http://127.0.0.1:{self.port}",
            "device": "site-7",
            "key_file": str(self.folder / "relay.key"),
            "every_s": 0.05,
            "longest_wait_s": 0.5,
            **options,
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in filled.items()]
        text = "\n".join(["[storage.targets.sqlite]", "[storage.targets.upstream]", *lines])
        (self.folder / "edge.toml").write_text(text)

    def start(self, name: str) -> Running:
        config = ("--config", str(self.folder / f"{name}.toml"))
        listen = ("--http", f"127.0.0.1:{self.port}") if name == "upstream" else ()
        # Of an earlier run that was killed; the new one is ready when it is there again.
        (self.folder / name / "data" / "running.json").unlink(missing_ok=True)
        self.started.append(Running(self.folder / name / "data", [*config, *listen]))
        return self.started[-1]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for running in made.started:
        running.stop(signal.SIGKILL)


def post(url: str, events: list[dict[str, str]], **headers: str) -> None:
    body = json.dumps({"schema": SCHEMA, "data": events}).encode()
    request = urllib.request.Request(url + TP2, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def send(url: str, target: str, body: bytes | None = None, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url + target, body, named), timeout=10) as answer:
        assert answer.status == 200


def mixed(url: str) -> None:
    """One of each: with and without ids, late from a device, anonymous, a webhook, three that fail."""
    event = {"e": "pv", "p": "web", "tv": "test-1"}
    post(url, [event, {**event, "eid": "7b1c0f2e-58a4-4c55-9a57-3f5ad1f4a001", "url": "http://x.test/a?utm_source=s"}])
    post(url, [{**event, "dtm": "1000", "stm": "61000"}, {**event, "ttm": "1600000000000"}], Referer="http://x.test/r")
    post(url, [{**event, "se_va": "not a number"}, {**event, "bad key": "1"}], SP_Anonymous="*")
    send(url, "/i?e=se&p=iot&tv=sensor&se_ca=t&se_ac=r&se_va=21.50&nuid=7b1c0f2e-58a4-4c55-9a57-3f5ad1f4a002", User_Agent="Böx/1")
    send(url, "/com.snowplowanalytics.iglu/v1?schema=iglu%3Aio.spoorway%2Fwebpage_test%2Fjsonschema%2F1-0-0&a=1")
    send(url, TP2, b"\xff\x00 no JSON", Content_Type="application/json")


def rows(running: Running, sql: str, own: set[str] = OWN) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in own} for row in running.query(sql)]


EVENTS = "SELECT * FROM atomic.events ORDER BY event_id"
FAILED = "SELECT * FROM atomic.failed_events ORDER BY failed_id"


def forwarded(running: Running) -> int:
    status, text = running.get(running.admin + "/metrics")
    assert status == 200
    return sum(int(float(line.split()[-1])) for line in text.splitlines() if 'target="upstream",outcome="forwarded"' in line)


def settled(pair: Pair, edge: Running, upstream: Running, count: int) -> None:
    edge.until(lambda: upstream.totals() >= count, lambda: f"{upstream.totals()} of {count} upstream")


def test_every_row_upstream_is_the_row_of_the_edge(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    upstream, edge = pair.start("upstream"), pair.start("edge")
    mixed(edge.url)
    edge.wait(9)
    settled(pair, edge, upstream, 9)
    assert rows(upstream, EVENTS) == rows(edge, EVENTS)
    assert len(rows(edge, EVENTS)) == 5
    assert rows(upstream, FAILED, {"failed_tstamp", "event"}) == rows(edge, FAILED, {"failed_tstamp", "event"})
    assert upstream.query("SELECT payload FROM atomic.failed_payloads ORDER BY 1") == edge.query(
        "SELECT payload FROM atomic.failed_payloads ORDER BY 1"
    )
    edge.until(lambda: forwarded(edge) == 6, lambda: "six payloads were not counted")
    # Its own words on it.
    code = main(["doctor", "--config", str(pair.folder / "edge.toml"), "--data", str(edge.data)])
    told = capsys.readouterr().out
    assert (code, "the upstream answers" in told) == (0, True), told
    assert "accepted 6 payloads = forwarded 6 + failed 0 + pending 0" in told
    upstream.stop()
    assert main(["doctor", "--quick", "--config", str(pair.folder / "edge.toml"), "--data", str(edge.data)]) == 1
    assert f"nothing listens on 127.0.0.1:{pair.port}" in capsys.readouterr().out
    # An upstream that is down is no fault of the edge: it takes events and says so.
    mixed(edge.url)
    assert edge.get(edge.admin + "/health/ready")[0] == 200


def test_an_upstream_that_was_away_gets_everything_with_its_own_times(pair: Pair) -> None:
    edge = pair.start("edge")
    for number in range(40):
        post(edge.url, [{"e": "pv", "p": "web", "tv": "t", "url": f"http://x/{number}/{n}"} for n in range(5)])
    edge.wait(200)
    edge.stop()  # and the edge was off meanwhile
    upstream, edge = pair.start("upstream"), pair.start("edge")
    settled(pair, edge, upstream, 200)
    assert rows(upstream, EVENTS) == rows(edge, EVENTS)
    (counted,) = upstream.query("SELECT stored, duplicate FROM atomic.totals")
    assert counted == {"stored": 200, "duplicate": 0}


def test_killed_again_and_again_on_both_sides_nothing_is_lost_or_doubled(pair: Pair) -> None:
    upstream, edge = pair.start("upstream"), pair.start("edge")
    sent = 0
    for number in range(4):
        for _ in range(20):
            post(edge.url, [{"e": "pv", "p": "web", "tv": "t", "url": f"http://x/{sent + n}"} for n in range(5)])
            sent += 5
        if number % 2:
            edge.process.kill()
            edge = pair.start("edge")
        else:
            upstream.process.kill()
            upstream = pair.start("upstream")
    edge.wait(sent)
    settled(pair, edge, upstream, sent)
    edge.until(
        lambda: len(rows(upstream, "SELECT event_id FROM atomic.events")) == sent,
        lambda: f"{len(rows(upstream, 'SELECT event_id FROM atomic.events'))} of {sent}",
    )
    assert rows(upstream, EVENTS) == rows(edge, EVENTS)
    assert len({row["page_url"] for row in rows(upstream, EVENTS)}) == sent


def test_a_device_that_may_not_relay_is_told_so_and_nothing_is_lost(pair: Pair) -> None:
    (pair.folder / "upstream.toml").write_text(f"[gateway.transports.http]\nport = {pair.port}\n")
    upstream, edge = pair.start("upstream"), pair.start("edge")
    post(edge.url, [{"e": "pv", "p": "web", "tv": "t"}])
    edge.until(lambda: "no upstream of kind spoorway" in edge.errors.read_text(), lambda: edge.errors.read_text())
    upstream.stop()
    (pair.folder / "upstream.toml").write_text(f"[gateway.transports.http]\nport = {pair.port}\nrelays = ['site-7']\n")
    upstream = pair.start("upstream")
    settled(pair, edge, upstream, 1)
    # Nobody else can use the door.
    request = urllib.request.Request(upstream.url + "/io.spoorway/relay", b"{}", {"Spoorway-Device": "other"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.code == 403


def test_any_collector_stores_the_same_events(pair: Pair) -> None:
    pair.edge_config(kind="collector")
    upstream, edge = pair.start("upstream"), pair.start("edge")
    mixed(edge.url)
    edge.wait(9)
    settled(pair, edge, upstream, 9)
    # What the protocol cannot carry: the upstream's own receipt, names and headers, and what was completed before it is hashed.
    own = {*OWN, "collector_tstamp", "v_collector", "event_fingerprint", "true_tstamp", "network_userid"}
    ours, theirs = rows(edge, EVENTS, own), rows(upstream, EVENTS, own)
    assert [row["event_id"] for row in theirs] == [row["event_id"] for row in ours]
    assert theirs == ours
    payload_ids = {row["payload_id"] for row in edge.query("SELECT payload_id FROM atomic.failed_events")}
    assert payload_ids and derived_id("x", 0) not in {row["event_id"] for row in ours}
    nobody = "00000000-0000-0000-0000-000000000000"
    for mine, there in zip(rows(edge, EVENTS), rows(upstream, EVENTS), strict=True):
        assert there["network_userid"] == (mine["network_userid"] or nobody)
        assert there["true_tstamp"] == mine["derived_tstamp"] == there["derived_tstamp"]
