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
