"""An erasure as a whole, cut short at every moment: it can always be finished, and the receipt counts everything once."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from threading import Event as Signal
from typing import Any

import pytest

from gateway.journal.files import FileReader, FileWriter, Options
from gateway.journal.lanes import lanes
from protocol.persons import Person
from protocol.seams import ConfigurationError, RawPayload
from spoorway import building, erasing
from spoorway.archiving import Archiving, open_archive
from spoorway.config import Settings, load
from spoorway.erasing import Erasing, would_erase
from spoorway.erasures import asked_file, folder, open_ones, receipt_file
from spoorway.files import Claim
from spoorway.housework import Housework
from spoorway.loader import Loader
from storage.archive import Archive

POST = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
SMALL = Options(segment_bytes=6_000, min_free_bytes=0)
SHE = Person(user=frozenset({"u-1"}))


class Crash(BaseException): ...


def payload(number: int) -> RawPayload:
    """Three events of three people; every fifth time the first one fails."""
    bad = {"eid": "no uuid"} if number % 5 == 0 else {}
    events = [
        {"e": "pv", "p": "web", "tv": "t", "aid": "a", "uid": f"u-{(number + n) % 4}", **(bad if n == 0 else {})}
        for n in range(3)
    ]
    body = json.dumps({"schema": POST, "data": events}).encode()
    path = "/com.snowplowanalytics.snowplow/tp2"
    return RawPayload(f"{number:032x}", 1_700_000_000_000 + number, "http", path, body=body, content_type="application/json")


def settings(tmp_path: Path, text: str = "") -> Settings:
    file = tmp_path / "spoorway.toml"
    file.write_text(f'data = "{tmp_path / "data"}"\n{text}')
    return load(file, {}, {})


def write(found: Settings, count: int = 40, first: int = 0) -> None:
    async def run() -> None:
        writer = FileWriter.open(found.data / "journal", SMALL)
        for number in range(first, first + count):
            await writer.append(payload(number))
        await writer.close()

    asyncio.run(run())


def stored(found: Settings) -> tuple[Any, Loader]:
    (instance,) = found.targets()
    target = building.open_target(found, instance)
    reader = FileReader(found.data / "journal")
    return target, Loader(instance.name, reader, building.pipeline(found, remember=False), target, building.now_ms)


def loaded(found: Settings) -> None:
    target, loader = stored(found)
    while loader.step():
        pass
    target.close()


def rows(found: Settings, sql: str) -> list[Any]:
    db = sqlite3.connect(found.data / "events.db")
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def journal_text(found: Settings) -> bytes:
    return b"".join(
        gzip.decompress(path.read_bytes()) for lane in lanes(found.data / "journal") for path in sorted(lane.glob("*.gz"))
    )


def check(found: Settings, removed: tuple[int, int]) -> None:
    """She is nowhere, everybody else is; the account holds."""
    assert b"u-1" not in journal_text(found)
    assert {user for (user,) in rows(found, "SELECT user_id FROM events")} == {"u-0", "u-2", "u-3"}
    assert "u-1" not in str(rows(found, "SELECT * FROM failed_events") + rows(found, "SELECT * FROM failed_payloads"))
    ((stored_, failed, duplicate, gone),) = rows(found, "SELECT stored, failed, duplicate, erased FROM totals")
    assert gone == sum(removed)
    assert stored_ + failed + duplicate + gone == 120
    before = rows(found, "SELECT event_id FROM events ORDER BY 1")
    target, loader = stored(found)
    target.wipe()
    loader.cursor = {}
    while loader.step():
        pass
    totals = target.totals()
    target.close()
    assert (totals.stored, totals.failed, totals.erased) == (stored_, failed, gone)
    assert rows(found, "SELECT event_id FROM events ORDER BY 1") == before


def nothing(text: str) -> None:
    """No progress is shown."""


def removed_in(receipt: erasing.Receipt) -> tuple[int, int]:
    return receipt.stores["sqlite"]["events"], receipt.stores["sqlite"]["failed"]


def test_everything_of_a_person_goes_and_the_receipt_says_what(tmp_path: Path) -> None:
    found = settings(tmp_path)
    write(found)
    loaded(found)
    before = len(rows(found, "SELECT 1 FROM events WHERE user_id = 'u-1'"))
    would = would_erase(found, SHE, building.now_ms())
    receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
    assert removed_in(receipt) == (before, 30 - before)
    assert would["journal"]["events"] == 30
    assert would["stores"]["sqlite"] == {"events": before, "failed": 30 - before}
    assert sum(one["events"] for one in receipt.journal.values()) == 30
    assert sum(one["others"] for one in receipt.journal.values()) == 0
    text = receipt_file(found.data, receipt.id).read_text()
    assert "u-1" not in text.replace(receipt.id, "") and json.loads(text)["state"] == "done"
    assert receipt.who == SHE.hashed(receipt.salt)
    names = {path.name for path in folder(found.data).iterdir()}
    assert names == {"lock", f"{receipt.id}.json"}
    check(found, removed_in(receipt))


def test_what_no_target_has_loaded_yet_never_comes(tmp_path: Path) -> None:
    found = settings(tmp_path)
    write(found, 20)
    loaded(found)
    write(found, 20, first=20)
    receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
    loaded(found)
    assert sum(removed_in(receipt)) == 15
    ((gone,),) = rows(found, "SELECT erased FROM totals")
    assert gone == 30
    check(found, (15, 15))


@pytest.mark.parametrize("archived", [False, True], ids=["journal", "archive"])
def test_cut_short_at_every_moment_it_is_finished_later(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, archived: bool
) -> None:
    """Each time that something was about to be on the medium."""
    fsync, stopped, moment = os.fsync, 0, 0
    while True:
        folder_ = tmp_path_factory.mktemp("erasing")
        found = settings(folder_, f'[archive]\nurl = "{folder_ / "archive"}"\n' if archived else "")
        write(found)
        loaded(found)
        if archived:
            erasing.seal(found.data / "journal", erasing.ends(found.data / "journal"), found, nothing)
            Archiving(found.data, open_archive(found.archive), found.archive.url, building.now_ms).step(Signal())
        left = moment

        def dies(fd: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            fsync(fd)

        monkeypatch.setattr(os, "fsync", dies)
        try:
            receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
            assert stopped > 2
            return
        except Crash:
            stopped += 1
        finally:
            monkeypatch.setattr(os, "fsync", fsync)
        begun = open_ones(found.data)
        if begun:
            receipt = Erasing.resume(found, begun[0], nothing).run()
        else:  # not even asked, or all but done
            receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
        if begun:
            assert sum(one["events"] for one in receipt.journal.values()) == 30
            assert sum(removed_in(receipt)) == 30
        assert not open_ones(found.data)
        check(found, (30, 0))
        if archived:
            held = b"".join(gzip.decompress(path.read_bytes()) for path in (folder_ / "archive").rglob("*.gz"))
            assert b"u-1" not in held and b"u-2" in held
            archive = open_archive(found.archive)
            assert [archive.wrong(entry) for entry in archive.entries()] == [""] * len(list(archive.entries()))
        moment += 11 if archived else 5


def test_segments_that_only_the_archive_has_are_rewritten_there(tmp_path: Path) -> None:
    found = settings(tmp_path, f'[archive]\nurl = "{tmp_path / "archive"}"\n')
    write(found)
    loaded(found)
    journal = found.data / "journal"
    erasing.seal(journal, erasing.ends(journal), found, nothing)
    Archiving(found.data, open_archive(found.archive), found.archive.url, building.now_ms).step(Signal())
    (lane,) = lanes(journal)
    gone = sorted(lane.glob("*.gz"))[:2]
    for path in gone:
        path.unlink()
    receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
    held = b"".join(gzip.decompress(path.read_bytes()) for path in (tmp_path / "archive").rglob("*.gz"))
    assert b"u-1" not in held and b"u-2" in held
    assert sum(one["events"] for one in receipt.archive.values()) == 30
    assert sum(removed_in(receipt)) == 30
    assert b"u-1" not in journal_text(found)


def test_the_receipt_tells_each_segments_checksum_before_and_after(tmp_path: Path) -> None:
    """Of both copies, as their bytes are: in the journal and the archive, and where only the archive has it."""
    found = settings(tmp_path, f'[archive]\nurl = "{tmp_path / "archive"}"\n')
    write(found)
    journal = found.data / "journal"
    erasing.seal(journal, erasing.ends(journal), found, nothing)
    archive = open_archive(found.archive)
    Archiving(found.data, archive, found.archive.url, building.now_ms).step(Signal())
    (lane,) = lanes(journal)
    first, *_ = sorted(lane.glob("*.gz"))
    first.unlink()

    def in_journal() -> dict[str, str]:
        return {f"{lane.name}/{path.name[:8]}": hashlib.sha256(path.read_bytes()).hexdigest() for path in lane.glob("*.gz")}

    def in_archive() -> dict[str, str]:
        """As the manifest has them, which is what lies there."""
        listed = {f"{entry.lane}/{entry.segment:08d}": entry for entry in archive.entries()}
        held = {place: (tmp_path / "archive" / entry.object).read_bytes() for place, entry in listed.items()}
        sums = {place: hashlib.sha256(body).hexdigest() for place, body in held.items()}
        assert sums == {place: entry.sha256 for place, entry in listed.items()}
        return sums

    before = in_journal(), in_archive()
    receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
    after = in_journal(), in_archive()
    assert len(before[0]) > 2 and len(before[1]) == len(before[0]) + 1
    for told, was, became in zip((receipt.journal, receipt.archive), before, after, strict=True):
        changed = {place for place in was if was[place] != became[place]}
        assert len(changed) >= 2 and told.keys() == changed
        assert {place: (one["before"], one["after"]) for place, one in told.items()} == {
            place: (was[place], became[place]) for place in changed
        }


@pytest.mark.parametrize("let_go", [0, 2], ids=["in both", "in the archive alone"])
@pytest.mark.parametrize("cut_short", ["before its entry", "after it"])
def test_cut_short_while_the_archives_copy_is_replaced_it_is_finished_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, let_go: int, cut_short: str
) -> None:
    """The object is new and its entry the old one, or both are new and nothing more was written."""
    found = settings(tmp_path, f'[archive]\nurl = "{tmp_path / "archive"}"\n')
    write(found)
    journal, archive = found.data / "journal", open_archive(found.archive)
    erasing.seal(journal, erasing.ends(journal), found, nothing)
    Archiving(found.data, archive, found.archive.url, building.now_ms).step(Signal())
    (lane,) = lanes(journal)
    for path in sorted(lane.glob("*.gz"))[:let_go]:
        path.unlink()
    before = {f"{entry.lane}/{entry.segment:08d}": entry.sha256 for entry in archive.entries()}
    replace = Archive.replace

    def dies(*arguments: Any) -> None:
        if cut_short == "after it":
            replace(*arguments)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "replace" if cut_short == "after it" else "_read_back", dies)
        with pytest.raises(Crash):
            Erasing.begin(found, SHE, building.now_ms(), nothing).run()
    (begun,) = open_ones(found.data)
    receipt = Erasing.resume(found, begun, nothing).run()
    after = {f"{entry.lane}/{entry.segment:08d}": entry.sha256 for entry in archive.entries()}
    assert {archive.wrong(entry) for entry in archive.entries()} == {""}
    assert {place: (one["before"], one["after"]) for place, one in receipt.archive.items()} == {
        place: (before[place], after[place]) for place in before if before[place] != after[place]
    }
    assert sum(one["events"] for one in receipt.archive.values()) == 30


def test_who_loads_the_target_erases_between_two_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(tmp_path)
    write(found)
    target, loader = stored(found)
    loader.step()
    house = Housework(found, "sqlite", target, FileReader(found.data / "journal"), building.now_ms)
    claim = Claim(found.data, "sqlite")
    told: list[str] = []

    def other_process(_: float) -> None:
        """While the command waits."""
        told.append("waited")
        while house.step():
            pass

    monkeypatch.setattr(erasing.time, "sleep", other_process)
    receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
    assert told
    claim.release()
    target.close()
    check(found, removed_in(receipt))


def test_what_pii_makes_of_an_identifier_is_erased_too(tmp_path: Path) -> None:
    found = settings(tmp_path, '[enrich.enrichments.pii]\ncolumns = ["user_id"]\nsalt = "pepper"\n')
    write(found)
    loaded(found)
    assert rows(found, "SELECT 1 FROM events WHERE user_id = 'u-1'") == []
    hashes = {user for (user,) in rows(found, "SELECT user_id FROM events")}
    assert len(hashes) == 4
    receipt = Erasing.begin(found, SHE, building.now_ms(), nothing).run()
    assert sum(removed_in(receipt)) == 30
    assert len({user for (user,) in rows(found, "SELECT user_id FROM events")} & hashes) == 3


def test_rows_that_name_nobody_go_by_what_the_journal_knew(tmp_path: Path) -> None:
    """A device that logged in: its name is the payload's, and of what it sent no column says it."""
    found = settings(tmp_path)

    async def run() -> None:
        writer = FileWriter.open(found.data / "journal", SMALL)
        for number in range(6):
            name = "kitchen" if number % 2 else "cellar"
            await writer.append(RawPayload(f"{number:032x}", 1_000 + number, "mqtt", "/i", "e=pv&p=iot", device=name))
        await writer.close()

    asyncio.run(run())
    loaded(found)
    receipt = Erasing.begin(found, Person(device=frozenset({"kitchen"})), building.now_ms(), nothing).run()
    assert removed_in(receipt) == (3, 0)
    assert len(rows(found, "SELECT 1 FROM events")) == 3
    assert not list(folder(found.data).glob("*.events"))


def test_one_erasure_at_a_time(tmp_path: Path) -> None:
    found = settings(tmp_path)
    write(found, 1)
    first = Erasing.begin(found, SHE, building.now_ms(), nothing)
    with pytest.raises(ConfigurationError, match="another erasure is under way"):
        Erasing.begin(found, SHE, building.now_ms(), nothing)
    first.run()


def test_whom_to_erase_is_nobody_elses_to_read(tmp_path: Path) -> None:
    found = settings(tmp_path)
    write(found, 1)
    begun = Erasing.begin(found, SHE, building.now_ms(), nothing)
    path = asked_file(found.data, begun.receipt.id)
    assert path.stat().st_mode & 0o077 == 0 and folder(found.data).stat().st_mode & 0o077 == 0
    begun.run()
    assert not path.exists()


def test_a_device_is_forgotten_by_what_enrichments_remember(tmp_path: Path) -> None:
    found = settings(tmp_path)
    write(found, 1)
    with sqlite3.connect(found.data / "memory.db") as db:
        db.execute("CREATE TABLE memory (name TEXT, key TEXT, value BLOB, put_ms INTEGER)")
        db.executemany(
            "INSERT INTO memory VALUES ('device_time', ?, '', 0)", [("proven:kitchen",), ("claimed:kitchen",), ("proven:x",)]
        )
    db.close()
    receipt = Erasing.begin(found, Person(device=frozenset({"kitchen"})), building.now_ms(), nothing).run()
    assert receipt.remembered == 2
