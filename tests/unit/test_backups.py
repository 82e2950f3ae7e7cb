"""Backups that are never written over, and restores that change nothing when they cannot be done."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.files import FileReader, FileWriter, Options
from gateway.journal.lanes import lanes
from protocol.persons import Person
from protocol.seams import ConfigurationError, PermanentError, RawPayload
from spoorway import building, erasing
from spoorway.backups import backup, restore
from spoorway.config import Settings, load
from spoorway.erasing import Erasing
from spoorway.files import cursor_file, read_cursor, replaying_file, write_json
from spoorway.loader import Loader

SMALL = Options(segment_bytes=600, min_free_bytes=0)


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Settings]:
    file = tmp_path / "spoorway.toml"
    file.write_text(f'data = "{tmp_path / "data"}"\n')
    yield load(file, {}, {})


def write(found: Settings, numbers: range) -> None:
    async def run() -> None:
        writer = FileWriter.open(found.data / "journal", SMALL)
        for n in numbers:
            await writer.append(RawPayload(f"{n:032x}", 1_700_000_000_000 + n, "http", "/i", f"e=pv&p=web&tv=t&uid=u-{n}"))
        await writer.close()

    asyncio.run(run())


def loaded(found: Settings) -> list[str]:
    """Loads what there is; the users that are stored."""
    (instance,) = found.targets()
    target = building.open_target(found, instance)
    reader = FileReader(found.data / "journal")
    loader = Loader(instance.name, reader, building.pipeline(found, remember=False), target, building.now_ms)
    while loader.step():
        pass
    reader.close()
    target.close()
    with closing(sqlite3.connect(store(found))) as db:
        return [user for (user,) in db.execute("SELECT user_id FROM events ORDER BY rowid")]


def store(found: Settings) -> Path:
    return found.data / "events.db"


def back(found: Settings, copy: Path, **options: bool) -> dict[str, Any]:
    return restore(found, "sqlite", copy, store(found), partial=options.get("partial", False))


def nothing(copied: int, pages: int) -> None:
    """No progress is shown."""


def test_a_restored_store_catches_up_from_the_journal(found: Settings, tmp_path: Path) -> None:
    write(found, range(5))
    loaded(found)
    assert backup(store(found), tmp_path / "copy.db", nothing) == {"events": 5, "failed": 0}
    write(found, range(5, 9))
    everything = loaded(found)
    report = back(found, tmp_path / "copy.db")
    assert (report["events"], report["payloads_to_load_from_the_journal"], report["erase_again"]) == (5, 4, [])
    # Retention must not believe what the lost store had.
    ((lane, position),) = (read_cursor(cursor_file(found.data, "sqlite")) or {}).items()
    assert position.sequence == 5 and lane == lanes(found.data / "journal")[0].name
    assert loaded(found) == everything == [f"u-{n}" for n in range(9)]


def test_a_copy_is_one_file_that_is_never_written_over(found: Settings, tmp_path: Path) -> None:
    write(found, range(3))
    loaded(found)
    folder = tmp_path / "copies"
    folder.mkdir()
    backup(store(found), folder / "copy.db", nothing)
    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    assert (folder / "copy.db").stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigurationError, match="exists already"):
        backup(store(found), folder / "copy.db", nothing)
    with pytest.raises(ConfigurationError, match="No such file"):
        backup(store(found), folder / "nowhere" / "copy.db", nothing)
    with pytest.raises(ConfigurationError, match="there is no"):
        backup(tmp_path / "nothing.db", folder / "other.db", nothing)


def test_what_is_no_whole_backup_changes_nothing(found: Settings, tmp_path: Path) -> None:
    write(found, range(200))
    loaded(found)
    copy = tmp_path / "copy.db"
    backup(store(found), copy, nothing)
    before = store(found).read_bytes()
    torn, foreign, text, fewer = (tmp_path / name for name in ("torn.db", "foreign.db", "text.db", "fewer.db"))
    torn.write_bytes(copy.read_bytes()[:-20_480])
    with closing(sqlite3.connect(foreign)) as db, db:
        db.execute("CREATE TABLE events (x)")
    text.write_text("a diary")
    fewer.write_bytes(copy.read_bytes())
    with closing(sqlite3.connect(fewer)) as db, db:
        db.execute("DELETE FROM events WHERE rowid = 7")
    for path in (torn, foreign, text, fewer, tmp_path / "nowhere.db"):
        with pytest.raises((PermanentError, ConfigurationError)):
            back(found, path)
    assert store(found).read_bytes() == before
    assert not list(found.data.glob("*.restoring*")) and not list(found.data.glob("*.before-*"))


def test_a_gap_between_the_copy_and_the_journal_is_refused(found: Settings, tmp_path: Path) -> None:
    write(found, range(20))
    loaded(found)
    copy = tmp_path / "copy.db"
    backup(store(found), copy, nothing)
    write(found, range(20, 40))
    journal = found.data / "journal"
    erasing.seal(journal, erasing.ends(journal), found, lambda text: None)
    (lane,) = lanes(journal)
    paths = sorted(lane.glob("*.gz"))
    held = {path: path.read_bytes() for path in paths}
    for path in paths[: len(paths) // 2]:
        path.unlink()
    back(found, copy)  # what is gone, the copy holds
    for path, data in held.items():
        path.write_bytes(data)
    for path in paths[: len(paths) // 2 + 2]:
        path.unlink()
    with pytest.raises(ConfigurationError, match=r"retention has deleted .* payloads"):
        back(found, copy)
    assert back(found, copy, partial=True)["events"] == 20


def test_a_copy_of_another_journal_is_refused(found: Settings, tmp_path: Path) -> None:
    write(found, range(3))
    loaded(found)
    backup(store(found), tmp_path / "copy.db", nothing)
    (lane,) = lanes(found.data / "journal")
    lane.rename(lane.with_name("0123abcd"))
    with pytest.raises(ConfigurationError, match="another journal"):
        back(found, tmp_path / "copy.db")


def test_whom_an_older_copy_brings_back_is_told(found: Settings, tmp_path: Path) -> None:
    write(found, range(3))
    loaded(found)
    backup(store(found), tmp_path / "before.db", nothing)
    receipt = Erasing.begin(found, Person(user=frozenset({"u-1"})), building.now_ms(), lambda text: None).run()
    backup(store(found), tmp_path / "after.db", nothing)
    assert back(found, tmp_path / "before.db")["erase_again"] == [receipt.id]
    assert back(found, tmp_path / "after.db")["erase_again"] == []
    assert loaded(found) == ["u-0", "u-2"]


def test_no_kept_store_is_replaced_by_the_next(found: Settings, tmp_path: Path) -> None:
    write(found, range(3))
    loaded(found)
    backup(store(found), tmp_path / "copy.db", nothing)
    kept: list[str] = []
    for number in range(4):  # within one second
        with closing(sqlite3.connect(store(found))) as db, db:
            db.execute("UPDATE events SET user_id = ?", (f"kept-{number}",))
        kept += [path for path in back(found, tmp_path / "copy.db")["kept_before"] if not path.endswith(("-wal", "-shm"))]
    assert len(set(kept)) == 4
    for number, path in enumerate(kept):
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT DISTINCT user_id FROM events").fetchall() == [(f"kept-{number}",)]


def test_a_restored_store_takes_the_place_of_one_whose_replay_was_cut_short(found: Settings, tmp_path: Path) -> None:
    write(found, range(5))
    loaded(found)
    backup(store(found), tmp_path / "copy.db", nothing)
    write(found, range(5, 9))
    cut_short = replaying_file(found.data, "sqlite")
    write_json(cut_short, {"from": "archive"})
    with pytest.raises(ConfigurationError):
        back(found, tmp_path / "nowhere.db")
    assert cut_short.exists()
    back(found, tmp_path / "copy.db")
    assert not cut_short.exists()
    assert loaded(found) == [f"u-{n}" for n in range(9)]
