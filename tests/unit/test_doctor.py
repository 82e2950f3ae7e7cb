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
from protocol.seams import PermanentError, RawPayload
from spoorway import building
from spoorway.cli import main
from spoorway.commands import doctor
from spoorway.config import Settings, load
from spoorway.erasures import asked_file
from spoorway.files import replaying_file, write_json
from spoorway.loader import Loader
from storage.objects.folder import FolderObjects


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


def test_a_replay_that_was_cut_short_is_wrong_and_its_next_step_is_told(
    found: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    write(found, 2)
    stored(found, 10)
    write_json(replaying_file(found.data, "sqlite"), {"from": "archive"})
    code, findings = told(found, capsys)
    state, message = findings["replay of sqlite"]
    assert (code, state) == (1, "wrong") and "run it again, or `spoorway restore FILE`" in message


def test_an_erasure_that_is_not_finished_is_told(found: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    write(found, 2)
    stored(found, 10)
    assert "erasures" not in told(found, capsys)[1]
    asked = asked_file(found.data, "20260101T000000-0a1b2c3d")
    asked.parent.mkdir()
    asked.write_text("{}")
    code, findings = told(found, capsys)
    state, message = findings["erasures"]
    assert (code, state) == (0, "warning") and "`spoorway erase --resume`" in message and str(asked) in message


@pytest.mark.parametrize("below", [".", "lake", "lake/deeper"])
def test_a_folder_of_objects_cannot_lie_below_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file.parquet").write_text("")
    with pytest.raises(PermanentError, match=r"file\.parquet.*: Not a directory"):
        next(FolderObjects(tmp_path / "file.parquet" / below).list("commits/"), None)
    assert next(FolderObjects(tmp_path / "missing" / below).list("commits/"), None) is None


def test_where_no_target_can_be_claimed_one_line_says_so(found: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    write(found, 2)
    (found.data / "cursors").write_text("")
    config = ["--config", str(found.data.parent / "spoorway.toml")]
    for command in (["restore", "copy.db"], ["replay"]):
        assert main([*command, *config]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"spoorway: target sqlite: it cannot be claimed in {found.data / 'cursors'}: ")
