"""The durable queue of the Python tracker: what is in it after damage, full disks, forks, and other processes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spoorway_tracker import Tracker
from spoorway_tracker.disk import DiskQueue
from spoorway_tracker.lane import claim
from spoorway_tracker.queues import Full, MemoryQueue, Queue

NOW = 1_768_471_200_000
DAY_S = 86_400.0
RECORDS = [b'{"n":"%d"}' % n for n in range(100)]


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


def disk(folder: Path, clock: Clock | None = None, max_bytes: int = 1 << 20, segment_bytes: int = 200) -> DiskQueue:
    return DiskQueue(folder, max_bytes, 30 * DAY_S, clock or Clock(), segment_bytes)


def drained(queue: Queue, size: int = 50) -> list[bytes]:
    found: list[bytes] = []
    while (batch := queue.batch(size)) is not None:
        found += batch.records
        queue.acknowledge(batch)
    return found


@pytest.fixture(params=["disk", "memory"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Queue:
    return disk(tmp_path) if request.param == "disk" else MemoryQueue(1 << 20, 30 * DAY_S, Clock())


def test_what_went_in_comes_out_in_order(queue: Queue) -> None:
    for record in RECORDS:
        queue.append(NOW, record)
    assert drained(queue) == RECORDS
    assert queue.pending_bytes() == 0


def test_batch_keeps_to_its_bytes_but_has_at_least_one(queue: Queue, tmp_path: Path) -> None:
    queue = disk(tmp_path / "one segment", segment_bytes=1 << 20) if isinstance(queue, DiskQueue) else queue
    sizes = (10, 10, 10, 600, 10, 200, 10)
    for size in sizes:
        queue.append(NOW, b"{" + b"x" * (size - 2) + b"}")
    found: list[list[int]] = []
    while (batch := queue.batch(150)) is not None:
        found.append([len(record) for record in batch.records])
        queue.acknowledge(batch)
    assert found == [[10, 10, 10], [600], [10], [200], [10]]


def test_part_of_a_batch_may_be_acknowledged(queue: Queue) -> None:
    for record in RECORDS[:5]:
        queue.append(NOW, record)
    batch = queue.batch(1000)
    assert batch is not None
    queue.acknowledge(batch, 2)
    assert drained(queue) == RECORDS[2:5]


def test_full_queue_refuses_the_newest_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    queue = disk(tmp_path, max_bytes=500)
    taken = 0
    with pytest.raises(Full):
        for record in RECORDS:
            queue.append(NOW, record)
            taken += 1
    assert 5 < taken < 30 and queue.pending_bytes() <= 500
    assert drained(queue) == RECORDS[:taken]
    queue.append(NOW, b"{}")


def test_event_older_than_the_limit_is_skipped_and_counted(queue: Queue) -> None:
    queue.append(NOW - 31 * 86_400_000, RECORDS[0])
    queue.append(NOW, RECORDS[1])
    batch = queue.batch(1000)
    assert batch is not None and (batch.records, batch.old) == ([RECORDS[1]], 1)


def test_event_of_a_clock_that_was_never_set_is_not_called_old(queue: Queue) -> None:
    queue.append(5_000, RECORDS[0])
    assert drained(queue) == RECORDS[:1]


def test_segments_that_are_acknowledged_are_deleted(tmp_path: Path) -> None:
    queue = disk(tmp_path)
    for record in RECORDS:
        queue.append(NOW, record)
    (lane,) = tmp_path.glob("lane-*")
    assert len([f for f in lane.iterdir() if f.name.isdigit()]) > 10
    drained(queue)
    assert len([f for f in lane.iterdir() if f.name.isdigit()]) == 1
    queue.close()
    assert not lane.exists()


def left_behind(folder: Path, count: int = 20, **options: int) -> Path:
    """A lane whose process is gone; its folder."""
    queue = disk(folder, **options)
    for record in RECORDS[:count]:
        queue.append(NOW, record)
    queue.close()
    (lane,) = folder.glob("lane-*")
    return lane


def test_what_is_left_is_taken_over_by_the_next(tmp_path: Path) -> None:
    lane = left_behind(tmp_path)
    queue = disk(tmp_path)
    assert queue.adopt() > 0
    queue.append(NOW, b"{}")
    assert drained(queue) == [*RECORDS[:20], b"{}"]
    assert not lane.exists()


def test_what_was_taken_over_counts_towards_the_limit(tmp_path: Path) -> None:
    left_behind(tmp_path)
    queue = disk(tmp_path, max_bytes=650)
    queue.adopt()
    assert queue.pending_bytes() > 600
    with pytest.raises(Full):
        for _ in range(5):
            queue.append(NOW, RECORDS[0])


def test_lane_of_a_living_queue_is_left_alone(tmp_path: Path) -> None:
    first, second = disk(tmp_path), disk(tmp_path)
    first.append(NOW, b"{}")
    assert second.adopt() == 0
    first.close()
    assert second.adopt() > 0


def test_lock_that_its_owner_has_just_removed_is_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two come by while a lane is removed: one holds the old file's lock, one the new one's. The file that is there counts."""
    lane, really = left_behind(tmp_path), fcntl.flock

    def overtaken(fd: int, how: int) -> None:
        (lane / "lock").unlink()
        (lane / "lock").touch()
        really(fd, how)

    with monkeypatch.context() as other:
        other.setattr("spoorway_tracker.lane.fcntl.flock", overtaken)
        assert claim(lane) is None
    assert disk(tmp_path).adopt() > 0


def test_torn_last_line_costs_itself_only(tmp_path: Path) -> None:
    lane = left_behind(tmp_path, 4, segment_bytes=1000)
    (segment,) = (f for f in lane.iterdir() if f.name.isdigit())
    segment.write_bytes(segment.read_bytes()[:-5])
    queue = disk(tmp_path)
    queue.adopt()
    assert drained(queue) == RECORDS[:3]


def test_damaged_line_costs_itself_only(tmp_path: Path) -> None:
    lane = left_behind(tmp_path, 4, segment_bytes=1000)
    (segment,) = (f for f in lane.iterdir() if f.name.isdigit())
    segment.write_bytes(segment.read_bytes().replace(b'{"n":"1"}', b'{"n":"7"}'))
    queue = disk(tmp_path)
    queue.adopt()
    batch = queue.batch(1000)
    assert batch is not None and (batch.records, batch.damaged) == ([RECORDS[0], RECORDS[2], RECORDS[3]], 1)


@pytest.mark.parametrize("content", [b"", b"\0" * 20, b"99999999999999999999", b"-5", b"x"])
def test_damaged_mark_of_what_is_acknowledged_loses_nothing(tmp_path: Path, content: bytes) -> None:
    lane = left_behind(tmp_path)
    (lane / "acknowledged").write_bytes(content)
    queue = disk(tmp_path)
    queue.adopt()
    assert drained(queue) == RECORDS[:20]


def test_full_disk_refuses_and_what_is_there_stays_whole(tmp_path: Path) -> None:
    """A real one: a file system of 64 KiB, in a program of its own since it needs the right to mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True, check=False
    ).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        queue = disk(small, segment_bytes=1 << 20)
        taken, record = 0, b"{" + b"x" * 997 + b"}"
        with pytest.raises(OSError, match=r"full|No space"):
            for _ in range(100):
                queue.append(NOW, record)
                taken += 1
        assert taken > 30
        (lane,) = small.glob("lane-*")
        size = sum(f.stat().st_size for f in lane.iterdir() if f.name.isdigit())
        assert size == taken * (len(record) + 24)  # nothing of the refused one
        assert drained(queue, 10_000) == [record] * taken
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_sync_covers_all_that_was_written_and_is_told_by_position(tmp_path: Path) -> None:
    queue = disk(tmp_path)
    position = queue.append(NOW, b"{}")
    assert queue.sync(position)
    assert queue.sync()


def test_signal_handler_in_the_middle_of_a_write_is_refused_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line of the one would else be followed by the other."""
    queue, really, refused = disk(tmp_path, segment_bytes=1 << 20), os.write, list[OSError]()

    def interrupted(fd: int, line: bytes) -> int:
        done = really(fd, line[:5])
        try:
            queue.append(NOW, RECORDS[1])
        except OSError as error:
            refused.append(error)
        return done + really(fd, line[5:])

    with monkeypatch.context() as patched:
        patched.setattr("spoorway_tracker.disk.os.write", interrupted)
        queue.append(NOW, RECORDS[0])
    queue.append(NOW, RECORDS[2])
    assert [error.errno for error in refused] == [errno.EBUSY]
    assert drained(queue) == [RECORDS[0], RECORDS[2]]


def test_failed_sync_is_never_trusted_and_the_next_segment_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only way to make fdatasync fail here is to put another in its place."""
    queue = disk(tmp_path, segment_bytes=1 << 20)

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    first = queue.append(NOW, RECORDS[0])
    with monkeypatch.context() as broken:
        broken.setattr("spoorway_tracker.disk._datasync", fails)
        assert not queue.sync(first)
    assert not queue.sync(first), "a later fdatasync says nothing about what an earlier one failed for"
    assert queue.sync(queue.append(NOW, RECORDS[1]))
    assert drained(queue) == RECORDS[:2]


def test_child_of_a_fork_has_an_empty_queue_and_disturbs_nothing(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from spoorway_tracker.disk import DiskQueue
from spoorway_tracker.lane import claim
folder = Path({str(tmp_path)!r})
queue = DiskQueue(folder, 1 << 20, 1e9, lambda: {NOW})
queue.append({NOW}, b'{{"parent":1}}')
if os.fork() == 0:
    queue.forget()
    assert queue.pending_bytes() == 0 and queue.adopt() == 0
    queue.append({NOW}, b'{{"child":1}}')
    os._exit(0)
assert os.wait()[1] == 0
assert queue.adopt() > 0   # the child's, which has ended
print([record for _ in range(2) for batch in [queue.batch(5)] if batch for record in batch.records
       if queue.acknowledge(batch) is None])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "trackers/python")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == """[b'{"child":1}', b'{"parent":1}']"""


def test_calls_that_are_not_durable_share_a_sync_that_comes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really, sizes, all_of_it = os.fdatasync, list[int](), threading.Event()

    def watched(fd: int) -> None:
        really(fd)
        sizes.append(os.fstat(fd).st_size)
        if sizes[-1] == expected:
            all_of_it.set()

    monkeypatch.setattr("spoorway_tracker.disk._datasync", watched)
    expected = -1
    with Tracker("http://127.0.0.1:9", folder=tmp_path, sync_s=0.3, exit_limit_s=0) as tracker:
        for _ in range(200):
            assert tracker.track_structured("a", "b")
        expected = tracker.delivery.queue.pending_bytes()
        assert sizes.count(expected) or all_of_it.wait(30)
        assert len(sizes) < 100
        assert tracker.track_structured("a", "b", durable=True)
        assert sizes[-1] == tracker.delivery.queue.pending_bytes()
