"""Damaged, hostile and half input for every decoder: nothing raises, nothing grows, how it is split changes nothing.

Inputs are mutated from good ones, seeded, and those that a decoder answers in a new way are mutated further.

    python -m tests.faults.fuzz --inputs 1000000 --seed 1 serial mqtt
    python -m tests.faults.fuzz --guided 60 serial          # by coverage, where Atheris is installed: pip install atheris
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
LONGEST_INPUT = 3_000
_POOL = 400
_INTERESTING = (b"\0", b"\xff", b"\n", b"\r\n", b"*", b":", b",", b"@", b"!", b"\x7f", b"\x80", b"0", b"4294967296", b"\xff" * 4)


class Found(Exception):
    """An input that a decoder does not stand."""


# Decodes an input that arrives in these pieces; gives what kind of answer that was. Raises anything at all when it is broken.
Run = Callable[[Sequence[bytes]], Hashable]


@dataclass
class Target:
    corpus: list[bytes]
    run: Run
    words: tuple[bytes, ...] = ()


def serial() -> Target:
    from protocol.lines import Damaged, Line, Text, decode, device_lines, encode

    corpus = [case["text"].encode() + b"\n" for case in _vectors("serial/lines.json")]
    corpus += [case["stream"].encode("latin-1") for case in _vectors("serial/streams.json")]

    def run(pieces: Sequence[bytes]) -> Hashable:
        items = _fed(device_lines(512), pieces)
        for item in items:
            assert isinstance(item, Line | Text | Damaged)
            if isinstance(item, Line):
                assert decode(encode(item)[:-1]) == item
            else:
                assert len(item.data) <= 512 + 256
        return tuple((type(item).__name__, getattr(item, "reason", ""), getattr(item, "kind", "")) for item in items[:4])

    return Target(corpus, run, (b"@q,uno,1,2:", b"@j,", b"*29b1\n", b"@h,a:b,4294967295,1:*"))


def answers() -> Target:
    from protocol.lines import Answer, Damaged, Text, decode_answer, encode_answer, gateway_lines

    def run(pieces: Sequence[bytes]) -> Hashable:
        items = _fed(gateway_lines(256), pieces)
        for item in items:
            assert isinstance(item, Answer | Text | Damaged)
            if isinstance(item, Answer):
                assert decode_answer(encode_answer(item)[:-1]) == item
        return tuple((type(item).__name__, getattr(item, "reason", "")) for item in items[:4])

    return Target([case["text"].encode() + b"\n" for case in _vectors("serial/answers.json")], run, (b"!n,,,", b"!a,1,1", b"!t,"))


def mqtt() -> Target:
    from gateway.mqtt import packets
    from gateway.mqtt.packets import Connect, Disconnect, Publish, Reader, Subscribe, encode

    corpus: list[bytes] = []
    for version in (packets.V311, packets.V5):
        hello = encode(Connect("uno-1", version=version, user="uno-1", password=b"secret"))
        corpus += [
            hello + encode(Publish("spoorway/uno-1/tp1", b"e=pv", 1, 7), version),
            hello + encode(Subscribe(3, (("spoorway/uno-1/down", 1),)), version) + encode(packets.Ping(), version),
            hello + encode(Publish("a/b", b"x" * 300, 2, 8), version) + encode(Disconnect(), version),
        ]

    def run(pieces: Sequence[bytes]) -> Hashable:
        reader = Reader(1_000)
        found: list[object] = []
        for piece in pieces:
            found += reader.feed(piece)
            while more := reader.feed(b""):
                found += more
            assert reader.kept <= 1_000 + 5, "keeps more than a packet"
        return (*(type(each).__name__ for each in found[:8]), str(reader.fault)[:24])

    return Target(corpus, run, (b"\x10", b"\x00\x04MQTT\x05", b"\x82\x08", b"\xff\xff\xff\x7f", b"\x26\x00\x01a\x00\x01b"))


def websocket() -> Target:
    from gateway.mqtt.websocket import WebSocket, WebSocketEnded

    head = (
        b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    frame = b"\x82\x85mask" + bytes(a ^ b for a, b in zip(b"hello", b"maskm", strict=True))

    def run(pieces: Sequence[bytes]) -> Hashable:
        socket, found = WebSocket(), b""
        try:
            for piece in pieces:
                found += socket.feed(piece)
        except WebSocketEnded as end:
            return "ended", end.last[:20]
        return len(found).bit_length(), socket.out[:20]

    return Target([head + frame, head + frame * 3 + b"\x89\x80mask\x88\x80mask"], run, (b"\x82\xfe", b"\x82\xff", b"\x89\x80"))


def compact() -> Target:
    from protocol.compact import Reading, Refused, decode, encode, split
    from protocol.templates import bundled, bundled_template

    corpus: list[bytes] = []
    for template in bundled().values():
        data = {each.name: 1 for each in template.fields if not each.values}
        for more in ({}, {"device": "uno-1"}, {"sealed_by": ("uno-1", bytes(32))}, {"earlier": True}):
            try:
                corpus.append(encode(template, [(5, data), (900, data)], 7, 1, 1_000, **more))
            except (ValueError, KeyError, TypeError):
                continue  # a template whose fields are no plain numbers
    assert corpus

    def run(pieces: Sequence[bytes]) -> Hashable:
        whole = b"".join(pieces)
        found = decode(whole, bundled_template)
        assert len(found) <= 255 * max(1, len(split(whole)))
        assert all(isinstance(each, Reading | Refused) for each in found)
        return tuple(each.keyword if isinstance(each, Refused) else "reading" for each in found[:6])

    return Target(corpus, run, (b"\xc0", b"\xc8", b"\xff\xff\xff\xff\x0f"))


def journal() -> Target:
    from gateway.journal.lines import decode, encode, pieces
    from protocol.seams import RawPayload

    line = encode(RawPayload("0" * 32, 1, "http", "/i", "e=pv", None, None, (("A", "b"),)), 1)

    def run(parts: Sequence[bytes]) -> Hashable:
        data = b"".join(parts)
        found = list(pieces(data, True))
        assert b"".join(data[a:b] for a, b, _ in found) == data, "bytes went missing"
        for start, end, good in found:
            if good:
                decode(data[start:end])
        return tuple(good for _, _, good in found[:8])

    return Target([line, line * 3], run, (b'{"crc":"', b"\n"))


TARGETS: dict[str, Callable[[], Target]] = {made.__name__: made for made in (serial, answers, mqtt, websocket, compact, journal)}


def _vectors(name: str) -> Iterable[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((VECTORS / name).read_text("utf-8"))["cases"]
    return cases


def _fed(deframer: Any, pieces: Sequence[bytes]) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        found += deframer.feed(piece)
        assert len(deframer._rest) + len(deframer._head) <= deframer._longest + 1 + 256, "keeps more than a line"
    return found + deframer.end()


@dataclass
class Mutator:
    """Good inputs -> bad ones. Keeps those that were answered in a new way, to go on from them."""

    chance: random.Random
    pool: list[bytes]
    words: tuple[bytes, ...]
    seen: set[Hashable] = field(default_factory=set[Hashable])

    def next(self) -> bytes:
        chance = self.chance
        data = bytearray(chance.choice(self.pool))
        for _ in range(1 + int(chance.expovariate(0.5))):
            at, to = chance.randint(0, len(data)), chance.randint(0, len(data))
            match chance.randrange(9):
                case 0 if data:
                    data[at - 1] ^= 1 << chance.randrange(8)
                case 1 if data:
                    data[at - 1] = chance.randrange(256)
                case 2:
                    data[at:at] = chance.choice(_INTERESTING)
                case 3 if self.words:
                    data[at:at] = chance.choice(self.words)
                case 4:
                    del data[min(at, to) : max(at, to)]
                case 5:
                    del data[at : at + chance.randint(1, 8)]
                case 6:
                    data[at:at] = data[min(at, to) : max(at, to)] * chance.choice((1, 1, 2, 9))
                case 7:
                    other = chance.choice(self.pool)
                    data[at:] = other[chance.randint(0, len(other)) :]
                case _:
                    data[at:at] = chance.randbytes(chance.choice((1, 4, 30)))
            if len(data) > LONGEST_INPUT:
                del data[LONGEST_INPUT:]
        return bytes(data)

    def learn(self, data: bytes, answer: Hashable) -> None:
        if answer in self.seen or len(self.seen) > 100_000:
            return
        self.seen.add(answer)
        if len(self.pool) < _POOL:
            self.pool.append(data)
        else:
            self.pool[self.chance.randrange(_POOL)] = data


def fuzz(name: str, inputs: int, seed: int, progress: Callable[[int], object] = lambda done: None) -> int:
    """How many kinds of answers there were. Raises Found with the input."""
    target = TARGETS[name]()
    chance = random.Random(seed)
    mutator = Mutator(chance, list(target.corpus), target.words)
    for data in target.corpus:
        mutator.learn(data, _checked(name, target, data, chance))
    for done in range(inputs):
        data = mutator.next()
        mutator.learn(data, _checked(name, target, data, chance))
        if done % 5_000 == 0:
            progress(done)
    return len(mutator.seen)


def _checked(name: str, target: Target, data: bytes, chance: random.Random) -> Hashable:
    cuts = sorted(chance.randrange(len(data)) for _ in range(chance.choice((1, 2, 5)))) if data else []
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    try:
        whole = target.run([data])
        split = target.run(pieces)
    except Exception as error:
        raise Found(f"{name}: {type(error).__name__}: {error}\n  input {data!r}\n  cut at {cuts}") from error
    if whole != split:
        raise Found(f"{name}: cut at {cuts} it is {split!r}, not {whole!r}\n  input {data!r}")
    return whole


def guided(name: str, seconds: int) -> None:
    """By coverage; ends the process. Raises ImportError where Atheris is not installed."""
    import atheris  # type: ignore[import-not-found]  # not needed by `make test`

    with atheris.instrument_imports(include=["protocol", "gateway"]):
        target = TARGETS[name]()

    def one(data: bytes) -> None:
        if data:
            cut = data[0] % len(data)
            assert target.run([data]) == target.run([data[:cut], data[cut:]])

    folder = Path(f"/tmp/spoorway-fuzz-{name}")
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(target.corpus):
        (folder / f"seed-{number}").write_bytes(data)
    options = (f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", "-print_final_stats=1")
    atheris.Setup([sys.argv[0], str(folder), *options], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", metavar="TARGET", nargs="*", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--guided", metavar="SECONDS", type=int, help="one target, by coverage, with Atheris")
    args = parser.parse_args()
    names = args.targets or list(TARGETS)
    if wrong := set(names) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(wrong))}; there are {', '.join(TARGETS)}")
    if args.guided:
        guided(names[0], args.guided)
    for name in names:
        began = time.monotonic()

        def progress(done: int, name: str = name) -> None:
            if sys.stderr.isatty():
                print(f"\r{name}: {done:,} of {args.inputs:,}", end="", file=sys.stderr)

        try:
            kinds = fuzz(name, args.inputs, args.seed, progress)
        except Found as found:
            print(f"\nseed {args.seed}: {found}", file=sys.stderr)
            return 1
        print(f"\r{name}: {args.inputs:,} inputs, {kinds:,} kinds of answers, nothing broke ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
