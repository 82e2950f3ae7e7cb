"""When a gateway calls itself unready, and that it does not stay so because nobody asks it any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.journal import JournalFull
from protocol.seams import RawPayload
from spoorway.config import load
from spoorway.intake import Intake

PAYLOAD = RawPayload("0" * 32, 1, "http", "/i", query="e=pv")


def test_a_full_journal_is_told_and_after_a_while_somebody_is_let_through_to_find_out(tmp_path: Path) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(
        f'data = "{tmp_path / "data"}"\n[journal]\nmin_free_bytes = {1 << 62}\n[gateway.transports.http]\nenabled = false\n'
    )
    now_s = 100.0

    async def live() -> None:
        nonlocal now_s
        intake = Intake(load(file, {}, {}), lambda: now_s)
        await intake.start()
        accept = intake._accepting()
        try:
            assert intake.unready() == ""
            for _ in range(2):  # a second refusal counts as the first did
                with pytest.raises(JournalFull):
                    await accept(PAYLOAD)
                assert "bytes are free" in intake.unready()
                now_s += 14
                assert "bytes are free" in intake.unready()
                now_s += 2
                assert intake.unready() == ""
        finally:
            await intake.stop()

    asyncio.run(live())
