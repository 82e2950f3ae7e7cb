"""Who reads which shard: fair shares, the dead, the stalled, the polite, and children after their parents."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.journal import Chunk, Damage, Reassigned
from gateway.journal.kinesis import Config
from gateway.journal.kinesis.leases import Leases
from gateway.journal.kinesis.reader import KinesisReader
from gateway.journal.kinesis.service import Service
from gateway.journal.options import Options
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, Cursor, RawPayload, TransientError
from spoorway.archiving_remote import GroupArchiving
from spoorway.rebuilding import Rebuilding
from storage.archive import Archive
from storage.objects import open_objects
from tests.contracts.kinesis_bench import a_name, answering, credentials, everything, payload
from tests.peers.kinesis_server import Kinesalite, Moto, active

HALF = 1 << 127
LEASE_S = 600.0  # of a clock that the tests move; the thread that renews does not come to it


@pytest.fixture(scope="module")
def kinesis() -> Iterator[Kinesalite]:
    """With DynamoDB from another server."""
    with credentials(), Kinesalite() as server, Moto() as moto, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_KINESIS", server.endpoint)
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", moto.endpoint)
        yield server


class Cluster:
    def __init__(self, server: Kinesalite, shards: int) -> None:
        self.name, self.now = a_name(), 1_000.0
        self.client = server.stream(self.name, shards)
        self.config = Config(stream=self.name, create=1, leases=f"leases-{self.name}", lease_ms=int(LEASE_S * 1000), poll_ms=10)
        self.stream = Service(self.config).stream()

    def clock(self) -> float:
        return self.now

    def worker(self, owner: str, reader: str = "group.target") -> Leases:
        return Leases(Service(self.config), self.stream, reader, owner, clock=self.clock)

    def reader(self, target: str = "target") -> KinesisReader:
        """Its shards follow the tests' clock; when it may ask again follows it too."""
        return KinesisReader(Service(self.config), f"group.{target}", clock=self.clock, wait=self.wait)

    def wait(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)

    def put(self, items: list[RawPayload]) -> None:
        records = [{"Data": to_json(item), "PartitionKey": item.device or item.id} for item in items]
        self.client.put_records(StreamName=self.name, Records=records)

    def split(self, shard: int, at: int) -> None:
        self.client.split_shard(StreamName=self.name, ShardToSplit=f"shardId-{shard:012}", NewStartingHashKey=str(at))
        active(self.client, self.name)


def numbers(leases: Leases) -> list[int]:
    return sorted(int(name.removeprefix("shardId-")) for name in leases.held())


def rounds(workers: list[Leases], times: int = 2) -> list[list[int]]:
    """What each holds after so many rounds; no shard is anybody else's too. (Who was taken from learns it at its next round.)"""
    for _ in range(times):
        for worker in workers:
            worker.round()
    held = [numbers(worker) for worker in workers]
    owned = [number for each in held for number in each]
    assert len(owned) == len(set(owned))
    return held


def test_shares_are_fair_whoever_comes_and_goes(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 5)
    workers = [cluster.worker("one")]
    assert rounds(workers, 1) == [list(range(5))]
    workers.append(cluster.worker("two"))
    assert sorted(map(len, rounds(workers))) == [2, 3]
    workers.append(cluster.worker("three"))
    assert sorted(map(len, rounds(workers))) == [1, 2, 2]
    before = [numbers(worker) for worker in workers]
    assert rounds(workers, 1) == before  # and then they rest
    workers.pop(0).close()
    assert sorted(map(len, rounds(workers))) == [2, 3]  # at once: no clock was moved
    for worker in workers:
        worker.close()


def test_more_workers_than_shards_leave_some_without(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 2)
    workers = [cluster.worker(owner) for owner in ("one", "two", "three")]
    assert sorted(map(len, rounds(workers))) == [0, 1, 1]


def test_each_target_of_a_group_has_shares_of_its_own(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 3)
    assert rounds([cluster.worker("one", "group.sqlite")]) == [[0, 1, 2]]
    assert rounds([cluster.worker("one", "group.postgres")]) == [[0, 1, 2]]


def test_the_dead_are_followed_after_a_whole_lease_and_not_before(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 2)
    dead, living = cluster.worker("dead"), cluster.worker("living")
    dead.round()
    living.round()  # takes one from it, and sees the other's counter
    assert numbers(living) == [1] or numbers(living) == [0]
    cluster.now += LEASE_S - 1
    living.round()
    assert len(numbers(living)) == 1
    cluster.now += 2
    living.round()
    assert numbers(living) == [0, 1]


def test_who_stalled_beyond_its_lease_uses_it_no_more_before_anybody_else_has_it(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 2)
    stalled, other = cluster.worker("stalled"), cluster.worker("other")
    stalled.round()
    assert numbers(stalled) == [0, 1]
    cluster.now += LEASE_S + 1
    assert numbers(stalled) == []
    stalled.round()  # nobody was there
    assert numbers(stalled) == [0, 1]
    rounds([stalled, other])
    cluster.now += LEASE_S + 1
    other.round()
    cluster.now += LEASE_S + 1
    other.round()
    assert numbers(other) == [0, 1]
    assert numbers(stalled) == []
    stalled.round()  # learns it, and takes its fair share back
    assert rounds([other, stalled]) in ([[0], [1]], [[1], [0]])


def test_of_many_at_once_one_gets_a_lease(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 1)
    workers = [cluster.worker(str(number)) for number in range(3)]
    workers[0].check()
    for free in range(2):  # a new row, and then one whose owner is dead
        threads = [threading.Thread(target=worker.round) for worker in workers[free:]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holding = [worker for worker in workers[free:] if numbers(worker)]
        assert len(holding) == 1
        workers.remove(holding[0])
        workers.insert(0, holding[0])
        for worker in workers[1:]:
            worker.round()
        cluster.now += LEASE_S + 1


def test_leases_out_of_reach_are_told_when_they_have_run_out(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 1)
    service = Service(cluster.config)
    worker = Leases(service, cluster.stream, "group.target", "me", clock=cluster.clock)
    assert numbers(worker) == [0]
    answering(service.dynamodb, "Query", lambda asked: (500, {"__type": "InternalServerError", "message": "as asked"}))
    with pytest.raises(TransientError, match="InternalServerError"):
        worker.round()
    assert numbers(worker) == [0]
    worker._hurry.set()
    cluster.now += LEASE_S + 1
    waiting = threading.Event()
    for _ in range(1_000):
        try:
            assert numbers(worker) == []
        except TransientError:
            break
        waiting.wait(0.02)
    else:
        raise AssertionError("it was not told")
    worker.close()


def test_a_table_that_is_missing_is_named(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 1)
    with pytest.raises(ConfigurationError, match="there is no table 'nowhere'; make it with the key"):
        KinesisReader.open(replace(cluster.config, leases="nowhere", create=0), "target")


def read(reader: KinesisReader, cursor: Cursor) -> tuple[list[Any], Cursor]:
    """Until a look finds nothing; as a loader does it, which asks its target anew when it is told to."""
    found = list[Any]()
    while True:
        try:
            chunk = reader.read(cursor)
        except Reassigned:
            continue
        if not chunk.items:
            return found, cursor
        found += chunk.items
        cursor = chunk.cursor
        reader.loaded(cursor)


def test_a_reader_says_once_that_it_has_other_shards_the_first_time_included(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 2)
    cluster.put([payload(number) for number in range(20)])
    first = cluster.reader()
    with pytest.raises(Reassigned, match="2 shards are read here"):
        first.read({})
    assert len(read(first, {})[0]) == 20
    second = cluster.reader()
    with pytest.raises(Reassigned, match="1 shards"):
        second.read({})
    assert first._leases is not None
    first._leases.round()
    with pytest.raises(Reassigned, match="1 shards are read here, 2 were"):
        first.read({})
    halves = [read(first, {})[0], read(second, {})[0]]
    assert sorted(item.id for half in halves for item in half) == [payload(number).id for number in range(20)]
    assert min(map(len, halves)) > 0
    second.close()
    first._leases.round()
    with pytest.raises(Reassigned, match="2 shards are read here, 1 were"):
        first.read({})
    first.close()


def test_a_worker_gets_the_children_when_the_target_has_what_another_read_of_their_parent(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 1)
    cluster.put([payload(1)])
    cluster.split(0, HALF)
    cluster.put([payload(number) for number in range(10, 30)])
    first, second = cluster.reader(), cluster.reader()
    with pytest.raises(Reassigned):
        first.read({})
    chunk = first.read({})
    assert chunk.items == (payload(1),)
    assert read(second, {})[0] == []
    first.loaded(chunk.cursor)
    assert first.read(chunk.cursor).items == ()  # sees the end of the shard, and that the target has it
    assert first._leases is not None and second._leases is not None
    second._leases.round()
    first._leases.round()
    second._leases.round()
    first._leases.round()
    found = [read(reader, chunk.cursor)[0] for reader in (first, second)]
    assert sorted(item.id for each in found for item in each) == [payload(number).id for number in range(10, 30)]
    assert all(found)
    first.close()
    second.close()


def test_a_shard_that_ends_while_its_lease_is_renewed_is_finished_at_the_next_round(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 1)
    worker = cluster.worker("me")
    worker.round()
    (shard,) = worker.held().values()
    update = worker._table.update

    def while_it_ends(*arguments: Any) -> bool:
        worker.finish(shard)
        return update(*arguments)

    worker._table.update = while_it_ends  # type: ignore[method-assign]
    worker.round()
    worker._table.update = update  # type: ignore[method-assign]
    assert worker.held() == {}
    worker.round()
    assert worker._table.read()[shard.id].finished


def test_a_shard_whose_end_could_not_be_written_is_ended_by_whoever_has_it_next(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 1)
    cluster.put([payload(1)])
    cluster.split(0, HALF)
    cluster.put([payload(number) for number in range(10, 30)])
    reader = cluster.reader()
    with pytest.raises(Reassigned):
        reader.read({})
    cursor = reader.read({}).cursor
    assert reader._leases is not None
    reader._leases._ending.set()  # its thread stands still, as a machine does that swaps
    reader._leases._hurry.set()
    assert reader._leases._thread is not None
    reader._leases._thread.join()
    assert reader.read(cursor).items == ()  # the end of the shard
    thief = cluster.worker("thief")
    thief._table.update("shardId-000000000000", "SET #o = :me", "attribute_exists(#s)", {})
    reader._leases.round()
    thief._table.update("shardId-000000000000", "SET #o = :nobody", "#o = :me", {":nobody": {"S": ""}})
    reader._leases.round()
    assert [read(reader, cursor)[0] for _ in range(2)] == [[], []]  # first the record before the place, then the end
    reader._leases.round()
    assert len(read(reader, cursor)[0]) == 20
    reader.close()


def test_a_shard_where_nothing_was_to_come_is_not_reported_when_its_last_record_is_forgotten(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 1)
    cluster.put([payload(1)])
    first = cluster.reader()
    found, cursor = read(first, {})
    assert found == [payload(1)]
    assert first._leases is not None
    first._leases.round()
    first.close()
    kinesis.advance(25 * 3600)
    cluster.put([payload(2)])
    later = cluster.reader()
    assert read(later, cursor)[0] == [payload(2)]  # somebody had looked, less than a day before
    assert later._leases is not None
    later._leases._now_ms = lambda: 4_000_000_000_000
    with_loss = KinesisReader(Service(cluster.config), "group.target", clock=cluster.clock, wait=cluster.wait)
    later.close()
    with pytest.raises(Reassigned):
        with_loss.read(cursor)
    assert with_loss._leases is not None
    with_loss._leases._now_ms = lambda: 4_000_000_000_000
    damage, item = with_loss.read(cursor).items
    assert isinstance(damage, Damage)
    assert item == payload(2)
    with_loss.close()


def test_a_shard_that_is_gone_before_it_was_finished_is_told_and_left(kinesis: Kinesalite) -> None:
    cluster = Cluster(kinesis, 2)
    cluster.put([payload(number) for number in range(10)])
    first = cluster.reader()
    found, cursor = read(first, {})
    assert len(found) == 10
    first.close()
    later = cluster.reader()
    missing = (400, {"__type": "ResourceNotFoundException", "message": "there is no such shard"})
    answering(later._service.kinesis, "GetShardIterator", lambda asked: missing if asked["ShardId"].endswith("0") else None)
    listed = cluster.client.list_shards(StreamName=cluster.name)["Shards"][1:]
    answering(later._service.kinesis, "ListShards", lambda asked: (200, {"Shards": listed}))
    found, _ = read(later, cursor)
    (damage,) = found
    assert isinstance(damage, Damage)
    assert "are lost: the shard is gone" in damage.what
    assert later._leases is not None
    later._leases.round()
    assert list(later._leases.held()) == ["shardId-000000000001"]
    later._leases.round()
    assert later._leases._table.read().keys() == {"shardId-000000000001"}  # its row goes with it
    assert everything(later, cursor)[0] == []
    later.close()


def test_the_archive_has_all_of_a_closed_shard_before_anybody_leaves_it(kinesis: Kinesalite, tmp_path: Path) -> None:
    """Who gathers reads ahead of what is archived: when it dies, the next one finds the shard as if it had not been read."""
    cluster = Cluster(kinesis, 1)
    cluster.put([payload(number) for number in range(5)])
    archive = Archive(open_objects(str(tmp_path / "archive")))

    def gathering() -> GroupArchiving:
        reader = KinesisReader(Service(cluster.config), "group.archive", ahead=True, clock=cluster.clock, wait=cluster.wait)
        return GroupArchiving(reader, archive, "", tmp_path, Options(min_free_bytes=0), lambda: 1_700_000_000_000)

    def gather(archiving: GroupArchiving, lanes: int) -> None:
        """Until so many hold something."""
        for _ in range(200):
            archiving.step()
            if sum(lane.held is not None for lane in archiving._lanes.values()) == lanes:
                return
            leases = cast(KinesisReader, archiving._reader)._leases
            assert leases is not None
            leases.round()
        pytest.fail(f"{lanes} shards were never gathered")

    def archived() -> int:
        return sum(entry.contents.payloads for entry in archive.entries())

    first = gathering()
    gather(first, 1)
    assert archived() == 0
    cluster.split(0, HALF)
    cluster.put([payload(number) for number in range(5, 30)])
    first._archive_due = lambda: None  # type: ignore[method-assign]  # killed before it could archive
    for _ in range(5):
        first.step()
    first.close()
    second = gathering()
    gather(second, 2)  # the children, of which nothing was read before
    assert archived() == 5
    second._finish()
    second.close()
    (tmp_path / "room").mkdir()
    rebuilding = Rebuilding(archive, tmp_path / "none", tmp_path / "room", pytest.fail, partial=False)
    assert rebuilding.missing() == []
    found = [item.id for chunk in iter_chunks(rebuilding) for item in chunk.items if isinstance(item, RawPayload)]
    assert sorted(found) == [payload(number).id for number in range(30)]
    third = gathering()  # and it goes on where they ended, through numbers of 186 bits
    cluster.put([payload(30)])
    gather(third, 1)
    third._finish()
    assert archived() == 31
    third.close()


def iter_chunks(reader: Rebuilding) -> Iterator[Chunk]:
    chunk = reader.read({})
    while chunk.items:
        yield chunk
        chunk = reader.read(chunk.cursor)
