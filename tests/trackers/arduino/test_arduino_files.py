"""The Arduino library's journal in files, on the genuine littlefs and against a running gateway: cuts, bad flash, opting out."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.conftest import Running, spoorway_run, start
from tests.trackers.arduino.filecuts import run
from tests.trackers.arduino.flash_files import Files, Flash, library
from tests.trackers.arduino.powercuts import rows_by_sequence

__all__ = ["spoorway_run", "start"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")]

FULL, OPTED_OUT = -1, -8


def power(flash: Flash, gateway: Running | None = None, most: int = 6_000) -> tuple[Files, int]:
    """A start of the board: its files, its boot id."""
    files = Files(flash, library().power_off)
    port = 0 if gateway is None else urlsplit(gateway.url).port or 0
    return files, library().power_on(files.address, port, 0, 1, most)


def tracked(count: int, letters: int = 20) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        found.append(library().track(letters))
        library().loop()
    return found


@pytest.fixture
def flash() -> Flash:
    return Flash(random.Random(1)).formatted()


def test_power_cuts_lose_nothing_that_was_stored(tmp_path: Path) -> None:
    found = run(300, 7, tmp_path)
    assert found.cuts == 300 and len(found.stored) > 300 and found.repeated > 100
    assert (found.lost, found.doubled, found.odd) == (set(), 0, [])


def test_a_journal_that_promises_too_early_is_found_out(tmp_path: Path) -> None:
    assert run(40, 3, tmp_path, hasty=True).lost


def test_flash_that_refuses_writes_costs_durability_only(flash: Flash, spoorway_run: Running) -> None:
    power(flash)
    tracked(2)
    flash.broken = True
    assert tracked(2) == [3, 4] and library().stored() == 2 and library().errors()
    library().plug(urlsplit(spoorway_run.url).port)
    library().pump(4000)
    spoorway_run.until(lambda: {n for _, n in rows_by_sequence(spoorway_run)[0]} == {1, 2, 3, 4}, lambda: "not all came")


def test_files_that_cannot_be_opened_for_a_while_keep_their_events(flash: Flash, spoorway_run: Running) -> None:
    files, _ = power(flash)
    tracked(5)
    files.lose = True  # the sketch has opened too many
    assert tracked(2) == [6, 7]
    library().plug(urlsplit(spoorway_run.url).port)
    library().pump(40)
    assert 0 < library().waiting() < 1_000 and library().errors()
    files.lose = False
    library().pump(4000)
    assert library().waiting() == 0 and tracked(1) == [8]
    library().pump(4000)
    spoorway_run.until(lambda: {n for _, n in rows_by_sequence(spoorway_run)[0]} == set(range(1, 9)), lambda: "not all came")


def test_flash_has_a_cap_and_what_is_beyond_is_refused(flash: Flash) -> None:
    power(flash, most=1_000)
    taken = tracked(60)
    assert taken.count(FULL) > 20 and taken[:10] == list(range(1, 11))
    _, boot = power(flash, most=1_000)
    assert boot == 2 and 900 < library().waiting() <= 1_000


def test_a_boot_id_that_is_lost_is_told(flash: Flash) -> None:
    files, boot = power(flash)
    assert boot == 1
    files.write("/queue", b"something else")
    assert power(flash)[1] == 0


def segments(files: Files) -> list[str]:
    return [name for name in files.names() if "." in name]


def test_opting_out_erases_what_waits_and_lasts(flash: Flash, spoorway_run: Running) -> None:
    files, _ = power(flash)
    tracked(8, 80)
    assert len(segments(files)) > 1
    assert library().opt(True) == 0
    assert segments(files) == [] and library().waiting() == 0 and library().track(20) == OPTED_OUT
    files, boot = power(flash, spoorway_run)
    assert boot == 2 and tracked(2) == [OPTED_OUT] * 2 and library().flush(0)
    assert library().opt(False) == 0 and tracked(2) == [1, 2]
    library().pump(4000)
    spoorway_run.until(lambda: rows_by_sequence(spoorway_run)[0] == {(2, 1), (2, 2)}, lambda: "not what was tracked since")
    assert power(flash)[1] == 3 and tracked(1) == [1]  # opting in lasts, too


def test_a_power_cut_while_opting_out_leaves_all_or_nothing() -> None:
    """All only where the call has not returned; and then as if it had never been made."""
    halves: set[bool] = set()
    lasted = False
    place = 0
    while not lasted:
        place += 1
        flash = Flash(random.Random(place)).formatted()
        power(flash)
        tracked(8, 80)
        before = library().waiting()
        flash.done, flash.cut = 0, place
        library().opt(True)
        lasted, flash.off, flash.cut = not flash.off, False, 0
        files, _ = power(flash)
        out = library().track(20) == OPTED_OUT
        halves.add(out)
        assert out or not lasted
        if out:
            assert segments(files) == [] and library().waiting() == 0
        else:
            library().loop()
            assert library().waiting() > before
    assert halves == {True, False}


def test_a_flush_ends(flash: Flash) -> None:
    power(flash)
    tracked(3)
    assert not library().flush(30)


def test_an_event_costs_few_erases() -> None:
    """As the README tells; 4 KB blocks as on ESP32 and ESP8266."""
    flash = Flash(random.Random(1), 4096, 64).formatted()
    power(flash)
    flash.erases = 0
    tracked(200)
    assert 100 <= flash.erases <= 300
