"""The MQTT listener: nothing is acknowledged before it is on disk, nobody speaks for another, and nothing grows without bound."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.journal import JournalFull, TooLarge
from gateway.mqtt.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    V5,
    V311,
    Ack,
    Disconnect,
    Ping,
    Publish,
    Subscribe,
    Will,
    encode,
)
from gateway.transports.mqtt import Config, Plugin
from protocol.devices import DEVICE_HEADER
from protocol.seams import ConfigurationError

sys.path.insert(0, str(Path(__file__).parent))

from mqtt_site import Recorder, Register, on_a_loop, publish, site

LOGIN = {"user": "d1", "password": b"pw"}


@on_a_loop
async def test_no_acknowledgement_before_the_journal_has_it() -> None:
    async with site() as running:
        client = await running.connect()
        running.recorder.gate.clear()
        client.send(publish(1), publish(2, 2))
        await running.recorder.entered.wait()
        assert await client.silent()
        running.recorder.gate.set()
        assert await client.next() == Ack(PUBACK, 1)
        assert await client.next() == Ack(PUBREC, 2)


@on_a_loop
async def test_what_the_journal_refuses_is_offered_again_and_then_acknowledged() -> None:
    async with site() as running:
        client = await running.connect()
        running.recorder.trouble = JournalFull("full")
        client.send(publish(1))
        await running.recorder.entered.wait()
        assert await client.silent()
        running.recorder.trouble = None
        assert await client.next() == Ack(PUBACK, 1)
        assert running.recorder.queries() == ["e=pv&n=1"]


@pytest.mark.parametrize("version", [V311, V5])
@on_a_loop
async def test_a_journal_that_stays_full_ends_the_connection_without_an_acknowledgement(version: int) -> None:
    async with site(accept_timeout_s=0) as running:
        client = await running.connect(version=version)
        running.recorder.trouble = JournalFull("full")
        client.send(publish(1))
        last = await client.next()
        assert last is None if version == V311 else isinstance(last, Disconnect) and last.code == 0x97
        assert running.plugin.counters.messages["not_taken"] == 1


@pytest.mark.parametrize("version", [V311, V5])
@on_a_loop
async def test_what_is_too_large_for_the_journal_ends_the_connection_and_mqtt_5_is_told_why(version: int) -> None:
    async with site() as running:
        client = await running.connect(version=version)
        running.recorder.trouble = TooLarge("9 bytes, a record may have 8")
        client.send(publish(1))
        last = await client.next()
        told = Disconnect(0x95, {"reason": "9 bytes, a record may have 8"})
        assert last is None if version == V311 else last == told
        assert await client.next() is None
        assert (running.recorder.offered, running.plugin.counters.messages["accepted"]) == (1, 0)


@on_a_loop
async def test_a_full_journal_stops_reading() -> None:
    async with site() as running:
        client = await running.connect()
        running.recorder.gate.clear()
        body = b"x" * 10_000
        for number in range(1, 2_000):
            client.send(Publish("spoorway/d1/tp2", body, 1, number))
        await running.recorder.entered.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.writer.drain()
        assert running.plugin.counters.received_bytes < 5_000_000
        client.drop()
        running.recorder.gate.set()


@on_a_loop
async def test_what_was_received_is_kept_though_its_sender_left() -> None:
    async with site() as running:
        client = await running.connect()
        running.recorder.gate.clear()
        client.send(publish(1))
        await running.recorder.entered.wait()
        client.drop()
        running.recorder.gate.set()
        await running.until(lambda: running.recorder.queries() == ["e=pv&n=1"])


@on_a_loop
async def test_a_client_that_closes_its_side_still_gets_its_acknowledgement() -> None:
    async with site() as running:
        client = await running.connect()
        running.recorder.gate.clear()
        client.send(publish(1))
        client.writer.write_eof()
        await running.recorder.entered.wait()
        running.recorder.gate.set()
        assert await client.next() == Ack(PUBACK, 1)
        assert await client.next() is None


@on_a_loop
async def test_the_payload_names_who_proved_it_and_who_only_claims() -> None:
    async with site(Register(d1="pw")) as running:
        proved, claiming = await running.connect("a", **LOGIN), await running.connect("b")
        proved.send(publish(1))
        await proved.next()
        claiming.send(publish(2, device="d2"))
        await claiming.next()
        first, second = [p for p in running.recorder.payloads if p.path == "/i"]
        assert (first.device, second.device) == ("d1", None)
        assert (DEVICE_HEADER, "d2") in second.headers
        assert first.ip == "127.0.0.1"


@on_a_loop
async def test_logins() -> None:
    async with site(Register(d1="pw"), identity="required") as running:
        assert await running.refused(user="d1", password=b"no") == 4
        assert await running.refused(user="d2", password=b"pw") == 4
        assert await running.refused(user="d1", password=b"\xff") == 4
        assert await running.refused(user="d1") == 4
        assert await running.refused() == 5
        assert running.plugin.counters.refused_logins == 5
        client = await running.connect(**LOGIN)
        client.send(publish(1, device="d2"))
        assert await client.next() is None
        assert running.plugin.counters.messages["not_allowed"] == 1
        assert running.recorder.queries() == []


@on_a_loop
async def test_a_device_that_is_registered_while_somebody_speaks_in_its_name_is_heard_alone() -> None:
    register = Register()
    async with site(register) as running:
        client = await running.connect()
        client.send(publish(1))
        await client.next()
        register.secrets["d1"] = "pw"
        client.send(publish(2))
        assert await client.next() is None


@pytest.mark.parametrize("version", [V311, V5])
@on_a_loop
async def test_a_revoked_device_is_cut_off_at_once(version: int) -> None:
    register = Register(d1="pw")
    async with site(register) as running:
        client = await running.connect(version=version, **LOGIN)
        register.revoke("d1")
        last = await client.next()
        assert last is None if version == V311 else isinstance(last, Disconnect) and last.code == 0x98
        await running.until(lambda: running.recorder.reasons() == ["connect", "revoked"])
        assert register.watching == {"d1": []}


@on_a_loop
async def test_presence() -> None:
    will = Will("spoorway/d1/tp1", b"e=pv&n=99")
    async with site(Register(d1="pw"), connect_timeout_s=0.1) as running:
        seen = running.recorder
        client = await running.connect(will=will, **LOGIN)
        client.send(Disconnect())
        await running.until(lambda: seen.reasons() == ["connect", "disconnect"])
        assert seen.queries() == []
        (await running.connect(will=will, **LOGIN)).drop()
        await running.until(lambda: seen.reasons()[2:] == ["connect", "connection_lost"])
        assert seen.queries() == ["e=pv&n=99"]
        client = await running.connect(version=V5, will=will, **LOGIN)
        client.send(Disconnect(4))
        await running.until(lambda: seen.reasons()[4:] == ["connect", "will"])
        await running.connect(keep_alive_s=1, **LOGIN)
        await running.until(lambda: seen.reasons()[6:] == ["connect", "keep_alive"])
        await running.connect(**LOGIN)
        await running.connect(**LOGIN)
        await running.until(lambda: seen.reasons()[8:] == ["connect", "taken_over", "connect"])
        (anonymous := await running.connect("other")).send(Disconnect())
        assert await anonymous.next() is None
    assert seen.reasons()[11:] == ["gateway_stopped"]
    assert {p.device for p in seen.payloads if p.path != "/i"} == {"d1"}


@on_a_loop
async def test_two_devices_with_one_client_id_do_not_push_each_other_out() -> None:
    async with site(Register(d1="pw", d2="pw")) as running:
        first = await running.connect("esp", **LOGIN)
        second = await running.connect("esp", user="d2", password=b"pw")
        third = await running.connect("esp")
        for client in (first, second, third):
            client.send(Ping())
            assert isinstance(await client.next(), Ping)


@on_a_loop
async def test_what_comes_down() -> None:
    async with site(Register(d1="pw"), min_interval_ms=5_000) as running:
        client = await running.connect(version=V5, **LOGIN)
        client.send(Ping())
        assert isinstance(await client.next(), Ping)  # nothing that was not asked for
        client.send(Subscribe(1, (("spoorway/d1/down", 1),)))
        await client.next()
        assert await client.next() == Publish("spoorway/d1/down", b'{"time_ms":1700000000123}')
        assert await client.next() == Publish("spoorway/d1/down", b'{"min_interval_ms":5000}')
        assert running.plugin.hint(60_000, "d1") == 1
        assert await client.next() == Publish("spoorway/d1/down", b'{"min_interval_ms":60000}')
        assert running.plugin.hint(60_000, "d2") == 0


@on_a_loop
async def test_a_device_beyond_its_limits_waits() -> None:
    register = Register(d1="pw")
    async with site(register) as running:
        client = await running.connect(**LOGIN)
        register.delays = [0, 0.2]
        client.send(publish(1), publish(2))
        assert await client.next() == Ack(PUBACK, 1)
        assert await client.silent()
        assert await client.next() == Ack(PUBACK, 2)
        assert running.recorder.queries() == ["e=pv&n=1", "e=pv&n=2"]


@on_a_loop
async def test_qos_2_across_a_restart_is_one_payload_or_two_with_one_id(tmp_path: Path) -> None:
    """What is not known to be on disk is written again, under the id it would have had."""
    sessions = str(tmp_path / "mqtt.db")
    recorder = Recorder()
    async with site(recorder=recorder, sessions=sessions, accept_timeout_s=0) as running:
        client = await running.connect(clean=False)
        client.send(publish(7, 2))
        assert await client.next() == Ack(PUBREC, 7)
        recorder.trouble = JournalFull("as good as a crash")
        client.send(publish(8, 2))
        assert await client.next() is None
    recorder.trouble = None
    async with site(recorder=recorder, sessions=sessions) as running:
        client = await running.connect(clean=False, present=True)
        client.send(publish(7, 2, dup=True), publish(8, 2, dup=True))
        assert [await client.next(), await client.next()] == [Ack(PUBREC, 7), Ack(PUBREC, 8)]
        client.send(Ack(PUBREL, 7), Ack(PUBREL, 8))
        assert [await client.next(), await client.next()] == [Ack(PUBCOMP, 7), Ack(PUBCOMP, 8)]
    assert recorder.queries() == ["e=pv&n=7", "e=pv&n=8"]
    async with site(recorder=recorder, sessions=sessions) as running:
        client = await running.connect(clean=False, present=True)
        client.send(publish(7, 2))
        await client.next()
    assert recorder.queries() == ["e=pv&n=7", "e=pv&n=8", "e=pv&n=7"]
    ids = [p.id for p in recorder.payloads]
    assert len(set(ids)) == 3


@on_a_loop
async def test_another_message_under_an_identifier_in_use_is_not_lost() -> None:
    """A device that lost its memory begins at 1 again, though the session knows a 1 that was never released."""
    async with site() as running:
        client = await running.connect()
        client.send(Publish("spoorway/d1/tp1", b"e=pv&before=1", 2, 1), Publish("spoorway/d1/tp1", b"e=pv&after=1", 2, 1))
        assert [await client.next(), await client.next()] == [Ack(PUBREC, 1), Ack(PUBREC, 1)]
        assert running.recorder.queries() == ["e=pv&before=1", "e=pv&after=1"]


@on_a_loop
async def test_sessions_are_bounded(tmp_path: Path) -> None:
    async with site(sessions=str(tmp_path / "mqtt.db"), max_sessions=2) as running:
        for name in "abc":
            client = await running.connect(name, clean=False)
            client.send(Disconnect())
            assert await client.next() is None
        await running.connect("a", clean=False)  # forgotten: the oldest had to go
        await running.connect("c", clean=False, present=True)
        assert await running.refused("d", clean=False) == 3


@on_a_loop
async def test_connections_and_silence_are_bounded() -> None:
    async with site(max_connections=1, connect_timeout_s=0.05) as running:
        silent = await running.open()
        assert await silent.next() is None
        await running.connect()
        assert await (await running.open()).next() is None
        assert running.plugin.counters.refused_connections == 1


@on_a_loop
async def test_packets_that_never_end_are_bounded_together() -> None:
    async with site(max_buffered_bytes=1_000, max_packet_bytes=900) as running:
        half = encode(Publish("spoorway/d1/tp2", b"x" * 800))[:700]
        first, second = await running.connect("a"), await running.connect("b")
        first.writer.write(half)
        await running.until(lambda: running.plugin._listener.held_bytes == 700)
        second.writer.write(half)
        assert await second.next() is None
        first.send(Publish("", b""))  # completes the packet, as payload
        assert await first.silent()


@on_a_loop
async def test_a_client_that_reads_nothing_is_cut() -> None:
    async with site(write_timeout_s=0.1) as running:
        client = await running.connect()
        client.send(Subscribe(1, (("spoorway/d1/down", 0),)))
        await client.next()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        sent = -1
        while sent < (sent := running.plugin.counters.sent_bytes):
            running.plugin.hint(1)
        client.send(Ping())
        await running.until(lambda: running.plugin.counters.open_connections == 0)


@on_a_loop
async def test_stop_lets_what_is_under_way_finish() -> None:
    async with site() as running:
        client = await running.connect(version=V5)
        running.recorder.gate.clear()
        client.send(publish(1))
        await running.recorder.entered.wait()
        stopping = asyncio.create_task(running.plugin.stop())
        await asyncio.sleep(0.02)
        running.recorder.gate.set()
        assert await client.next() == Ack(PUBACK, 1)
        last = await client.next()
        assert isinstance(last, Disconnect)
        assert last.code == 0x8B
        await stopping


@on_a_loop
async def test_stop_does_not_wait_for_ever() -> None:
    recorder = Recorder()
    plugin = Plugin(Config(port=0, stop_timeout_s=0.05))
    await plugin.start(recorder.accept)
    recorder.gate.clear()
    _, writer = await asyncio.open_connection(*plugin.addresses[0])
    writer.write(bytes.fromhex("100d00044d51545404020000000163") + encode(publish(1)))
    await recorder.entered.wait()
    await plugin.stop()
    writer.close()


def make_certificates(folder: Path) -> None:
    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    extension = ("-addext", "subjectAltName=IP:127.0.0.1")
    run(*new, "-x509", "-days", "2", "-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=localhost", *extension)
    run(*new, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("d1", "stranger"):
        run(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-out", f"{name}.pem")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


@on_a_loop
async def test_a_certificate_is_a_login(certificates: Path) -> None:
    def trust(name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(certificates / "server.pem"))
        if name:
            context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        return context

    options = {"tls_certificate": str(certificates / "server.pem"), "tls_key": str(certificates / "server.key")}
    async with site(Register(d1="pw"), identity="required", tls_client_ca=str(certificates / "ca.pem"), **options) as running:
        client = await running.connect(tls=trust("d1"))
        client.send(publish(1))
        assert await client.next() == Ack(PUBACK, 1)
        assert running.recorder.payloads[-1].device == "d1"
        assert await running.refused(tls=trust("stranger")) == 4
        assert await running.refused(tls=trust("d1"), user="d2", password=b"pw") == 4
        assert await running.refused(tls=trust(None)) == 5
        await running.connect("by password", tls=trust(None), **LOGIN)
    assert running.plugin.scheme == "mqtts"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_in_flight": 0}, "max_in_flight = 0; it must be at least 1"),
        ({"max_in_flight": 70_000}, "at most 65535"),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca without tls_certificate"),
        ({"tls_certificate": "/nowhere.pem"}, "must be PEM files"),
        ({"topics": {"a/#/b": "/x/v1"}}, "no topic filter"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Plugin(Config(**options))  # type: ignore[arg-type]


@on_a_loop
async def test_a_port_in_use_and_a_folder_that_is_not_there_are_explained(tmp_path: Path) -> None:
    async with site() as running:
        other = Plugin(Config(port=running.plugin.addresses[0][1]))
        with pytest.raises(ConfigurationError, match="is in use, perhaps by a broker"):
            await other.start(running.recorder.accept)
        lost = Plugin(Config(port=0, sessions=str(tmp_path / "no" / "mqtt.db")))
        with pytest.raises(ConfigurationError, match="mqtt: sessions"):
            await lost.start(running.recorder.accept)


@on_a_loop
async def test_listening_beyond_this_machine_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with site(host="0.0.0.0"):
        assert [record.message.partition(" without")[0] for record in caplog.records] == [
            "mqtt listens beyond this machine",
            'mqtt listens beyond this machine with identity = "optional": anybody may publish',
        ]
    caplog.clear()
    async with site():
        assert caplog.records == []


@on_a_loop
async def test_damaged_streams_harm_nobody_else() -> None:
    async with site() as running:
        good = await running.connect("good")
        for number in range(1, 40):
            bad = await running.connect(f"bad{number}")
            data = bytearray(encode(publish(number)) + encode(publish(number, 2)))
            data[number % len(data)] ^= 1 << number % 8
            bad.writer.write(bytes(data))
            good.send(publish(number))
            assert await good.next() == Ack(PUBACK, number)
            bad.drop()
