"""What becomes of a line: whose it is, what payload it makes, what its device is answered; with the real register of devices."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from gateway.devices import Secrets
from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from gateway.devices.register import Register
from gateway.serial.config import Config, Port, Settled, settled
from gateway.serial.conversation import Conversation
from gateway.serial.counters import Counters
from protocol.compact import encode as encode_frame
from protocol.devices import COMPACT_PATH, TP1_PATH, TP2_PATH
from protocol.lines import Answer, Damaged, Kind, Line, decode_answer, encode_answer, signed
from protocol.seams import ConfigurationError, RawPayload, TransientError
from protocol.templates import bundled

NOW_MS = 1_768_471_205_000
QUERY = b"e=se&se_ca=door&se_ac=open&p=iot&tv=x"


class Site:
    """A conversation with a journal that takes everything, nothing (full), or when it is told to (slow)."""

    def __init__(self, devices: Register | None = None, bound: str = "", damaged_per_minute: int = 6) -> None:
        self.taken: list[RawPayload] = []
        self.full = False
        self.slow: asyncio.Event | None = None
        self.now_s = 0.0
        self.counters = Counters()
        ids = count()
        self.conversation = Conversation(
            "/dev/ttyUSB0",
            bound,
            damaged_per_minute,
            self._accept,
            devices,
            self.counters,
            lambda: NOW_MS,
            lambda: f"{next(ids):032x}",
            lambda: self.now_s,
        )

    async def _accept(self, payload: RawPayload) -> None:
        if self.slow is not None:
            await self.slow.wait()
        if self.full:
            raise TransientError("full")
        self.taken.append(payload)

    async def says(self, item: Line | Damaged) -> list[Answer | Damaged]:
        answer = await self.conversation.answer(item)
        return [decode_answer(line) for line in answer.splitlines()]


def line(sequence: int = 1, kind: Kind = "q", body: bytes = QUERY, device: str = "uno-1", boot: int = 7) -> Line:
    return Line(kind, device, boot, sequence, body)


def ran(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (line(), ("serial", TP1_PATH, QUERY.decode(), None, None)),
        (line(body="ort=Gewächs haus".encode()), ("serial", TP1_PATH, "ort=Gew%C3%A4chs haus", None, None)),
        (line(kind="j", body=b"{}"), ("serial", TP2_PATH, "", b"{}", "application/json")),
        (line(kind="c", body=b"wQFA_-8"), ("serial", COMPACT_PATH, "", b"\xc1\x01@\xff\xef", None)),
    ],
)
def test_kind_says_where_a_body_goes(said: Line, expected: tuple[object, ...]) -> None:
    async def test() -> None:
        site = Site()
        assert await site.says(said) == [Answer("a", 7, 1)]
        (payload,) = site.taken
        assert (payload.transport, payload.path, payload.query, payload.body, payload.content_type) == expected
        assert payload.headers == (("Spoorway-Device", "uno-1"), ("Spoorway-Boot", "7"), ("Spoorway-Sequence", "1"))
        assert (payload.device, payload.received_ms) == (None, NOW_MS)

    ran(test)


def test_hello_is_answered_with_the_time_and_keeps_nothing() -> None:
    async def test() -> None:
        site = Site()
        for _ in range(2):
            assert await site.says(line(kind="h", body=b"")) == [Answer("t", milliseconds=NOW_MS)]
        assert site.taken == []
        assert site.counters.lines["/dev/ttyUSB0", "hello"] == 2

    ran(test)


def test_bound_port_is_the_device_whatever_the_line_says() -> None:
    async def test() -> None:
        site = Site(bound="greenhouse")
        await site.says(line(1, device=""))
        await site.says(line(2, device="greenhouse"))
        await site.says(line(3, device="uno-1"))
        assert [payload.device for payload in site.taken] == ["greenhouse"] * 3
        assert ["Spoorway-Device" in dict(payload.headers) for payload in site.taken] == [False, False, True]

    ran(test)


def test_exact_copy_is_acknowledged_again_and_kept_once() -> None:
    async def test() -> None:
        site = Site()
        assert [await site.says(line()) for _ in range(3)] == [[Answer("a", 7, 1)]] * 3
        assert len(site.taken) == 1
        await site.says(line(body=QUERY + b"&x=1"))  # the same number for something else is no copy
        assert len(site.taken) == 2
        site.now_s = 61
        await site.says(line())  # nor is what comes so late: it may be another start of a device that does not count them
        assert len(site.taken) == 3

    ran(test)


def test_copy_that_comes_while_the_first_is_under_way_waits_for_it() -> None:
    async def test() -> None:
        site = Site()
        site.slow = asyncio.Event()
        both = [site.conversation.answer(line()), site.conversation.answer(line())]
        await asyncio.sleep(0)
        assert not any(task.done() for task in both)
        site.slow.set()
        assert await asyncio.gather(*both) == [encode_answer(Answer("a", 7, 1))] * 2
        assert len(site.taken) == 1

    ran(test)


def test_nothing_is_acknowledged_that_was_not_taken() -> None:
    async def test() -> None:
        site = Site()
        site.full = True
        assert await site.says(line()) == [Answer("n", 7, 1, "busy")]
        site.full = False
        assert await site.says(line()) == [Answer("a", 7, 1)]
        assert len(site.taken) == 1

    ran(test)


def test_damage_is_kept_while_there_is_little_of_it() -> None:
    async def test() -> None:
        site = Site(damaged_per_minute=2)
        crc = Damaged(b"@q,uno", "crc")
        assert [await site.says(crc) for _ in range(4)] == [[Answer("n", reason="crc")]] * 4
        assert [(payload.path, payload.body) for payload in site.taken] == [("/invalid", b"@q,uno")] * 2
        assert dict(site.taken[0].headers) == {"Spoorway-Port": "/dev/ttyUSB0", "Spoorway-Damage": "crc"}
        # A device would never send these again, so they have to be kept before it is told.
        form, large = Damaged(b"@x", "form", 7, 3), Damaged(b"@q", "large", 7, 4)
        assert await site.says(form) == [Answer("n", 7, 3, "busy")]
        site.now_s = 60
        assert await site.says(form) == [Answer("n", 7, 3, "form")]
        assert await site.says(large) == [Answer("n", 7, 4, "large")]
        assert len(site.taken) == 4
        site.now_s, site.full = 3600, True
        assert await site.says(form) == [Answer("n", 7, 3, "busy")]

    ran(test)


def test_body_that_is_no_base64_is_damage_of_form() -> None:
    async def test() -> None:
        site = Site()
        assert await site.says(line(kind="c", body=b"a+b/")) == [Answer("n", 7, 1, "form")]
        assert await site.says(line(2, kind="c", body=b"abcde")) == [Answer("n", 7, 2, "form")]
        assert [payload.path for payload in site.taken] == ["/invalid"] * 2

    ran(test)


# With a register ------------------------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> bytes:
    issuer = Issuer(tmp_path, lambda: NOW_MS, make=True)
    slow = Limits(payloads_per_s=0.1)
    (secrets,), _ = issuer.add(["uno-1"], "hmac", Limits()), issuer.add(["slow-1"], "hmac", slow)
    issuer.close()
    assert isinstance(secrets, Secrets)
    return bytes.fromhex(secrets.key)


def with_register(data: Path, test: Callable[[Register], Awaitable[None]]) -> None:
    async def run() -> None:
        register = Register(data)
        await register.start()
        try:
            await test(register)
        finally:
            await register.stop()

    asyncio.run(run())


def test_signature_proves_the_device_once(tmp_path: Path, key: bytes) -> None:
    async def test(register: Register) -> None:
        site = Site(register)
        said = signed(line(), key)
        assert [await site.says(said) for _ in range(3)] == [[Answer("a", 7, 1)]] * 3
        (payload,) = site.taken
        assert payload.device == "uno-1"
        names = [name for name, _ in payload.headers]
        assert len(names) == len(set(names)) and "Spoorway-Device" not in names
        assert {"Spoorway-Boot": "7", "Spoorway-Sequence": "1"}.items() <= dict(payload.headers).items()
        assert site.counters.lines["/dev/ttyUSB0", "repeated"] == 2
        assert await site.says(signed(line(body=QUERY + b"1"), key)) == [Answer("n", 7, 1, "replayed")]
        assert await site.says(signed(line(boot=6), key)) == [Answer("n", 6, 1, "replayed")]
        assert await site.says(signed(line(2), bytes(32))) == [Answer("n", 7, 2, "secret")]
        assert await site.says(signed(line(2, device="uno-9"), key)) == [Answer("n", 7, 2, "unknown")]
        assert await site.says(signed(line(2, kind="h", body=b""), key)) == [Answer("t", milliseconds=NOW_MS)]
        assert await site.says(signed(line(3, kind="h", body=b""), bytes(32))) == [Answer("n", 7, 3, "secret")]
        assert len(site.taken) == 1

    with_register(tmp_path, test)


def test_refused_by_the_journal_it_may_come_again(tmp_path: Path, key: bytes) -> None:
    async def test(register: Register) -> None:
        site = Site(register)
        site.full = True
        assert await site.says(signed(line(), key)) == [Answer("n", 7, 1, "busy")]
        site.full = False
        assert await site.says(signed(line(), key)) == [Answer("a", 7, 1)]
        assert len(site.taken) == 1

    with_register(tmp_path, test)


def test_registered_name_is_not_to_be_had_without_a_proof(tmp_path: Path, key: bytes) -> None:
    async def test(register: Register) -> None:
        site = Site(register)
        assert await site.says(line()) == [Answer("n", 7, 1, "secret")]
        assert await site.says(line(2, device="nobody")) == [Answer("a", 7, 2)]
        bound = Site(register, bound="uno-1")
        assert await bound.says(line(3)) == [Answer("a", 7, 3)]  # the cable is the proof
        assert [payload.device for payload in (*site.taken, *bound.taken)] == [None, "uno-1"]
        other = Site(register, bound="shed")
        assert await other.says(line(4)) == [Answer("n", 7, 4, "secret")]

    with_register(tmp_path, test)


def test_sealed_frames_are_their_own_proof(tmp_path: Path, key: bytes) -> None:
    template = next(iter(bundled().values()))
    data = {field.name: 1 for field in template.fields if not field.values}

    async def test(register: Register) -> None:
        site = Site(register)
        for sequence, (seal, reason) in enumerate(((("uno-1", key), ""), (("uno-1", bytes(32)), "secret"), (None, "secret")), 1):
            frame = encode_frame(template, [(5, data)], 7, sequence, 5, sealed_by=seal)
            body = urlsafe_b64encode(frame).rstrip(b"=")
            expected = Answer("n", 7, sequence, reason) if reason else Answer("a", 7, sequence)
            assert await site.says(line(sequence, kind="c", body=body)) == [expected]
        assert len(site.taken) == 1

    with_register(tmp_path, test)


def test_device_that_sends_too_fast_is_told_when(tmp_path: Path, key: bytes) -> None:
    async def test(register: Register) -> None:
        site = Site(register, bound="slow-1")
        assert await site.says(line(1, device="")) == [Answer("a", 7, 1)]
        busy, hint = await site.says(line(2, device=""))
        assert busy == Answer("n", 7, 2, "busy")
        assert isinstance(hint, Answer) and hint.kind == "r" and 1_000 < hint.milliseconds <= 10_001
        assert len(site.taken) == 1

    with_register(tmp_path, test)


@pytest.mark.parametrize(
    "config",
    [
        Config(baud=7),
        Config(window=0),
        Config(rescan_s=0),
        Config(longest_line_bytes=10),
        Config(damaged_per_minute=-1),
        Config(port={"/dev/ttyUSB0": Port(device="no name")}),
        Config(port={"/dev/ttyUSB0": Port(baud=5_000_000)}),
    ],
)
def test_mistake_in_the_options_is_refused(config: Config) -> None:
    with pytest.raises(ConfigurationError, match=r"^serial"):
        list(settled(config))


def test_options_of_a_port_win_and_the_rest_is_as_of_all() -> None:
    own = Port(device="greenhouse", baud=9600, hang_up=False)
    (pattern, options), (_, others) = settled(Config(ports=("/dev/ttyUSB*",), port={"/dev/ttyUSB0": own}))
    assert (pattern, options) == ("/dev/ttyUSB0", Settled("greenhouse", 9600, True, True, False))
    assert (others.device, others.baud, others.hang_up) == ("", 115_200, True)
