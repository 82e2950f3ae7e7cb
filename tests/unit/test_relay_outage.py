"""A week without the upstream: the journal is the queue, and what comes out of it afterwards is what went in, once."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.payloads import from_json
from protocol.seams import RawPayload, TransientError
from spoorway.loader import Loader
from tests.unit.relay_bench import NOW_MS, Bench, Seen, benched, said, taken

WEEK_S = 7 * 86_400
PAYLOADS = 4_000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with benched(tmp_path) as made:
        yield made


def payload_of(number: int) -> RawPayload:
    at = NOW_MS + number * WEEK_S * 1000 // PAYLOADS
    return RawPayload(f"{number:032x}", at, "mqtt", "/i", query=f"e=pv&n={number}", body=b"x" * 2_000, device="greenhouse")


def fill(folder: Path) -> None:
    async def write() -> None:
        writer = FileWriter.open(folder, Options(segment_bytes=1 << 20))
        await asyncio.gather(*(writer.append(payload_of(number)) for number in range(PAYLOADS)))
        await writer.close()

    asyncio.run(write())


def test_a_week_of_outage_costs_neither_events_nor_memory(bench: Bench, tmp_path: Path) -> None:
    fill(tmp_path / "journal")
    arrived: list[str] = []
    strange: list[str] = []

    def answer(request: Seen) -> bytes:
        if bench.time.ms < NOW_MS + WEEK_S * 1000:
            return said(503, b"", "Retry-After: 3600")
        for line in request.lines:
            payload = from_json(line)
            arrived.append(payload.id)
            strange.extend([payload.id] * (payload != payload_of(int(payload.id, 16))))
        bench.upstream.requests.clear()
        return taken(request)

    bench.upstream.answer = answer
    relay = bench.open(batch_bytes=256 << 10)
    loader = Loader("upstream", FileReader(tmp_path / "journal"), None, relay, lambda: int(bench.time.ms))
    attempts = 0
    while bench.time.ms < NOW_MS + WEEK_S * 1000:
        with pytest.raises(TransientError):
            loader.step()
        attempts += 1
        bench.time.sleep(relay.pause_s(finishing=False))
        bench.upstream.requests.clear()
    assert 140 < attempts < 170  # every hour, as it was asked
    assert (loader.status.forwarded, loader.status.pending) == (0, PAYLOADS)
    tracemalloc.start()
    try:
        while loader.step():
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (arrived, strange) == ([payload_of(number).id for number in range(PAYLOADS)], [])
    assert (loader.status.forwarded, loader.status.pending) == (PAYLOADS, 0)
    assert peak < 3 << 20, peak  # of 8 MiB that had waited; a batch is 256 KiB
