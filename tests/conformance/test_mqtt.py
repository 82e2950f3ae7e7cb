"""Every case of protocol/vectors/mqtt at the real listener: bytes over a socket, answers, and what was recorded.

Every normative statement of MQTT 3.1.1 is named by a case, or by the reason why no case can show it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from gateway.devices import Message, Verdict
from gateway.mqtt.properties import variable
from gateway.transports.mqtt import Config, Plugin
from protocol.seams import RawPayload
from tests.conformance import vectors

CASES = [case for case in vectors.cases("mqtt") if "elsewhere" not in case.fields]
PATIENCE_S = 5.0
# Section -> how many statements it has. Source: MQTT 3.1.1, appendix B.
STATEMENTS = {
    "1.5.3": 3, "2.2.2": 2, "2.3.1": 7, "3.1.0": 2, "3.1.2": 24, "3.1.3": 11, "3.1.4": 5, "3.2.0": 1, "3.2.2": 6,
    "3.3.1": 12, "3.3.2": 3, "3.3.4": 1, "3.3.5": 2, "3.6.1": 1, "3.8.1": 1, "3.8.3": 4, "3.8.4": 6, "3.9.3": 2,
    "3.10.1": 1, "3.10.3": 2, "3.10.4": 6, "3.12.4": 1, "3.14.1": 1, "3.14.4": 3, "4.1.0": 2, "4.2.0": 1, "4.3.1": 1,
    "4.3.2": 2, "4.3.3": 2, "4.4.0": 1, "4.5.0": 2, "4.6.0": 6, "4.7.1": 3, "4.7.2": 1, "4.7.3": 4, "4.8.0": 2,
    "6.0.0": 4, "7.0.0": 2, "7.1.1": 1, "7.1.2": 1,
}  # fmt: skip
_TOKEN = re.compile(r"<([^>]*)>|'([^']*)'|([{}*])|((?:[0-9a-f]{2})+)")
_CONNECT = {"4": "10 { <MQTT> 04 02 003c <%s> }", "5": "10 { <MQTT> 05 02 003c 00 <%s> }"}
_ACCEPTED = {"4": "20 02 00 00", "5": "20 { 00 00 * }"}


class Greenhouse:
    """A register of one device."""

    async def login(self, device: str, secret: str) -> Verdict:
        return Verdict(device) if (device, secret) == ("greenhouse", "secret") else Verdict(refusal="secret")

    def certified(self, device: str) -> Verdict:
        return Verdict(device)

    def known(self, device: str) -> bool:
        return device == "greenhouse"

    def signed(self, message: Message) -> Verdict:
        raise NotImplementedError

    def settle(self, message: Message, taken: bool) -> None:
        raise NotImplementedError

    def delay_s(self, device: str, size: int) -> float:
        return 0

    def watch(self, device: str, ended: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


def written(notation: str) -> bytes:
    """Hex; 'text' as it is; <text> with its length in two bytes; { … } with its length as a variable byte integer."""
    stack: list[bytes] = [b""]
    for text, plain, mark, digits in (m.groups() for m in _TOKEN.finditer(notation)):
        if mark == "{":
            stack.append(b"")
        elif mark == "}":
            inner = stack.pop()
            stack[-1] += variable(len(inner)) + inner
        elif text is not None:
            stack[-1] += len(text.encode()).to_bytes(2, "big") + text.encode()
        else:
            stack[-1] += plain.encode() if plain is not None else bytes.fromhex(digits)
    (whole,) = stack
    return whole


def matches(notation: str, data: bytes) -> bool:
    """As `written`; * stands for the rest, and lengths around it for any."""
    if "*" not in notation:
        return written(notation) == data
    pattern = b""
    for text, plain, mark, digits in (m.groups() for m in _TOKEN.finditer(notation.partition("*")[0])):
        if mark:
            pattern += rb"[\x00-\xff]{1,4}?"
        elif text is not None:
            pattern += re.escape(len(text.encode()).to_bytes(2, "big") + text.encode())
        else:
            pattern += re.escape(plain.encode() if plain is not None else bytes.fromhex(digits))
    return re.match(pattern, data, re.DOTALL) is not None


async def packet(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(2)
    length, shift, byte = head[1] & 127, 7, head[1]
    while byte & 128:
        head += await reader.readexactly(1)
        byte = head[-1]
        length |= (byte & 127) << shift
        shift += 7
    return head + await reader.readexactly(length)


async def play(case: vectors.Case) -> list[RawPayload]:
    recorded: list[RawPayload] = []

    async def accept(payload: RawPayload) -> None:
        recorded.append(payload)

    plugin = Plugin(Config(port=0, presence=False, **case.fields.get("config", {})), Greenhouse())
    await plugin.start(accept)
    ((host, port),) = plugin.addresses
    clients: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    try:
        for step in case.fields["steps"]:
            async with asyncio.timeout(PATIENCE_S):
                if step[0] not in clients:
                    clients[step[0]] = await asyncio.open_connection(host, port)
                await _step(step, *clients[step[0]])
    finally:
        await plugin.stop()
        for _, writer in clients.values():
            writer.close()
    return recorded


async def _step(step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    action, rest = step[1], step[2:].strip()
    match action:
        case ">":
            writer.write(written(rest))
        case ":":
            for byte in written(rest):
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
        case "<":
            data = await packet(reader)
            assert matches(rest, data), f"{step}: {data.hex(' ')}"
        case "+":
            version, name = rest.split()
            writer.write(written(_CONNECT[version] % name))
            data = await packet(reader)
            assert matches(_ACCEPTED[version], data), f"{step}: {data.hex(' ')}"
        case "|":
            assert await reader.read() == b"", step
        case _:
            writer.transport.abort()
            await asyncio.sleep(0.05)  # the listener has to see it before the next step


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(case: vectors.Case) -> None:
    recorded = uvloop.run(play(case))
    expected: list[dict[str, Any]] | None = case.fields.get("recorded")
    if expected is None:
        return
    assert len(recorded) == len(expected), recorded
    for payload, fields in zip(recorded, expected, strict=True):
        assert payload.transport == "mqtt"
        for name, value in fields.items():
            if name == "headers":
                assert dict(payload.headers).items() >= value.items()
            else:
                assert getattr(payload, name) == value


def test_every_statement_is_shown_or_explained() -> None:
    every = {f"MQTT-{section}-{number}" for section, count in STATEMENTS.items() for number in range(1, count + 1)}
    named = {clause for case in vectors.cases("mqtt") if case.file != "v5" for clause in case.fields["clauses"]}
    assert sorted(every - named) == []
    assert sorted(named - every) == []


def test_the_notation_and_the_comparer_can_fail() -> None:
    assert written("10 { <ab> 'c' 00ff }") == b"\x10\x07\x00\x02abc\x00\xff"
    assert matches("20 { 00 00 * }", b"\x20\x05\x00\x00\x02\x21\x01")
    assert not matches("20 { 00 00 * }", b"\x20\x02\x00\x86")
    assert not matches("20 02 00 00", b"\x20\x02\x01\x00")
