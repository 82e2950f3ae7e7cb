"""A journal on servers is archived lane by lane: in order, once, whoever is killed, stalled or a second one meanwhile."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gateway.journal import Chunk, Damage, Joining, Reassigned
from gateway.journal.gathering import gathered_lane
from gateway.journal.options import Options
from protocol.persons import Person
from protocol.seams import START, Cursor, PermanentError, Position, RawPayload, TransientError
from spoorway.archiving import findings
from spoorway.archiving_remote import GroupArchiving, _Room
from spoorway.cli import main
from spoorway.config import load
from spoorway.erasing import Erasing
from spoorway.rebuilding import Rebuilding
from spoorway.spark import bundle, job
from spoorway.spark.engine import Here
from storage.archive import Archive, Entry
from storage.archive import Options as Place
from storage.lake import commits
from storage.objects import open_objects
from tests.faults.faulty_objects import Faulty
from tests.spark import archives

NOON = 1_768_478_400_000  # 2026-01-15 12:00
LANES = ("topic.0", "topic.1")
OPTIONS = Options(min_free_bytes=0, segment_bytes=3_000, segment_age_ms=60_000, block_bytes=1_000)

Item = RawPayload | Damage


def payload(number: int) -> RawPayload:
    return RawPayload(f"{number:032x}", NOON + number, "http", "/i", query=f"e=pv&n={number}&x=" + "x" * 200)


class Topic:
    """A journal of two lanes in memory. Places go up by two: a server's numbers need not count."""

    def __init__(self) -> None:
        self.lanes: dict[str, list[Item]] = {lane: [] for lane in LANES}

    def fill(self, lane: str, payloads: int) -> None:
        start = sum(map(len, self.lanes.values()))
        self.lanes[lane] += [payload(number) for number in range(start, start + payloads)]

    def place(self, index: int) -> Position:
        return Position(0, 2 * index, 2 * index) if index else START


class Member:
    """A `gateway.journal.GroupReader` that reads a few at a time."""

    def __init__(self, topic: Topic, *lanes: str) -> None:
        self._topic, self._lanes, self._new = topic, lanes, True
        self.closed: set[str] = set()
        self.told: dict[str, Position] = {}
        self.joining = 0
        self.left = False
        self.kept = 0

    def give(self, *lanes: str) -> None:
        self._lanes, self._new = lanes, True

    def lanes(self) -> Mapping[str, bool]:
        return {} if self.joining else {lane: lane in self.closed for lane in self._lanes}

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        if self.joining:
            self.joining -= 1
            raise Joining("waiting for the group")
        if self._new:
            self._new = False
            raise Reassigned("other lanes")
        items: list[Item] = []
        lanes: list[tuple[str, int]] = []
        after = dict(cursor)
        for lane in self._lanes:
            start = cursor.get(lane, START).sequence // 2
            if found := self._topic.lanes[lane][start : start + 5]:
                items += found
                lanes.append((lane, len(found)))
                after[lane] = self._topic.place(start + len(found))
        return Chunk(tuple(items), after, False, tuple(lanes))

    def pending(self, cursor: Cursor) -> int:
        self.kept += 1
        return 0

    def lag(self) -> Mapping[str, int]:
        return {}

    def loaded(self, cursor: Cursor) -> None:
        self.told = dict(cursor)

    def close(self) -> None:
        self.left = True


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self.topic, self.now_ms = Topic(), NOON
        self.objects = Faulty(open_objects(str(self.store)))
        self.archive = Archive(open_objects(str(self.store)))
        self.workers: list[GroupArchiving] = []

    def worker(self, *lanes: str, options: Options = OPTIONS) -> tuple[GroupArchiving, Member]:
        member = Member(self.topic, *(lanes or LANES))
        archive = Archive(self.objects)  # type: ignore[arg-type]
        made = GroupArchiving(member, archive, str(self.store), self.folder / "data", options, lambda: self.now_ms)
        self.workers.append(made)
        return made, member

    def entries(self, lane: str) -> list[Entry]:
        return list(self.archive.entries(gathered_lane(lane)))

    def unlisted(self) -> list[str]:
        return self.archive.unlisted({entry.object for entry in self.archive.entries()})

    def read_back(self) -> tuple[list[Item], Cursor]:
        """By what replays: everything that is archived, and where a worker goes on after it."""
        room = self.folder / "room"
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir()
        reader = Rebuilding(self.archive, room / "no-journal", room, pytest.fail, partial=False)
        assert reader.missing() == [] and not any(reader.damaged())
        found: list[Item] = []
        chunk = reader.read({}, max_payloads=7)
        while chunk.items:
            found += chunk.items
            chunk = reader.read(chunk.cursor, max_payloads=7)
        reader.close()
        return found, chunk.cursor

    def check(self, *, all_of_it: bool = True) -> None:
        """The archive is the journal: each lane in order, once; and reading goes on after it."""
        found, cursor = self.read_back()
        for lane in LANES:
            entries, there = self.entries(lane), self.topic.lanes[lane]
            mine = [item for item in found if item in there]
            assert mine == (there if all_of_it else there[: len(mine)])
            assert len({id(item) for item in mine}) == len(mine)
            assert [entry.segment for entry in entries] == list(range(1, len(entries) + 1))
            assert [entry.origin.since for entry in entries if entry.origin][1:] == [
                entry.origin.until for entry in entries if entry.origin
            ][:-1]
            assert cursor.get(lane, START) == self.topic.place(len(mine))
        assert len(found) == sum(map(len, self.topic.lanes.values())) or not all_of_it
        assert self.unlisted() == [] or not all_of_it


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for worker in made.workers:
        worker.close()


def room(archiving: GroupArchiving) -> _Room:
    assert archiving._room is not None
    return archiving._room


def drain(archiving: GroupArchiving) -> None:
    while archiving.step():
        pass


def end(archiving: GroupArchiving) -> None:
    """As a signal to a worker."""
    finish = Soon()
    archiving.run(threading.Event(), finish)
    assert archiving.status.state == "finished"


class Soon(threading.Event):
    """Nobody waits: after so many waits it is set."""

    def __init__(self, waits: int = 1) -> None:
        super().__init__()
        self.waits, self.waited = waits, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0)
        if len(self.waited) >= self.waits:
            self.set()
        return self.is_set()


def test_each_lane_s_payloads_become_segments_in_order_and_a_replay_reads_them(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 60)
    bench.topic.fill(LANES[1], 33)
    archiving, member = bench.worker()
    drain(archiving)
    assert [len(bench.entries(lane)) for lane in LANES] == [6, 3]  # ten payloads fill one; what is left grows
    assert member.told == {LANES[0]: bench.topic.place(60), LANES[1]: bench.topic.place(30)}
    end(archiving)
    assert member.left
    bench.check()
    first, second = bench.entries(LANES[0])[:2]
    assert first.object == f"raw/dt=2026-01-15/{gathered_lane(LANES[0])}-00000001-{first.sha256[:12]}.ndjson.gz"
    assert (first.contents.payloads, first.contents.first_number, first.contents.last_number) == (10, 1, 10)
    assert (second.contents.first_number, second.contents.first_ms) == (11, NOON + 10)
    assert (archiving.status.segments, archiving.status.payloads, archiving.status.pending) == (10, 93, 0)
    assert list((bench.folder / "data").iterdir()) == []


def test_a_lane_that_goes_idle_is_archived_when_its_segment_is_old(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 3)
    archiving, member = bench.worker()
    drain(archiving)
    bench.now_ms += 59_999
    drain(archiving)
    assert bench.entries(LANES[0]) == [] and member.told == {}
    bench.now_ms += 1
    drain(archiving)
    assert [entry.contents.payloads for entry in bench.entries(LANES[0])] == [3]
    bench.now_ms += 60_000
    drain(archiving)
    assert len(bench.entries(LANES[0])) == 1  # nothing new, nothing made
    bench.check()


def test_what_was_gathered_and_lost_in_a_crash_is_read_again(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 37)
    archiving, _ = bench.worker()
    drain(archiving)
    assert sum(entry.contents.payloads for entry in bench.entries(LANES[0])) == 30
    room(archiving)._lock.close()  # as the kernel does it
    left = next((bench.folder / "data").iterdir())
    bench.topic.fill(LANES[0], 1)
    again, _ = bench.worker()
    drain(again)
    assert not left.exists()
    end(again)
    bench.check()


@pytest.mark.parametrize("call", ["put_new", "sha256"])
def test_a_copy_whose_maker_was_killed_before_it_was_listed_is_cleaned_away(bench: Bench, call: str) -> None:
    bench.topic.fill(LANES[0], 7)
    killed, _ = bench.worker()
    drain(killed)
    bench.objects.after = {call}
    end(killed)
    bench.objects.after = set()
    (stray,) = bench.unlisted()
    bench.topic.fill(LANES[0], 1)
    again, _ = bench.worker()
    drain(again)
    end(again)
    bench.check()
    assert not (bench.store / stray).exists()


def test_the_room_of_a_living_worker_is_left_alone(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 3)
    one, _ = bench.worker()
    drain(one)
    two, _ = bench.worker()
    drain(two)
    assert len(list((bench.folder / "data").iterdir())) == 2
    end(two)
    end(one)
    bench.check()


@pytest.mark.parametrize("moment", ["put_new", "sha256"])
def test_two_workers_with_one_lane_make_each_segment_once(bench: Bench, moment: str) -> None:
    """One of them stood still; the other has read more meanwhile, and makes another segment for the same place."""
    bench.topic.fill(LANES[0], 7)
    stalled, _ = bench.worker()
    drain(stalled)
    other, member = bench.worker()

    def meanwhile() -> None:
        bench.topic.fill(LANES[0], 8)
        drain(other)

    bench.objects.between[moment] = meanwhile
    end(stalled)
    drain(other)
    end(other)
    bench.check()
    assert member.told[LANES[0]] == bench.topic.place(15)
    assert stalled.status.segments == 0


def test_who_was_overtaken_goes_on_after_the_other(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 7)
    stalled, _ = bench.worker()
    drain(stalled)
    other, _ = bench.worker()
    drain(other)
    end(other)
    bench.topic.fill(LANES[0], 50)
    drain(stalled)
    end(stalled)
    bench.check()
    assert [entry.contents.payloads for entry in bench.entries(LANES[0])] == [7, 10, 10, 10, 10, 10]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["put_new", "sha256", "get_with_etag", "list", "delete"])
def test_trouble_at_any_call_archives_nothing_twice_and_loses_nothing(bench: Bench, call: str, when: str) -> None:
    bench.topic.fill(LANES[0], 70)
    archiving, member = bench.worker()
    setattr(bench.objects, when, {call})
    for _ in range(12):
        try:
            archiving.step()
        except TransientError:
            member.give(*LANES)  # so that all of it happens: lanes are looked up anew
        bench.check(all_of_it=False)
    setattr(bench.objects, when, set())
    drain(archiving)
    end(archiving)
    bench.check()


def test_while_the_archive_is_down_nothing_more_is_gathered_and_the_place_in_the_group_is_kept(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 500)
    archiving, member = bench.worker()
    drained = Soon(4)
    bench.objects.before = {"put_new"}
    archiving.run(threading.Event(), drained)
    assert drained.waited == [0.5, 1.0, 2.0, 4.0]
    assert (member.kept, archiving.status.pending, archiving.status.errors) == (4, 1, {"transient": 4})
    assert archiving.status.error == "put_new failed"
    bench.objects.before = set()
    again, _ = bench.worker()
    drain(again)
    end(again)
    bench.check()


def test_lanes_that_change_hands_are_gone_on_with_where_the_archive_stands(bench: Bench) -> None:
    for lane in LANES:
        bench.topic.fill(lane, 40)
    one, member = bench.worker()
    drain(one)
    member.give(LANES[0])
    two, _ = bench.worker(LANES[1])
    for lane in LANES:
        bench.topic.fill(lane, 40)
    for _ in range(30):
        one.step()
        two.step()
    assert (set(one._lanes), set(two._lanes)) == ({LANES[0]}, {LANES[1]})  # what was gathered of another's lane is gone
    end(one)
    end(two)
    bench.check()
    assert one.status.payloads + two.status.payloads == 160


def test_damage_is_kept_as_it_was_told(bench: Bench) -> None:
    lane = LANES[0]
    bench.topic.fill(lane, 2)
    told = [
        Damage(lane, Position(0, 6, 6), b'{"crc":"no\n\xff'),
        Damage(lane, Position(0, 8, 8), b""),
        Damage(lane, Position(0, 10, 10), b"", "3 records were deleted"),
    ]
    bench.topic.lanes[lane] += told
    archiving, _ = bench.worker()
    drain(archiving)
    end(archiving)  # damage at its end
    bench.topic.lanes[lane].append(Damage(lane, Position(0, 12, 12), b"alone"))
    archiving, _ = bench.worker()
    drain(archiving)
    end(archiving)  # nothing else in it
    bench.topic.fill(lane, 2)
    archiving, _ = bench.worker()
    drain(archiving)
    end(archiving)
    bench.check()
    assert [(e.contents.payloads, e.contents.damaged, e.contents.last_number) for e in bench.entries(lane)] == [
        (2, 3, 2),
        (0, 1, 2),
        (2, 0, 4),
    ]


def test_a_lane_that_is_closed_is_archived_at_once_and_told(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 3)
    archiving, member = bench.worker()
    drain(archiving)
    assert member.told == {}
    member.closed = {LANES[0]}
    drain(archiving)
    assert member.told == {LANES[0]: bench.topic.place(3)}
    bench.check()


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (Options(min_free_bytes=0, max_bytes=12_000, block_bytes=500), 12_000),
        (Options(min_free_bytes=1 << 60, block_bytes=500), 0),
    ],
    ids=["budget", "disk"],
)
def test_no_more_is_gathered_than_there_is_room_for(bench: Bench, options: Options, most: int) -> None:
    """Nothing in the payloads repeats, so that what is gathered is nearly as large as they are."""
    lanes = [f"topic.{number}" for number in range(12)]
    bench.topic.lanes = {
        lane: [
            RawPayload(f"{number:032x}", NOON, "http", f"/{lane}", query=random.Random(f"{lane}{number}").randbytes(200).hex())
            for number in range(5)
        ]
        for lane in lanes
    }
    archiving, _ = bench.worker(*lanes, options=options)
    drain(archiving)
    assert sum(path.stat().st_size for path in room(archiving).path.iterdir()) <= most
    assert len(list(bench.archive.entries())) > 1
    end(archiving)
    found, _ = bench.read_back()
    assert len(found) == 60


def test_a_disk_that_takes_nothing_costs_what_was_gathered_and_no_more(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 20)
    archiving, _ = bench.worker()
    archiving.step()
    archiving.step()
    shutil.rmtree(room(archiving).path)
    with pytest.raises(TransientError, match="No such file"):
        drain(archiving)
    drain(archiving)
    end(archiving)
    bench.check()


def test_what_could_not_be_written_down_leaves_nothing_half_done(bench: Bench) -> None:
    bench.topic.fill(LANES[0], 4)
    there = bench.topic.lanes[LANES[0]]
    there[2], whole = RawPayload("f" * 32, NOON, "http", "/i", query="\ud800"), there[2]  # no journal could hold it
    archiving, _ = bench.worker()
    for _ in range(3):
        with pytest.raises(TypeError):
            drain(archiving)
    there[2] = whole
    drain(archiving)
    end(archiving)
    bench.check()


def test_another_lane_under_the_same_name_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoorway.archiving_remote.gathered_lane", lambda lane: "0" * 16)
    bench.topic.fill(LANES[0], 3)
    one, _ = bench.worker(LANES[0])
    drain(one)
    end(one)
    two, _ = bench.worker(LANES[1])
    with pytest.raises(PermanentError, match=r"is not of topic\.1"):
        two.step()


def test_waiting_for_the_group_is_no_trouble_unless_it_lasts(bench: Bench) -> None:
    archiving, member = bench.worker()
    member.joining = 3
    archiving.run(threading.Event(), Soon(2))
    assert archiving.status.errors == {}
    again, member = bench.worker()
    member.joining = 9

    class Late(Soon):
        def wait(self, timeout: float | None = None) -> bool:
            bench.now_ms += 20_000
            return super().wait(timeout)

    again.run(threading.Event(), late := Late(3))
    assert len(late.waited) == 3 and again.status.error == "waiting for the group"
    assert again.status.errors == {"transient": 1}


def test_a_person_is_erased_from_what_was_gathered_and_nothing_moves(bench: Bench) -> None:
    lane = LANES[0]
    bench.topic.lanes[lane] = [
        RawPayload(f"{number:032x}", NOON + number, "http", "/i", query=f"e=pv&p=web&tv=t&aid=a&uid=u-{number % 4}")
        for number in range(40)
    ]
    archiving, _ = bench.worker()
    drain(archiving)
    end(archiving)
    before = bench.entries(lane)
    file = bench.folder / "spoorway.toml"
    file.write_text(
        f'data = "{bench.folder / "eraser"}"\n[archive]\nurl = "{bench.store}"\n[storage.targets.sqlite]\nenabled = false\n'
    )
    settings = load(file, {}, {})
    settings.data.mkdir()
    receipt = Erasing.begin(settings, Person(user=frozenset({"u-1"})), NOON + 1_000, lambda told: None).run()
    assert sum(one["events"] for one in receipt.archive.values()) == 10
    found, cursor = bench.read_back()
    assert [number for number, item in enumerate(found) if isinstance(item, RawPayload) and item.erased] == list(range(1, 40, 4))
    assert cursor[lane] == bench.topic.place(40)
    after = bench.entries(lane)
    assert [(e.object, e.origin) for e in after] == [(e.object, e.origin) for e in before]
    again, _ = bench.worker()  # and whoever archives goes on behind it
    bench.topic.fill(lane, 1)
    drain(again)
    end(again)
    assert bench.entries(lane)[-1].contents.first_number == 41


def test_the_spark_job_makes_of_it_what_one_machine_makes_and_workers_go_on_behind_both(bench: Bench) -> None:
    for number, lane in enumerate(LANES):
        bench.topic.lanes[lane] = [
            RawPayload(f"{place}{number:031x}", NOON + place, "http", "/i", query=f"e=pv&p=web&tv=t&aid=a&url=http://x/{place}")
            for place in range(9)
        ]
        bench.topic.lanes[lane].insert(4, Damage(lane, bench.topic.place(5), b"\xff no payload"))
    archiving, _ = bench.worker()
    drain(archiving)
    end(archiving)
    file = bench.folder / "spoorway.toml"
    file.write_text(
        f'data = "{bench.folder / "data"}"\n[archive]\nurl = "{bench.store}"\n'
        f'[storage.targets.one]\nuse = "s3"\nurl = "{bench.folder / "one"}"\n'
    )
    assert main(["replay", "--from", "archive", "--to", "one", "--config", str(file)]) == 0
    settings = load(file, {}, {})
    bundle.pack(settings, settings.archive, Place(str(bench.folder / "many")), False, bench.folder / "bundle.zip")
    job.run(Here(), bench.folder / "bundle.zip", lambda told: None, now_ms=NOON, stretch_bytes=1)
    one, many = (
        (str(bench.folder / name), commits.newest(open_objects(str(bench.folder / name)))[0]) for name in ("one", "many")
    )
    assert len(archives.rows(one[0])) == 18 and len(archives.failures(one[0])) == 2
    assert archives.rows(one[0]) == archives.rows(many[0])
    assert archives.failures(one[0]) == archives.failures(many[0])
    assert one[1].cursor == many[1].cursor
    assert {lane: one[1].cursor[lane] for lane in LANES} == dict.fromkeys(LANES, bench.topic.place(10))


def test_what_was_gathered_answers_sql_and_doctor_does_not_look_for_segments_of_the_gateway_s(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    lane = LANES[0]
    bench.topic.fill(lane, 12)
    bench.topic.lanes[lane].append(Damage(lane, bench.topic.place(13), b"no payload"))
    archiving, _ = bench.worker()
    drain(archiving)
    end(archiving)
    file = bench.folder / "spoorway.toml"
    file.write_text(
        f'data = "{bench.folder / "data"}"\n[archive]\nurl = "{bench.store}"\n[journal.kafka]\nbrokers = ["127.0.0.1:1"]\n'
        "[storage.targets.sqlite]\nenabled = false\n"
    )
    question = "SELECT count(*) AS n, count(DISTINCT lane) AS lanes FROM archive.payloads"
    assert main(["sql", "--on", "archive", "--format", "json", "--config", str(file), question]) == 0
    assert json.loads(capsys.readouterr().out) == {"n": 12, "lanes": 1}
    settings = load(file, {}, {})
    (bench.folder / "data" / "journal").mkdir(parents=True)
    told = list(findings(settings.data, settings.archive, bench.now_ms, gathered=True))
    assert told == [("ok", f"{bench.store} answers; each worker says on /metrics what waits")]
