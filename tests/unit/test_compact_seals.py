"""Whose payload it is: the real register and its keys, the seals of frames, and what enrichment then makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from enrich.compact import readings
from gateway.devices import Secrets
from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from gateway.devices.register import Register
from gateway.devices.seals import confirmed
from protocol.compact import encode
from protocol.devices import COMPACT_PATH, DEVICE_HEADER, TP2_PATH
from protocol.seams import RawPayload, Reason
from protocol.templates import bundled, bundled_template

ENVIRONMENT = bundled()[1, 1]
Judge = Callable[[RawPayload], RawPayload]


def key_of(secret: Secrets | str) -> bytes:
    assert isinstance(secret, Secrets)
    return bytes.fromhex(secret.key)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path, lambda: 1_000, make=True)


def judged(tmp_path: Path, issuer: Issuer, payload: RawPayload) -> RawPayload:
    """By a register that was started on these files just now."""
    issuer.close()

    async def ask() -> RawPayload:
        register = Register(tmp_path)
        await register.start()
        try:
            return confirmed(payload, register)
        finally:
            await register.stop()

    return asyncio.run(ask())


def frame(key: bytes | None, device: str = "node-7", *, named: bool = False, sequence: int = 1) -> bytes:
    sealed_by = (device, key) if key else None
    return encode(ENVIRONMENT, [(1, {}), (2, {})], 1, sequence, 9, sealed_by=sealed_by, device=device if named else "")


def payload_of(body: bytes, **fields: object) -> RawPayload:
    return replace(RawPayload("a" * 32, 0, "serial", COMPACT_PATH, body=body), **fields)  # type: ignore[arg-type]


def keywords(payload: RawPayload) -> set[str]:
    return {each.keyword if isinstance(each, Reason) else "" for each in readings(payload, {}, bundled_template)}


def test_a_right_seal_proves_the_device(tmp_path: Path, issuer: Issuer) -> None:
    (secret,) = issuer.add(["node-7"], "hmac", Limits())
    sealed = frame(key_of(secret), named=True)
    found = judged(tmp_path, issuer, payload_of(sealed + frame(key_of(secret), named=True, sequence=3)))
    assert found.device == "node-7"
    assert keywords(found) == {""}


def test_a_relay_that_logged_in_carries_what_another_device_sealed(tmp_path: Path, issuer: Issuer) -> None:
    (secret, _) = issuer.add(["node-7", "bridge-1"], "both", Limits())
    found = judged(tmp_path, issuer, payload_of(frame(key_of(secret), named=True), device="bridge-1"))
    assert found.device == "node-7"


def test_the_header_names_the_device_of_a_frame_that_does_not(tmp_path: Path, issuer: Issuer) -> None:
    (secret,) = issuer.add(["node-7"], "hmac", Limits())
    found = judged(tmp_path, issuer, payload_of(frame(key_of(secret)), headers=((DEVICE_HEADER, "node-7"),)))
    assert found.device == "node-7"


def test_what_the_device_proved_itself_needs_no_seal(tmp_path: Path, issuer: Issuer) -> None:
    issuer.add(["node-7"], "password", Limits())
    carried = payload_of(frame(b"?" * 32), device="node-7")
    assert judged(tmp_path, issuer, carried) is carried


@pytest.mark.parametrize("wrong", ["key", "bit", "name", "unknown", "revoked", "rotated", "mixed", "no key", "unnamed"])
def test_a_wrong_seal_proves_nothing_and_the_payload_is_kept(wrong: str, tmp_path: Path, issuer: Issuer) -> None:
    (secret, other) = issuer.add(["node-7", "node-8"], "hmac", Limits())
    key = key_of(secret)
    body = frame(key, named=True)
    match wrong:
        case "key":
            body = frame(key_of(other), named=True)
        case "bit":
            body = body[:-6] + bytes([body[-6] ^ 1]) + body[-5:]
        case "name":
            body = body.replace(b"node-7", b"node-8")
        case "unknown":
            body = frame(key, "node-9", named=True)
        case "revoked":
            issuer.revoke(["node-7"])
        case "rotated":
            issuer.rotate(["node-7"])
        case "mixed":
            body += frame(None, named=True, sequence=3)
        case "no key":
            issuer.add(["door"], "password", Limits())
            body = frame(key, "door", named=True)
        case _:
            body = frame(key)
    carrier = None if wrong == "unnamed" else "bridge-1"
    found = judged(tmp_path, issuer, payload_of(body, device=carrier))
    assert found == payload_of(body)
    assert "Unproved" in keywords(found)


def test_what_has_no_seal_is_left_alone(tmp_path: Path, issuer: Issuer) -> None:
    issuer.add(["node-7"], "hmac", Limits())
    for payload in (
        payload_of(frame(None)),
        payload_of(b"\0"),
        payload_of(frame(b"?" * 32), path=TP2_PATH),
        replace(payload_of(b""), body=None),
    ):
        assert judged(tmp_path, Issuer(tmp_path, lambda: 1_000), payload) is payload
