"""A gateway that only archives: no target is needed, and the journal lets go of what the archive has."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.journal.options import Options
from gateway.journal.writer import FileWriter
from protocol.seams import Position, RawPayload
from spoorway import intake
from spoorway.config import load
from spoorway.files import archive_file, cursor_file, journal_folder, write_archived, write_cursor
from spoorway.intake import Intake
from spoorway.loading import Loading


@pytest.mark.parametrize("archived", [True, False], ids=["archived", "not archived"])
def test_retention_goes_by_the_archive_where_there_is_no_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archived: bool
) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(
        f'data = "{tmp_path / "data"}"\n[retention]\njournal_bytes = 1\n[archive]\nurl = "{tmp_path / "store"}"\n'
        "[storage.targets.sqlite]\nenabled = false\n[gateway.transports.http]\nenabled = false\n"
        "[journal]\nmin_free_bytes = 0\nsegment_bytes = 2000\n"
    )
    settings = load(file, {}, {})

    async def fill() -> None:
        writer = FileWriter.open(journal_folder(settings.data), Options(min_free_bytes=0, segment_bytes=2_000))
        for number in range(4):
            await writer.append_all([RawPayload(f"{number:016x}{n:016x}", 1, "http", "/i", query="x" * 200) for n in range(8)])
        await writer.close()

    async def one_round() -> None:
        made = Intake(settings)
        rounds: list[float | None] = []

        def wait(timeout: float | None = None) -> bool:
            rounds.append(timeout)
            return len(rounds) > 2 and bool(timeout)

        monkeypatch.setattr(made._ending, "wait", lambda timeout=None: wait(timeout) if timeout == intake._ROUND_S else False)
        await made.start()
        await asyncio.to_thread(made._keeping.join, 60)
        await made.stop()

    asyncio.run(fill())
    asyncio.run(one_round())  # seals
    if archived:
        loading = Loading(settings, supervised=False)
        assert loading.archiving is not None and loading.loaders == []
        assert loading.archiving.step(threading.Event()) == 4
    asyncio.run(one_round())
    left = len(list(journal_folder(settings.data).rglob("*.gz")))
    assert left == (1 if archived else 4)


def test_what_neither_targets_nor_the_archive_lack_is_not_handed_over_to_a_journal_on_servers(tmp_path: Path) -> None:
    """Who goes from files to Kafka with an archive: what is not archived yet goes there too, and is archived from there."""
    file = tmp_path / "spoorway.toml"
    file.write_text(
        f'data = "{tmp_path / "data"}"\n[archive]\nurl = "{tmp_path / "store"}"\n[journal.kafka]\nbrokers = ["127.0.0.1:1"]\n'
        "[gateway.transports.http]\nenabled = false\n"
    )
    settings = load(file, {}, {})
    loaded = {"0a0b0c0d": Position(3, 0, 30), "1a1b1c1d": Position(2, 0, 20)}
    write_cursor(cursor_file(settings.data, "sqlite"), loaded)
    assert Intake(settings)._begun() == {}
    write_archived(archive_file(settings.data), str(tmp_path / "store"), {"0a0b0c0d": Position(2, 50, 25)})
    assert Intake(settings)._begun() == {"0a0b0c0d": Position(2, 50, 25)}
