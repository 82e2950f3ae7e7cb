"""What `spoorway doctor` says of a data folder in which something goes on, or was cut short."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import pytest

from gateway.journal.files import FileWriter, Options
from gateway.journal.lanes import lanes
from gateway.journal.reader import FileReader
from protocol.seams import RawPayload
from spoorway import building
from spoorway.cli import main
from spoorway.commands import doctor
from spoorway.config import Settings, load
from spoorway.loader import Loader


@pytest.fixture
def found(tmp_path: Path) -> Settings:
    file = tmp_path / "spoorway.toml"
    file.write_text(f'data = "{tmp_path / "data"}"\n[journal]\nmin_free_bytes = 0\n')
    return load(file, {}, {})


def write(found: Settings, payloads: int) -> None:
    """So many into each of two lanes."""

    async def run() -> None:
        writers = [FileWriter.open(found.data / "journal", Options(segment_bytes=600, min_free_bytes=0)) for _ in range(2)]
        for n in range(payloads):
            for writer in writers:
                await writer.append(RawPayload(uuid.uuid4().hex, 1_700_000_000_000 + n, "http", "/i", "e=pv&p=web&tv=t"))
        for writer in writers:
            await writer.close()

    asyncio.run(run())


def stored(found: Settings, payloads: int) -> None:
    """Loads so many at most."""
    (instance,) = found.targets()
    target = building.open_target(found, instance)
    target.limits = (payloads, 1 << 20)
    reader = FileReader(found.data / "journal")
    Loader(instance.name, reader, building.pipeline(found, remember=False), target, building.now_ms).step()
    reader.close()
    target.close()


def told(found: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[str, str]]]:
    """Its exit code, and (state, message) by check."""
    capsys.readouterr()
    code = main(["doctor", "--json", "--config", str(found.data.parent / "spoorway.toml")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {line["check"]: (line["state"], line["message"]) for line in lines}


@pytest.mark.parametrize("before", [0, 7, 13])
def test_the_account_holds_while_payloads_arrive_and_are_loaded(
    found: Settings, before: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(found, 10)
    stored(found, max(1, before))

    class Growing(doctor.Progress):
        """Each time the journal is to be counted, it has grown, and some of it was loaded."""

        def __init__(self, label: str, total: int) -> None:
            super().__init__(label, total)
            write(found, 4)
            stored(found, 5)

    monkeypatch.setattr(doctor, "Progress", Growing)
    code, findings = told(found, capsys)
    assert len(lanes(found.data / "journal")) == 2
    assert findings["identity"][0] == "ok", findings["identity"]
    had = max(1, before)
    assert findings["identity"][1] == f"accepted 20 = stored {had} + failed 0 + duplicate 0 + pending {20 - had}"
    assert code == 0
