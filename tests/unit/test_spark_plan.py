"""Stretches are neighbours in the order one machine reads; cursors are joined as one machine's move on."""

from __future__ import annotations

from pathlib import Path

from protocol.seams import Position
from spoorway.spark.plan import Stretch, beyond, joined, planned
from storage.archive import Archive, Contents, Entry
from storage.objects import open_objects


def entry(lane: str, segment: int, first_ms: int, size: int = 10) -> Entry:
    return Entry(lane, segment, f"raw/{lane}-{segment}", "", 1, Contents(size, 1, 0, first_ms, first_ms, segment, segment))


def archived(folder: Path, *entries: Entry) -> Archive:
    from storage.archive import _manifest, _to_json  # pyright: ignore[reportPrivateUsage]

    objects = open_objects(str(folder))
    for one in entries:
        objects.put(_manifest(one.lane, one.segment), _to_json(one))
    return Archive(objects)


def test_segments_come_by_time_and_those_of_a_lane_by_number(tmp_path: Path) -> None:
    entries = [entry("aaaaaaaa", 1, 5), entry("aaaaaaaa", 2, 1, 30), entry("bbbbbbbb", 1, 4), entry("bbbbbbbb", 2, 6)]
    found = planned(archived(tmp_path, *entries), "url", 20, print, partial=False)
    names = [[(one.lane[0], one.segment) for one in stretch.entries] for stretch in found]
    # Segment 2 of a began earlier than the clock says of 1: the order of numbers stays.
    assert names == [[("b", 1), ("a", 1)], [("a", 2)], [("b", 2)]]
    assert [stretch.number for stretch in found] == [0, 1, 2]


def test_what_a_cursor_has_not_reached_is_counted() -> None:
    stretches = [Stretch(0, (entry("a", 1, 0), entry("b", 1, 0))), Stretch(1, (entry("a", 2, 0),))]
    assert beyond(stretches, {}) == 3
    assert beyond(stretches, {"a": Position(2, 9, 0), "b": Position(1, 10, 0)}) == 1
    assert beyond(stretches, {"a": Position(2, 10, 0), "b": Position(4, 0, 0), "c": Position(1, 1, 1)}) == 0


def test_cursors_are_joined_and_no_number_goes_back() -> None:
    some = [{"a": Position(1, 10, 7)}, {"b": Position(1, 3, 1)}, {"a": Position(2, 5, 0)}]
    assert joined(some) == {"a": Position(2, 5, 7), "b": Position(1, 3, 1)}
