"""`spoorway erase` as it is typed: what it asks before, what it refuses, what it says when it was cut short."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.schemas import bundled
from protocol.seams import Position
from spoorway.cli import main
from spoorway.files import journal_folder
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Of a gateway that has stored nothing yet."""
    folder = tmp_path / "data"
    journal_folder(folder).mkdir(parents=True)
    target = Plugin(Config(str(folder / "events.db")), bundled)
    target.commit(Batch([], [], {"lane": Position(1, 9, 1)}, 1))
    target.close()
    return folder


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Standard input is a terminal where this is typed."""
    keyboard, terminal = os.openpty()

    def type_in(text: str) -> None:
        os.write(keyboard, text.encode())

    with os.fdopen(terminal, encoding="utf-8") as screen:
        monkeypatch.setattr("sys.stdin", screen)
        yield type_in
    os.close(keyboard)


def receipts(data: Path) -> list[Path]:
    return sorted((data / "erasures").glob("*.json"))


@pytest.mark.parametrize("answer", ["y\n", "Y\n", "yes\n", " YES \n"])
def test_who_says_yes_means_it(data: Path, typed: Callable[[str], None], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    typed(answer)
    assert main(["erase", "--user", "u-1", "--data", str(data)]) == 0
    assert "erase everything of u-1? [y/N] " in capsys.readouterr().err
    assert len(receipts(data)) == 1


@pytest.mark.parametrize("answer", ["n\n", "\n", "yep\n", "\x04"], ids=["no", "empty", "unclear", "ctrl_d"])
def test_anything_else_erases_nothing_and_says_so(
    data: Path, typed: Callable[[str], None], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(answer)
    assert main(["erase", "--user", "u-1", "--data", str(data)]) == 1
    assert capsys.readouterr().err.endswith("spoorway: nothing was erased\n")
    assert receipts(data) == []


def test_without_a_terminal_it_must_be_said(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/null").open(encoding="utf-8") as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert main(["erase", "--user", "u-1", "--data", str(data)]) == 1
        assert capsys.readouterr().err == "spoorway: erase: it cannot be taken back; say --yes\n"
        assert receipts(data) == []
        assert main(["erase", "--user", "u-1", "--data", str(data), "--yes"]) == 0


def test_what_is_open_is_resumed_or_not_at_all(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["erase", "--resume", "--dry-run", "--data", str(data)])
    assert refused.value.code == 2
    assert "--dry-run: not allowed with argument --resume" in capsys.readouterr().err


def test_an_erasure_that_failed_says_that_it_is_open_and_how_to_go_on(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "memory.db").write_bytes(b"no database at all" * 100)
    for how in (["--device", "kitchen", "--yes"], ["--resume"]):
        assert main(["erase", *how, "--data", str(data)]) == 1
        (asked,) = (data / "erasures").glob("*.asked")
        still_open, cause = capsys.readouterr().err.splitlines()[-2:]
        assert still_open == f"spoorway: erasure {asked.stem} is still open; `spoorway erase --resume` goes on with it"
        assert cause.startswith(f"spoorway: {data / 'memory.db'}: ")
    (data / "memory.db").unlink()
    assert main(["erase", "--resume", "--data", str(data)]) == 0
    assert not list((data / "erasures").glob("*.asked"))
    assert len(receipts(data)) == 1


@pytest.mark.parametrize("how", [["--user", "u-1", "--yes"], ["--user", "u-1", "--dry-run"], ["--resume"]])
def test_a_data_folder_that_is_mistyped_is_no_proof(tmp_path: Path, how: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["erase", *how, "--data", str(tmp_path / "typo")]) == 1
    assert capsys.readouterr().err.startswith(f"spoorway: there is no {tmp_path / 'typo'} yet")
    assert not (tmp_path / "typo").exists()


def test_where_it_cannot_write_nothing_is_begun(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the folder should be: of what is forbidden root hears nothing."""
    (data / "erasures").touch()
    assert main(["erase", "--user", "u-1", "--yes", "--data", str(data)]) == 1
    assert capsys.readouterr().err.startswith(f"spoorway: erase: cannot write in {data / 'erasures'}: ")
