"""MQTT over WebSocket: where frames begin and end means nothing, what is no binary frame ends it. Bytes against bytes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mqtt_site import on_a_loop, publish, site

from gateway.mqtt.packets import Connect, encode
from gateway.mqtt.websocket import WebSocket, WebSocketEnded, frame

# The key and its answer are the example of RFC 6455, 1.3.
REQUEST = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"


def masked(data: bytes, kind: int = 2, final: bool = True) -> bytes:
    mask, size = b"\x01\x02\x03\x04", len(data)
    length = bytes((size | 128,)) if size < 126 else bytes((254,)) + size.to_bytes(2, "big")
    return bytes((kind | final << 7,)) + length + mask + bytes([byte ^ mask[at % 4] for at, byte in enumerate(data)])


def opened() -> WebSocket:
    web = WebSocket()
    assert web.feed(REQUEST) == b""
    web.out = b""
    return web


@pytest.mark.parametrize("step", [1, 3, 7, 1_000])
def test_the_same_bytes_come_out_however_they_are_framed_and_cut(step: int) -> None:
    wanted = bytes(range(256)) * 3
    framed = masked(wanted[:5], final=False) + masked(wanted[5:300], 0) + masked(b"") + masked(b"hi", 9) + masked(wanted[300:])
    data = REQUEST + framed
    web = WebSocket()
    assert b"".join([web.feed(data[at : at + step]) for at in range(0, len(data), step)]) == wanted
    assert web.out.startswith(b"HTTP/1.1 101 ")
    assert ACCEPT in web.out
    assert b"Sec-WebSocket-Protocol: mqtt\r\n" in web.out
    assert web.out.endswith(b"\x8a\x02hi")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(b"text", 1), 1003),
        (b"\x82\x01x", 1002),
        (b"\xc2" + masked(b"x")[1:], 1002),
        (masked(b"x", 9, final=False), 1002),
        (masked(b"x" * 126, 9), 1002),
        (masked((1000).to_bytes(2, "big"), 8), 1000),
    ],
    ids=["text", "not masked", "reserved bit", "control in pieces", "long control", "close"],
)
def test_what_ends_it(data: bytes, code: int) -> None:
    with pytest.raises(WebSocketEnded) as ended:
        opened().feed(data)
    assert ended.value.last == b"\x88\x02" + code.to_bytes(2, "big")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"GOT"),
        (b"13", b"12"),
        (b", mqtt", b""),
        (b"Upgrade: websocket\r\n", b""),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="),
        (b"/mqtt", b"/" + b"x" * 9_000),
    ],
)
def test_requests_that_are_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(WebSocketEnded) as ended:
        web = WebSocket()
        for at in range(0, 10_000, 4_000):
            web.feed(REQUEST.replace(old, new, 1)[at : at + 4_000])
    assert ended.value.last.startswith(b"HTTP/1.1 400 ")


def test_frames_that_are_sent() -> None:
    assert [frame(b"x" * size)[:4] for size in (0, 125, 126, 65_536)] == [
        b"\x82\x00",
        b"\x82\x7dxx",
        b"\x82\x7e\x00\x7e",
        b"\x82\x7f\x00\x00",
    ]


@on_a_loop
async def test_one_port_for_both() -> None:
    async with site(websocket=True) as running:
        plain = await running.connect("plain")
        web = await running.open()
        web.writer.write(REQUEST + masked(encode(Connect("web")) + encode(publish(1))))
        async with asyncio.timeout(5):
            await web.reader.readuntil(b"\r\n\r\n")
            assert await web.reader.readexactly(6) == b"\x82\x04\x20\x02\x00\x00"
            assert await web.reader.readexactly(6) == b"\x82\x04\x40\x02\x00\x01"
            web.writer.write(masked(b"text", 1))
            assert await web.reader.read() == b"\x88\x02\x03\xeb"
        plain.send(publish(2))
        await plain.next()
        assert running.recorder.queries() == ["e=pv&n=1", "e=pv&n=2"]


@on_a_loop
async def test_off_it_is_no_mqtt() -> None:
    async with site() as running:
        web = await running.open()
        web.writer.write(REQUEST)
        assert await web.next() is None
