"""The bridge at a real Mosquitto: what is acknowledged is on disk, and what is on disk is acknowledged."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from gateway.journal import JournalFull, TooLarge
from gateway.mqtt.topics import READY
from gateway.transports.mqtt_bridge import Config, Plugin, check
from protocol.seams import ConfigurationError, RawPayload
from spoorway.config import sample
from tests.end_to_end.mosquitto_broker import Mosquitto

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mosquitto") is None or shutil.which("mosquitto_passwd") is None, reason="no mosquitto"),
]

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])
WAIT_S = 20
ROOT = Path(__file__).parents[2]


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """`brokers(tls=…, settings=…)`: one that has not been started; all are ended with the test."""
    made: list[Mosquitto] = []

    def make(**options: Any) -> Mosquitto:
        made.append(Mosquitto(tmp_path / f"broker{len(made)}", **options))
        return made[-1]

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def broker(brokers: Callable[..., Mosquitto]) -> Mosquitto:
    found = brokers()
    found.start()
    return found


class Journal:
    """Stands where the journal is: keeps payloads in their order, or refuses, or takes its time."""

    def __init__(self) -> None:
        self.payloads: list[RawPayload] = []
        self.refusing = False
        self.largest = 1 << 20
        self.offered = 0
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    async def many(self, payloads: Sequence[RawPayload]) -> None:
        self.offered += len(payloads)
        self.most = max(self.most, len(payloads))
        await self.open.wait()
        if self.refusing:
            raise JournalFull("full")
        for payload in payloads:
            if len(payload.body or b"") > self.largest:
                raise TooLarge(f"{len(payload.body or b'')} bytes, a record may have {self.largest}")
        self.payloads += payloads

    @property
    def accept(self) -> Any:
        async def accept(payload: RawPayload) -> None:
            await self.many([payload])

        accept.many = self.many  # type: ignore[attr-defined]
        return accept

    @property
    def texts(self) -> list[str]:
        return [payload.query or (payload.body or b"").decode() for payload in self.payloads]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 - what it waits for happens at the broker
            await asyncio.sleep(0.01)


def bridge(broker: Mosquitto, **more: Any) -> Plugin:
    return Plugin(Config(**broker.options(**{"client_id": "gw", "longest_backoff_s": 0.5, "retry_s": 0.02, **more})))


async def connected(plugin: Plugin, journal: Journal) -> None:
    await plugin.start(journal.accept)
    await until(lambda: plugin.counters.open_connections == 1)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())


async def publish(broker: Mosquitto, *messages: tuple[str, bytes | str], **more: Any) -> None:
    await asyncio.to_thread(broker.publish, *messages, **more)


def numbered(count: int, first: int = 0) -> list[tuple[str, str]]:
    return [("spoorway/pump-1/tp1", f"n={n}") for n in range(first, first + count)]


@VERSIONS
def test_messages_become_payloads(broker: Mosquitto, version: Any) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, version=version, topics={"zigbee2mqtt/+": "/io.spoorway.zigbee2mqtt/v1"})
        await connected(plugin, journal)
        await publish(
            broker,
            ("spoorway/pump-1/tp2", b"{}"),
            ("spoorway/pump-1/tp1", b"e=pv"),
            ("spoorway/pump-1/c", b"\xff"),
            ("zigbee2mqtt/lamp", b'{"state":"ON"}'),
        )
        await publish(broker, ("spoorway/pump-1/tp1", b"e=pp"), qos=2)
        await publish(broker, ("spoorway/pump-1/tp1", b"e=se"), qos=0)
        await until(lambda: len(journal.payloads) == 6)
        assert [(p.path, p.query, p.body) for p in journal.payloads] == [
            ("/com.snowplowanalytics.snowplow/tp2", "", b"{}"),
            ("/i", "e=pv", None),
            ("/io.spoorway/c1", "", b"\xff"),
            ("/io.spoorway.zigbee2mqtt/v1", "", b'{"state":"ON"}'),
            ("/i", "e=pp", None),
            ("/i", "e=se", None),
        ]
        assert {(p.transport, p.device, p.ip) for p in journal.payloads} == {("mqtt_bridge", None, None)}
        assert journal.payloads[0].headers == (("MQTT-Topic", "spoorway/pump-1/tp2"), ("Spoorway-Device", "pump-1"))
        assert plugin.counters.messages == {"accepted": 6, "repeated": 0, "unknown_topic": 0, "too_large": 0}
        await plugin.stop()

    run(story)


def test_topic_proves_the_device_where_the_broker_is_said_to_see_to_it(broker: Mosquitto) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, trust_topic=True)
        await connected(plugin, journal)
        await publish(broker, ("spoorway/pump-1/tp2", b"{}"), name="pump-1")
        # The access list keeps it from speaking for another: Mosquitto acknowledges such a message and drops it.
        await publish(broker, ("spoorway/pump-2/tp2", b"{}"), ("spoorway/pump-1/tp2", b"[]"), name="pump-1")
        await until(lambda: len(journal.payloads) == 2)
        assert {p.device for p in journal.payloads} == {"pump-1"}
        await plugin.stop()

    run(story)


@VERSIONS
def test_nothing_is_acknowledged_before_the_journal_has_it(broker: Mosquitto, version: Any) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, version=version)
        journal.refusing = True
        await connected(plugin, journal)
        await publish(broker, *numbered(50))
        await until(lambda: journal.offered > 100)
        assert journal.payloads == []
        await plugin.stop()
        # Another process, as after a crash: the broker has all of them still, in their order.
        journal.refusing, again = False, bridge(broker, version=version)
        await connected(again, journal)
        await until(lambda: len(journal.payloads) == 50)
        assert journal.texts == [f"n={n}" for n in range(50)]
        await again.stop()
        # And after this one nothing.
        last = bridge(broker, version=version)
        await connected(last, journal)
        await publish(broker, ("spoorway/pump-1/tp1", "last"))
        await until(lambda: journal.texts[-1] == "last")
        assert len(journal.payloads) == 51
        await last.stop()

    run(story)


@VERSIONS
def test_it_stops_when_the_broker_has_read_what_it_acknowledged(broker: Mosquitto, version: Any) -> None:
    """Another session of that name makes the broker forget what it has not read yet."""

    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, version=version)
        await connected(plugin, journal)
        journal.open.clear()
        await publish(broker, *numbered(50))
        await until(lambda: journal.offered > 0)
        broker.signal(signal.SIGSTOP)
        journal.open.set()
        stopping = asyncio.create_task(plugin.stop())
        await asyncio.sleep(0.5)
        assert not stopping.done()
        broker.signal(signal.SIGCONT)
        await stopping
        kept = len(journal.payloads)
        assert kept > 0
        again = bridge(broker, version=version)
        await connected(again, journal)
        await publish(broker, ("spoorway/pump-1/tp1", "last"))
        await until(lambda: journal.texts[-1] == "last")
        assert journal.texts == [*(f"n={n}" for n in range(50)), "last"]
        await again.stop()

    run(story)


def test_a_broker_that_says_nothing_more_does_not_keep_it(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker)
        await connected(plugin, journal)
        broker.signal(signal.SIGSTOP)
        await plugin.stop()

    monkeypatch.setattr("gateway.mqtt.broker._FAREWELL_S", 0.3)
    try:
        run(story)
    finally:
        broker.signal(signal.SIGCONT)


@VERSIONS
def test_full_journal_is_offered_the_same_again_in_order_and_memory_is_bounded(
    brokers: Callable[..., Mosquitto], version: Any
) -> None:
    broker = brokers(settings=["max_inflight_messages 0"])
    broker.start()

    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, version=version, in_flight=10)
        journal.refusing = True
        await connected(plugin, journal)
        await publish(broker, *numbered(200))
        await until(lambda: journal.offered > 30)
        assert journal.most <= 11
        assert plugin.counters.not_taken > 2
        journal.refusing = False
        await until(lambda: len(journal.payloads) == 200)
        assert journal.texts == [f"n={n}" for n in range(200)]
        await plugin.stop()

    run(story)


@VERSIONS
@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_is_too_large_for_the_journal_is_acknowledged_counted_and_holds_nothing_up(
    broker: Mosquitto, version: Any, one_by_one: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, version=version)
        journal.largest, journal.refusing = 50, True  # so that they come together when it takes some again
        accept = journal.accept
        if one_by_one:
            del accept.many
        await plugin.start(accept)
        await until(lambda: plugin.counters.open_connections == 1)
        large = [("spoorway/pump-1/tp2", "x" * size) for size in (51, 60)]
        await publish(broker, *numbered(3), large[0], *numbered(3, 3), large[1], *numbered(3, 6))
        await until(lambda: journal.offered > 30)
        journal.refusing = False
        await until(lambda: len(journal.payloads) == 9)
        assert journal.texts == [f"n={n}" for n in range(9)]
        await until(lambda: not plugin._unanswered)
        assert plugin.counters.messages == {"accepted": 9, "repeated": 0, "unknown_topic": 0, "too_large": 2}
        await plugin.stop()
        again = bridge(broker, version=version)  # the broker has nothing left of them
        await connected(again, journal)
        await publish(broker, *numbered(1, 9))
        await until(lambda: len(journal.payloads) == 10)
        assert again.counters.messages == {"accepted": 1, "repeated": 0, "unknown_topic": 0, "too_large": 0}
        await again.stop()

    run(story)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.partition(": ")[2] for line in told if "larger" in line] == [
        "51 bytes, a record may have 50",
        "60 bytes, a record may have 50",
    ]


@VERSIONS
def test_broker_that_restarts_loses_nothing_and_what_we_hold_is_kept_once(broker: Mosquitto, version: Any) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, version=version)
        await connected(plugin, journal)
        journal.open.clear()  # the disk is slow: these are not acknowledged when the broker goes
        await publish(broker, *numbered(15))
        await until(lambda: plugin.counters.received_bytes > 0 and len(plugin._unanswered) == 15)
        await asyncio.to_thread(broker.stop)
        await until(lambda: plugin.counters.open_connections == 0)
        await asyncio.to_thread(broker.start)
        await until(lambda: plugin.counters.open_connections == 1)
        await until(lambda: plugin.counters.messages["repeated"] == 15)
        journal.open.set()
        await publish(broker, *numbered(15, 15))
        await until(lambda: len(journal.payloads) >= 30)
        assert journal.texts == [f"n={n}" for n in range(30)]
        await until(lambda: not plugin._unanswered)
        await plugin.stop()

    run(story)


def test_taken_while_the_broker_was_away_is_acknowledged_when_it_sends_it_again(broker: Mosquitto) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker)
        await connected(plugin, journal)
        journal.open.clear()
        await publish(broker, *numbered(15))
        await until(lambda: len(plugin._unanswered) == 15)
        await asyncio.to_thread(broker.stop)
        await until(lambda: plugin.counters.open_connections == 0)
        journal.open.set()
        await until(lambda: len(journal.payloads) == 15)
        assert len(plugin._unanswered) == 15
        await asyncio.to_thread(broker.start)
        await until(lambda: not plugin._unanswered)
        assert len(journal.payloads) == 15
        await plugin.stop()

    run(story)


def test_journal_that_takes_one_at_a_time_gets_them_in_order(broker: Mosquitto) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker)

        async def accept(payload: RawPayload) -> None:
            await journal.many([payload])

        journal.refusing = True
        await plugin.start(accept)
        await until(lambda: plugin.counters.open_connections == 1)
        await publish(broker, *numbered(20))
        await until(lambda: plugin.counters.not_taken > 2)
        journal.refusing = False
        await until(lambda: len(journal.payloads) == 20)
        assert (journal.texts, journal.most) == ([f"n={n}" for n in range(20)], 1)
        await plugin.stop()

    run(story)


@VERSIONS
def test_gateways_of_a_group_share_all_messages(broker: Mosquitto, version: Any) -> None:
    async def story() -> None:
        journals = [Journal(), Journal()]
        plugins = [bridge(broker, version=version, client_id=f"gw{n}", group="spoorway") for n in range(2)]
        for plugin, journal in zip(plugins, journals, strict=True):
            await connected(plugin, journal)
        await publish(broker, *numbered(100))
        await until(lambda: sum(len(journal.payloads) for journal in journals) == 100)
        assert sorted(journals[0].texts + journals[1].texts) == sorted(f"n={n}" for n in range(100))
        assert min(len(journal.payloads) for journal in journals) >= 30
        for plugin in plugins:
            await plugin.stop()

    run(story)


def test_topic_nobody_takes_is_acknowledged_and_counted(broker: Mosquitto) -> None:
    async def story() -> None:
        journal, plugin = Journal(), bridge(broker, filters=("spoorway/#",))
        await connected(plugin, journal)
        await publish(broker, ("spoorway/pump-1/down", b"{}"), ("spoorway/pump-1/tp2", b"{}"))
        await until(lambda: len(journal.payloads) == 1)
        assert plugin.counters.messages["unknown_topic"] == 1
        assert not plugin._unanswered
        await plugin.stop()

    run(story)


@VERSIONS
def test_retained_message_is_marked(broker: Mosquitto, version: Any) -> None:
    async def story() -> None:
        await publish(broker, ("zigbee2mqtt/lamp", b"{}"), retain=True)
        journal, plugin = Journal(), bridge(broker, version=version, topics={"zigbee2mqtt/+": "/io.spoorway.zigbee2mqtt/v1"})
        await connected(plugin, journal)
        await until(lambda: len(journal.payloads) == 1)
        await publish(broker, ("zigbee2mqtt/lamp", b"[]"))
        await until(lambda: len(journal.payloads) == 2)
        assert [dict(p.headers).get("MQTT-Retain") for p in journal.payloads] == ["1", None]
        await plugin.stop()

    run(story)


@VERSIONS
def test_wrong_password_is_told_once_with_the_next_step(
    broker: Mosquitto, version: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        plugin = bridge(broker, version=version, password="wrong", longest_backoff_s=0.1)
        await plugin.start(Journal().accept)
        await until(lambda: plugin.counters.refused_connections >= 3)
        await plugin.stop()

    run(story)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == [
        f"broker 127.0.0.1:{broker.port}: it says 'Not authorized'; check username and password, "
        "and that the broker's access list lets this user subscribe"
    ]


def test_check_says_what_is_wrong(broker: Mosquitto) -> None:
    assert check(Config(**broker.options())) == ""
    assert check(Config(**broker.options(password="wrong"))).startswith("it says 'Not authorized'; check username")
    assert check(Config(**broker.options(tls=True, connect_timeout_s=1))).endswith("check broker, port and tls")
    broker.stop()
    assert check(Config(**broker.options())) == "Connection refused; check broker, port and tls"


def test_client_certificate_and_the_server_s_name(brokers: Callable[..., Mosquitto]) -> None:
    broker = brokers(tls=True)
    broker.start()

    async def story() -> None:
        files = {
            name: str(broker.folder / file)
            for name, file in [("tls_ca", "ca.pem"), ("tls_certificate", "gateway.pem"), ("tls_key", "gateway.key")]
        }
        (broker.folder / "word").write_text("gw secret\n")
        good = broker.options(broker="localhost", tls=True, password="", password_file=str(broker.folder / "word"), **files)
        journal, plugin = Journal(), Plugin(Config(**good))
        await connected(plugin, journal)
        sent = [
            "mosquitto_pub",
            "-h",
            "localhost",
            "-p",
            str(broker.port),
            "--cafile",
            files["tls_ca"],
            "--cert",
            files["tls_certificate"],
            "--key",
            files["tls_key"],
        ]
        await asyncio.to_thread(
            subprocess.run,
            [*sent, "-u", "anybody", "-P", "any secret", "-q", "1", "-t", "spoorway/pump-1/tp1", "-m", "e=pv"],
            check=True,
            timeout=10,
        )
        await until(lambda: journal.texts == ["e=pv"])
        await plugin.stop()
        assert await asyncio.to_thread(check, Config(**good)) == ""
        other_name = await asyncio.to_thread(check, Config(**{**good, "broker": "127.0.0.1"}))
        assert "IP address mismatch" in other_name
        stranger = await asyncio.to_thread(check, Config(**{**good, "tls_ca": str(broker.folder / "stranger.pem")}))
        assert stranger.startswith("its certificate is not trusted: ")
        nobody = await asyncio.to_thread(check, Config(**{**good, "tls_certificate": "", "tls_key": ""}))
        assert "tls_certificate" in nobody

    run(story)


def test_broker_that_is_not_there_is_waited_for(brokers: Callable[..., Mosquitto], caplog: pytest.LogCaptureFixture) -> None:
    broker = brokers()

    async def story() -> None:
        journal, plugin = Journal(), bridge(broker)
        await plugin.start(journal.accept)
        await until(lambda: any("Connection refused" in record.getMessage() for record in caplog.records))
        await asyncio.to_thread(broker.start)
        await until(lambda: plugin.counters.open_connections == 1)
        await publish(broker, *numbered(3))
        await until(lambda: len(journal.payloads) == 3)
        begun = time.monotonic()
        await plugin.stop()
        assert time.monotonic() - begun < 10

    run(story)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"broker": ""}, "broker is empty"),
        ({"in_flight": 0}, "in_flight = 0; it must be at least 1"),
        ({"filters": ("zigbee2mqtt/+",)}, "zigbee2mqtt/. does not begin with spoorway/; name it in topics"),
        ({"filters": ("spoorway/a+",)}, "is no topic filter"),
        ({"filters": ()}, "nothing to subscribe to"),
        ({"topics": {"a": "b"}}, "expected a path"),
        ({"group": "a/b"}, "it must hold no / . #"),
        ({"tls": True, "tls_certificate": "x"}, "belong together"),
        ({"tls_ca": "x"}, "tls = false"),
        ({"tls": True, "tls_ca": "/none"}, "cannot be read"),
        ({"password_file": "/none"}, "password_file /none"),
    ],
)
def test_mistake_in_the_options_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(mqtt_bridge|topics): .*{message}"):
        Plugin(Config(**options))


def test_sample_names_every_option_with_its_default() -> None:
    (block,) = re.findall(r"^#   \[gateway\.transports\.mqtt_bridge\]\n(?:#   .*\n)+", sample(), re.MULTILINE)
    table = tomllib.loads(re.sub(r"^#   |  .*$", "", block, flags=re.MULTILINE))["gateway"]["transports"]["mqtt_bridge"]
    topics = table.pop("topics")
    assert topics.items() <= READY.items()
    named = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    assert named == {field.name: field.default for field in fields(Config) if field.name != "topics"}


def configured(broker: Mosquitto, folder: Path, **more: Any) -> str:
    """A configuration file whose only transports are HTTP and the bridge."""
    options = broker.options(**{"client_id": "gw", "longest_backoff_s": 0.5, "retry_s": 0.02, **more})
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
    file = folder / "spoorway.toml"
    topics = "\n".join(f'"{topic}" = "{path}"' for topic, path in READY.items())
    file.write_text(
        f"[gateway.transports.http]\n[gateway.transports.mqtt_bridge]\n{lines}\n[gateway.transports.mqtt_bridge.topics]\n{topics}\n"
    )
    return str(file)


def subscribed(running: Any) -> None:
    """A broker keeps nothing for who has not subscribed yet."""
    mark = 'open_connections{transport="mqtt_bridge"} 1'
    running.until(lambda: mark in running.get(f"{running.admin}/metrics")[1], running.errors.read_text)


def test_foreign_devices_answer_sql(broker: Mosquitto, tmp_path: Path, start: Callable[..., Any]) -> None:
    broker.publish(("zigbee2mqtt/lamp", '{"state":"OFF"}'), retain=True)
    running = start("--config", configured(broker, tmp_path))
    subscribed(running)
    broker.publish(
        ("zigbee2mqtt/lamp", '{"temperature":40.5,"last_seen":"2026-01-15T10:00:00Z"}'),
        ("zigbee2mqtt/lamp", '{"temperature":40.5,"last_seen":"2026-01-15T10:00:00Z"}'),
        ("tele/plug/SENSOR", '{"Time":"2026-01-15T10:00:00","ENERGY":{"Power":41}}'),
        ("porch/sensor/temperature/state", "21.5"),
        ("porch/binary_sensor/door/state", b"\xff"),
    )
    running.wait(5)
    rows = running.query(
        "SELECT e.derived_tstamp AS at, e.user_id, r.source, r.device_id, r.number, r.text, "
        "r.\"values\" ->> '$.ENERGY.Power' AS power "
        "FROM atomic.io_spoorway_device_reading_1 AS r JOIN atomic.events AS e ON e.event_id = r.root_id ORDER BY r.source"
    )
    found = [(r["source"], r["device_id"], r["number"], r["text"], r["power"], r["user_id"]) for r in rows]
    assert found == [
        ("esphome", "porch", 21.5, "21.5", None, None),
        ("tasmota", "plug", None, None, 41, None),
        ("zigbee2mqtt", "lamp", None, None, None, None),
    ]
    (documented,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/mqtt-bridge.md").read_text("utf-8"), re.DOTALL)
    assert [(row["device_id"], row["celsius"]) for row in running.query(documented)] == [("lamp", 40.5)]
    assert str(rows[2]["at"]).startswith("2026-01-15 10:00:00")
    (totals,) = running.query("SELECT stored, failed, duplicate, payloads FROM atomic.totals")
    assert totals == {"stored": 3, "failed": 1, "duplicate": 1, "payloads": 6}  # the retained state is a payload, and no event
    assert running.stop() == 0
    doctor = subprocess.run(
        [sys.executable, "-m", "spoorway", "doctor", "--data", str(running.data), "--config", str(tmp_path / "spoorway.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "✓ mqtt_bridge: connects" in doctor.stdout
    assert "✓ identity: accepted 5 = stored 3 + failed 1 + duplicate 1 + pending 0" in doctor.stdout, doctor.stdout


def test_what_a_device_wants_retained_is_news_at_our_own_listener(tmp_path: Path, start: Callable[..., Any]) -> None:
    """ESPHome sets RETAIN on every state: to us that is a wish, and not the mark of an old message that it is from a broker."""
    running = start("--mqtt", "127.0.0.1:0")
    port = json.loads((running.data / "running.json").read_text())["urls"]["mqtt"][0].rsplit(":", 1)[1]
    sent = ["mosquitto_pub", "-p", port, "-q", "1", "-r", "-t", "porch/sensor/temperature/state", "-m", "21.5"]
    subprocess.run(sent, check=True, timeout=10)
    running.wait(1)
    assert running.query("SELECT device_id, number FROM atomic.io_spoorway_device_reading_1") == [
        {"device_id": "porch", "number": 21.5}
    ]


def test_doctor_and_log_say_why_the_broker_refuses(broker: Mosquitto, tmp_path: Path, start: Callable[..., Any]) -> None:
    file = configured(broker, tmp_path, password="wrong")
    running = start("--config", file)
    said = "it says 'Not authorized'; check username and password"
    running.until(lambda: said in running.errors.read_text(), running.errors.read_text)
    assert running.get(f"{running.admin}/health/ready")[0] == 200  # the other doors are open
    command = [sys.executable, "-m", "spoorway", "doctor", "--quick", "--data", str(running.data), "--config", file]
    doctor = subprocess.run(command, capture_output=True, text=True, check=False)
    assert doctor.returncode == 1
    assert f"✗ mqtt_bridge: {said}" in doctor.stdout


def test_kill_of_the_gateway_and_restart_of_the_broker_under_load(
    broker: Mosquitto, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """Whatever the broker acknowledged is one row, though everything dies in turn."""
    file = configured(broker, tmp_path)
    running = start("--config", file)
    subscribed(running)
    publisher = broker.client()
    acknowledged: list[str] = []
    confirmed: set[int] = set()  # asking each message would fail while the broker is away, though it is sent all the same
    publisher.on_publish = lambda _client, _data, mid, _reason, _properties: confirmed.add(mid)
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():
            ids = [str(uuid.uuid4()) for _ in range(20)]
            event = "e=se&se_ca=a&se_ac=b&p=iot&tv=test&aid=load&eid="
            sent = {publisher.publish("spoorway/pump-1/tp1", event + event_id, 1).mid: event_id for event_id in ids}
            end = time.monotonic() + 20
            while not sent.keys() <= confirmed and time.monotonic() < end:
                time.sleep(0.002)
            acknowledged.extend(sent[mid] for mid in sent.keys() & confirmed)
            confirmed.difference_update(sent)

    sender = threading.Thread(target=load, daemon=True)
    sender.start()
    for victim in ("gateway", "broker", "gateway", "both", "gateway"):
        time.sleep(0.7)
        if victim in ("gateway", "both"):
            running.stop(signal.SIGKILL)
        if victim in ("broker", "both"):
            broker.stop()
            broker.start()
        if victim in ("gateway", "both"):
            (running.data / "running.json").unlink(missing_ok=True)
            running = start("--config", file)
    time.sleep(0.5)
    ending.set()
    sender.join(30)
    publisher.disconnect()
    publisher.loop_stop()
    assert len(acknowledged) > 500

    def lost() -> set[str]:
        return set(acknowledged) - {row["event_id"] for row in running.query("SELECT event_id FROM atomic.events")}

    running.until(lambda: not lost(), lambda: f"{len(lost())} of {len(acknowledged)} acknowledged messages are lost")
    (row,) = running.query("SELECT count(*) AS n, count(DISTINCT event_id) AS different FROM atomic.events")
    assert row["n"] == row["different"]
    (totals,) = running.query("SELECT stored, failed, duplicate FROM atomic.totals")
    assert totals["failed"] == 0
    print(f"{len(acknowledged):,} acknowledged, {totals}")
