"""Signed requests and claim codes at the HTTP transport, with the real register and journal behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.devices import Claimed, Devices, Secrets
from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from gateway.transports.http import Config, Plugin
from protocol.devices import signature
from protocol.seams import RawPayload, TransientError
from tests.unit.device_house import House, in_house, issue
from tests.unit.http_site import TP2, Recorder, Reply, Site, gzipped, until

CLAIM = "/io.spoorway/claim"


def serve(
    data: Path, scenario: Callable[[Site, House], Awaitable[None]], recorder: Recorder | None = None, **options: Any
) -> None:
    """A site whose devices are those of a house."""

    async def run(house: House) -> None:
        kept = recorder or Recorder()
        plugin = Plugin(Config(port=0, **options), house.register)
        await plugin.start(kept.accept)
        site = Site(plugin, kept)
        try:
            await scenario(site, house)
        finally:
            kept.gate.set()
            site.close()
            await plugin.stop()

    in_house(data, run)


def headers(secrets: Secrets, sequence: int, body: bytes = b"", target: str = TP2, **changed: str) -> dict[str, str | bytes]:
    made = signature(bytes.fromhex(secrets.key), secrets.device, 1, sequence, target, body).hex()
    found = {
        "Spoorway_Device": secrets.device,
        "Spoorway_Boot": "1",
        "Spoorway_Sequence": str(sequence),
        "Spoorway_Signature": made,
    }
    return {**found, **changed}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_signed_payload_has_the_device_and_the_headers_of_the_register_first(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(site: Site, house: House) -> None:
        await site.post(b"{}", **headers(pump, 1, b"{}"), User_Agent="board", Spoorway_Generation="7")
        assert site.payload.device == "pump"
        names = [name for name, _ in site.payload.headers]
        assert names == ["Spoorway-Boot", "Spoorway-Sequence", "Spoorway-Signature", "Spoorway-Generation", "User-Agent"]
        assert site.payload.headers[3] == ("Spoorway-Generation", "1")

    serve(data, scenario, stored_headers=("Spoorway-*", "User-Agent"))


def test_unsigned_request_stays_open_and_proves_nothing(data: Path) -> None:
    issue(data, "pump")

    async def scenario(site: Site, house: House) -> None:
        assert (await site.post(b"{}", Spoorway_Boot="1", Spoorway_Sequence="1")).status == 200
        assert site.payload.device is None

    serve(data, scenario)


def test_body_is_signed_as_it_is_sent(data: Path) -> None:
    (pump,) = issue(data, "pump")
    packed = gzipped(b'{"data":[]}')

    async def scenario(site: Site, house: House) -> None:
        wrong = await site.post(packed, Content_Encoding="gzip", **headers(pump, 1, b'{"data":[]}'))
        assert (wrong.status, wrong.body) == (401, b"unknown device or wrong signature")
        assert (await site.post(packed, Content_Encoding="gzip", **headers(pump, 1, packed))).status == 200
        assert site.payload.body == b'{"data":[]}'

    serve(data, scenario)


def test_pixel_is_signed_with_its_query_and_without_a_body(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(site: Site, house: House) -> None:
        assert (await site.ask("/i?e=pv", **headers(pump, 1, target="/i?e=pv"))).body.startswith(b"GIF")
        assert (await site.ask("/i?e=pv", **headers(pump, 1, target="/i?e=pv"))).body.startswith(b"GIF")  # a copy
        assert (await site.ask("/i?e=pp", **headers(pump, 2, target="/i?e=pv"))).status == 401
        assert site.payload.query == "e=pv"

    serve(data, scenario)


def test_custom_path_is_signed_as_it_is_sent(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(site: Site, house: House) -> None:
        assert (await site.post(b"{}", "/a/b", **headers(pump, 1, b"{}", "/a/b"))).status == 200
        assert site.payload.path == TP2

    serve(data, scenario, paths={"/a/b": TP2})


@pytest.mark.parametrize(
    "changed",
    [
        {"Spoorway_Boot": "x"},
        {"Spoorway_Boot": ""},
        {"Spoorway_Boot": "-1"},
        {"Spoorway_Sequence": "1.0"},
        {"Spoorway_Sequence": "٣"},
        {"Spoorway_Sequence": "9" * 40},
        {"Spoorway_Signature": "zz"},
        {"Spoorway_Signature": ""},
        {"Spoorway_Signature": "00" * 32},
        {"Spoorway_Device": ""},
        {"Spoorway_Device": "pümp"},
    ],
    ids=str,
)
def test_headers_that_say_nothing_are_refused_like_a_wrong_signature(data: Path, changed: dict[str, str]) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(site: Site, house: House) -> None:
        reply = await site.post(b"{}", **headers(pump, 1, b"{}", **changed), Origin="https://a.example")
        assert reply.status == 401
        assert reply["Access-Control-Allow-Origin"] == "https://a.example"
        assert not site.recorder.payloads
        assert site.counters.requests["refused"] == 1

    serve(data, scenario)


def test_signed_request_without_a_register_is_refused(data: Path) -> None:
    async def scenario() -> None:
        recorder = Recorder()
        plugin = Plugin(Config(port=0))
        await plugin.start(recorder.accept)
        site = Site(plugin, recorder)
        assert (await site.post(b"{}", **headers(Secrets("pump", "00"), 1, b"{}"))).status == 401
        assert (await site.post(b'{"code":"x"}', CLAIM)).status == 404
        assert not recorder.payloads
        site.close()
        await plugin.stop()

    asyncio.run(scenario())


def test_what_the_journal_refuses_may_be_sent_again(data: Path) -> None:
    (pump,) = issue(data, "pump")
    recorder = Recorder(trouble=TransientError("full"))

    async def scenario(site: Site, house: House) -> None:
        assert (await site.post(b"{}", **headers(pump, 1, b"{}"))).status == 503
        recorder.trouble = None
        assert (await site.post(b"{}", **headers(pump, 1, b"{}"))).status == 200
        assert (await site.post(b"{}", **headers(pump, 1, b"{}"))).status == 200
        assert site.payload.device == "pump"

    serve(data, scenario, recorder)


def test_message_that_was_too_fast_is_taken_when_it_comes_again(data: Path) -> None:
    (pump,) = issue(data, "pump", limits=Limits(payloads_per_s=0.1))

    async def scenario(site: Site, house: House) -> None:
        assert (await site.post(b"{}", **headers(pump, 1, b"{}"))).status == 200
        late = await site.post(b"{}", **headers(pump, 2, b"{}"))
        assert (late.status, late["Retry-After"], late.body) == (429, "10", b"too fast")
        house.clock.seconds += 10
        assert (await site.post(b"{}", **headers(pump, 2, b"{}"))).status == 200
        assert len(site.recorder.payloads) == 2

    serve(data, scenario)


def test_copy_of_a_request_whose_sender_gave_up_waits_and_is_kept_once(data: Path) -> None:
    """The answer came too late, or nobody waited for it: the payload is under way to the disk all the same."""
    (pump,) = issue(data, "pump")
    recorder = Recorder()
    recorder.gate.clear()

    async def scenario(site: Site, house: House) -> None:
        late = await site.post(b"{}", **headers(pump, 1, b"{}"))
        assert late.status == 503  # accept_timeout_s
        busy = await site.post(b"{}", **headers(pump, 1, b"{}"))
        assert (busy.status, busy["Retry-After"]) == (429, "1")
        recorder.gate.set()
        await until(lambda: house.register.counters.messages == 1)
        assert (await site.post(b"{}", **headers(pump, 1, b"{}"))).status == 200
        assert site.payload.device == "pump"

    serve(data, scenario, recorder, accept_timeout_s=0.2)


def test_signed_request_that_is_not_recorded_reserves_nothing(data: Path) -> None:
    (pump,) = issue(data, "pump")

    async def scenario(site: Site, house: House) -> None:
        assert (await site.post(b"{}", **headers(pump, 1, b"{}"), Cookie="dnt=1")).status == 200
        assert not site.recorder.payloads
        assert (await site.post(b"{}", **headers(pump, 1, b"{}"))).status == 200
        assert site.payload.device == "pump"

    serve(data, scenario, do_not_track_cookie="dnt")


# Claim codes.


def code_for(data: Path) -> str:
    data.mkdir(exist_ok=True)
    (code,) = Issuer(data, lambda: 1_700_000_000_000, make=True).add(["pump"], "both", Limits(), valid_ms=10_000_000)
    assert isinstance(code, str)
    return code


def claim(code: object) -> bytes:
    return json.dumps({"code": code}).encode()


def test_claimed_secrets_are_for_nobody_else(data: Path) -> None:
    code = code_for(data)

    async def scenario(site: Site, house: House) -> None:
        reply = await site.post(claim(code), CLAIM, Origin="https://evil.example")
        assert reply.status == 200
        assert reply["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in reply
        secrets = Secrets(**json.loads(reply.body))
        assert (await site.post(b"{}", **headers(secrets, 1, b"{}"))).status == 200
        assert site.payload.device == "pump"  # and no code is in the journal

    serve(data, scenario)


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", claim(1), claim(None), claim("x" * 2_000), b"\xff"])
def test_what_is_no_claim_is_a_400(data: Path, body: bytes) -> None:
    async def scenario(site: Site, house: House) -> None:
        assert (await site.post(body, CLAIM)).status == 400
        assert (await site.ask(CLAIM)).status == 404
        assert not site.recorder.payloads

    serve(data, scenario)


class Listening:
    """A register that tells what a claim came with."""

    def __init__(self) -> None:
        self.claims: list[tuple[str, bool]] = []

    async def claim(self, code: str, source: str, *, private: bool) -> Claimed:
        self.claims.append((source, private))
        return Claimed()


@pytest.mark.parametrize(
    ("trusted", "sent", "found"),
    [
        ((), {}, ("127.0.0.1", True)),
        ((), {"X_Forwarded_For": "203.0.113.5"}, ("127.0.0.1", False)),
        ((), {"X_Forwarded_Proto": "https"}, ("127.0.0.1", False)),
        ((), {"Forwarded": "for=203.0.113.5;proto=https"}, ("127.0.0.1", False)),
        ((), {"Via": "1.1 somebody"}, ("127.0.0.1", False)),
        (("127.0.0.1",), {"X_Forwarded_For": "203.0.113.5"}, ("203.0.113.5", False)),
        (("127.0.0.1",), {"X_Forwarded_For": "203.0.113.5", "X_Forwarded_Proto": "http"}, ("203.0.113.5", False)),
        (("127.0.0.1",), {"X_Forwarded_For": "203.0.113.5", "X_Forwarded_Proto": "https"}, ("203.0.113.5", True)),
        (("10.0.0.0/8",), {"X_Forwarded_For": "203.0.113.5", "X_Forwarded_Proto": "https"}, ("127.0.0.1", False)),
    ],
)
def test_privacy_and_address_are_what_the_trusted_proxies_say(
    trusted: tuple[str, ...], sent: dict[str, str | bytes], found: tuple[str, bool]
) -> None:
    async def scenario() -> Reply:
        recorder, register = Recorder(), Listening()
        devices: Devices = register  # type: ignore[assignment]
        plugin = Plugin(Config(port=0, trusted_proxies=trusted), devices)
        await plugin.start(recorder.accept)
        site = Site(plugin, recorder)
        reply = await site.post(claim("x"), CLAIM, **sent)
        assert register.claims == [found]
        site.close()
        await plugin.stop()
        return reply

    assert asyncio.run(scenario()).status == 401


def test_payload_of_a_browser_is_what_it_was(data: Path) -> None:
    """The same request with and without a register gives the same payload."""
    issue(data, "pump")
    kept: list[RawPayload] = []

    async def scenario(site: Site, house: House) -> None:
        await site.post(b"{}", User_Agent="browser")
        kept.append(replace(site.payload, id="", received_ms=0))

    serve(data, scenario)
    serve(data.with_name("none"), scenario)
    assert kept[0] == kept[1]
