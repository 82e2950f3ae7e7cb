"""The door for other gateways: who may come in, what must be on disk before 200, what is refused whole."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from gateway.devices.register import Register
from gateway.transports.http import Config, Plugin
from protocol.devices import RELAY_PATH, signature
from protocol.payloads import to_json
from protocol.seams import RawPayload, TransientError
from tests.unit.http_site import Recorder, Reply, Site

PAYLOADS = [
    RawPayload(f"{1:032x}", 5, "http", "/i", "e=pv", None, None, (("User-Agent", "Bö"),), "192.0.2.77", "h", "nuid"),
    RawPayload(f"{2:032x}", 6, "mqtt", "/a/b", body=b"\xff\x00\n", content_type="x/y", device="greenhouse"),
]


class Door:
    def __init__(self, site: Site, key: bytes, register: Register) -> None:
        self.site, self.key, self.register, self.sequence = site, key, register, 0
        self.recorder = site.recorder

    async def relay(
        self, body: bytes, *, boot: int = 1, sequence: int | None = None, device: str = "site-7", **headers: str
    ) -> Reply:
        self.sequence += 1
        number = self.sequence if sequence is None else sequence
        signed = signature(self.key, device, boot, number, RELAY_PATH, body).hex()
        told = {
            "Spoorway_Device": device,
            "Spoorway_Boot": str(boot),
            "Spoorway_Sequence": str(number),
            "Spoorway_Signature": signed,
        }
        return await self.site.ask(RELAY_PATH, "POST", body, **{**told, **headers})


def lines(*payloads: RawPayload) -> bytes:
    return b"".join(to_json(payload) + b"\n" for payload in payloads)


def behind(tmp_path: Path, test: Callable[[Door], Awaitable[None]], **options: Any) -> None:
    async def scenario() -> None:
        issuer = Issuer(tmp_path, lambda: time.time_ns() // 1_000_000, make=True)
        secrets = issuer.add(["site-7", "sensor"], "hmac", Limits())
        issuer.close()
        register, recorder = Register(tmp_path), Recorder()
        await register.start()
        plugin = Plugin(Config(port=0, **{"relays": ("site-7",), **options}), register)
        await plugin.start(recorder.accept)
        site = Site(plugin, recorder)
        try:
            await test(Door(site, bytes.fromhex(secrets[0].key), register))  # type: ignore[union-attr]
        finally:
            recorder.gate.set()
            site.close()
            await plugin.stop()
            await register.stop()

    asyncio.run(scenario())


def test_payloads_are_journaled_as_they_came(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        reply = await door.relay(gzip.compress(lines(*PAYLOADS)), Content_Encoding="gzip")
        assert (reply.status, json.loads(reply.body)) == (200, {"accepted": 2})
        assert door.recorder.payloads == PAYLOADS

    behind(tmp_path, test)


def test_the_answer_waits_for_the_disk(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        door.recorder.gate.clear()
        asking = asyncio.create_task(door.relay(lines(*PAYLOADS)))
        await door.recorder.entered.wait()
        assert not asking.done()
        door.recorder.gate.set()
        assert (await asking).status == 200

    behind(tmp_path, test)


def test_a_journal_that_takes_nothing_is_503_and_the_same_message_may_come_again(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        door.recorder.trouble = TransientError("full")
        reply = await door.relay(lines(*PAYLOADS))
        assert (reply.status, reply["Retry-After"]) == (503, "5")
        door.recorder.trouble = None
        assert (await door.relay(lines(*PAYLOADS), sequence=1)).status == 200
        assert door.recorder.payloads == PAYLOADS

    behind(tmp_path, test)


def test_an_exact_copy_is_acknowledged_and_kept_once(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        first = await door.relay(lines(*PAYLOADS))
        again = await door.relay(lines(*PAYLOADS), sequence=1)
        assert (first.status, first.body) == (again.status, again.body) == (200, b'{"accepted":2}')
        assert len(door.recorder.payloads) == 2

    behind(tmp_path, test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"device": "sensor"}, 403),
        ({"device": "nobody"}, 403),
        ({"Spoorway_Signature": "00" * 32}, 401),
        ({"Spoorway_Signature": "zz"}, 401),
        ({"Spoorway_Boot": "2"}, 401),
        ({"Spoorway_Sequence": "-1"}, 401),
        ({"sequence": 1, "boot": 0}, 409),
    ],
)
def test_who_does_not_prove_that_it_may_relay_is_refused(tmp_path: Path, sent: dict[str, Any], status: int) -> None:
    async def test(door: Door) -> None:
        assert (await door.relay(lines(PAYLOADS[0]), sequence=1, boot=1)).status == 200
        assert (await door.relay(lines(PAYLOADS[1]), **{"sequence": 2, **sent})).status == status
        assert len(door.recorder.payloads) == 1

    behind(tmp_path, test)


def test_without_relays_the_path_is_none_and_nothing_is_recorded(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        assert (await door.relay(lines(*PAYLOADS))).status == 404
        assert (await door.site.ask(RELAY_PATH)).status == 404
        assert door.recorder.payloads == []

    behind(tmp_path, test, relays=())


FINE = json.loads(to_json(PAYLOADS[0]))


@pytest.mark.parametrize(
    "bad",
    [
        b"no JSON",
        b"[]",
        b"",
        *(
            json.dumps({**FINE, **change}).encode()
            for change in (
                {"id": "x"},
                {"id": 1},
                {"id": "A" * 32},
                {"at": "5"},
                {"at": -1},
                {"at": True},
                {"at": 10**18},
                {"transport": "../x"},
                {"path": "i"},
                {"query": 1},
                {"headers": [["a", 1]]},
                {"headers": [["a"]]},
                {"ip": 5},
                {"device": "a b"},
                {"body": 5},
                {"body64": "*"},
            )
        ),
    ],
)
def test_a_batch_with_anything_else_in_it_is_refused_whole(tmp_path: Path, bad: bytes) -> None:
    async def test(door: Door) -> None:
        assert (await door.relay(lines(PAYLOADS[0]) + bad + b"\n")).status == 400
        assert door.recorder.payloads == []

    behind(tmp_path, test)


def test_sizes_grow_in_json_and_have_a_limit(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        largest = replace(PAYLOADS[0], body=b"\x01" * 2000)  # each byte is written as six
        body = gzip.compress(lines(largest))
        assert (await door.relay(body, Content_Encoding="gzip")).status == 200
        bomb = gzip.compress(b" " * 17_000)
        assert (await door.relay(bomb, Content_Encoding="gzip")).status == 413
        assert (await door.relay(b" " * 4_001)).status == 413
        assert (await door.relay(body[:-9], Content_Encoding="gzip")).status == 400
        assert door.recorder.payloads == [largest]

    behind(tmp_path, test, max_body_bytes=2000)


def test_addresses_are_truncated_where_that_is_asked_of_this_gateway(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        await door.relay(lines(*PAYLOADS))
        assert [payload.ip for payload in door.recorder.payloads] == ["192.0.2.0", None]

    behind(tmp_path, test, truncate_ip=True)


def test_their_register_is_not_mixed_with_ours(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        theirs = replace(PAYLOADS[1], device="sensor", headers=(("Spoorway-Boot", "9"), ("Spoorway-Generation", "1")))
        await door.relay(lines(theirs))
        assert door.recorder.payloads[0].headers == (("Spoorway-Boot", "9"),)

    behind(tmp_path, test)
