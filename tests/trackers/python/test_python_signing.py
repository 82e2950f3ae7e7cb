"""Signed requests of the Python tracker: their numbers over restarts, forks, damage and refusals; and the running gateway."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.journal import Damage
from gateway.journal.reader import FileReader
from spoorway_tracker import Tracker
from spoorway_tracker.signing import Signer
from tests.end_to_end.conftest import Running
from tests.trackers.python.answering import OK, Answering, Asked, status

KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
NOW_S = 1_768_471_200
TP2 = "/com.snowplowanalytics.snowplow/tp2"


def signer(folder: Path, now_s: int = NOW_S, device: str = "pump-7") -> Signer:
    return Signer(device, KEY, folder, lambda: now_s * 1000)


def numbers(one: Signer) -> tuple[int, int]:
    headers = one.headers("/i", b"")
    return int(headers["Spoorway-Boot"]), int(headers["Spoorway-Sequence"])


Make = Callable[..., Tracker]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A tracker that signs and sends when a test says flush, again at once."""
    made: list[Tracker] = []

    def new(url: str, **options: Any) -> Tracker:
        options = {"folder": tmp_path / "queue", "background": False, "device": "pump-7", "key": KEY, **options}
        tracker = Tracker(url, "app", **options)
        tracker.delivery.sender.chance = lambda: 0.01
        made.append(tracker)
        return tracker

    yield new
    for tracker in made:
        tracker.close(0)


def is_signed_as_documented(asked: Asked) -> bool:
    """docs/devices.md, worked out by hand."""
    named = {name: asked.headers[f"spoorway-{name}"] for name in ("device", "boot", "sequence", "signature")}
    text = f"{named['device']}\n{named['boot']}\n{named['sequence']}\n{asked.target}\n".encode() + asked.body
    expected = hmac.new(bytes.fromhex(KEY), text, hashlib.sha256).hexdigest()
    return len(named["signature"]) >= 16 and expected.startswith(named["signature"])


def test_each_message_is_signed_as_it_is_sent_and_has_the_next_number(answering: Answering, make: Make) -> None:
    tracker = make(answering.url, gzip=True)
    for _ in range(3):
        for _ in range(30):
            tracker.track_structured("a", "b")
        assert tracker.flush(5)
    assert all(map(is_signed_as_documented, answering.asked))
    assert {asked.headers["content-encoding"] for asked in answering.asked} == {"gzip"}
    assert [asked.headers["spoorway-sequence"] for asked in answering.asked] == ["1", "2", "3"]
    assert len({asked.headers["spoorway-boot"] for asked in answering.asked}) == 1


def test_get_is_signed_with_its_query(answering: Answering, make: Make) -> None:
    tracker = make(answering.url, method="get")
    for n in range(2):
        tracker.track_structured("a", f"é{n}")
    assert tracker.flush(5)
    assert all(map(is_signed_as_documented, answering.asked)) and len(answering.asked) == 2


def test_numbers_count_on_over_a_restart_and_begin_with_the_time(tmp_path: Path) -> None:
    first = signer(tmp_path)
    assert [numbers(first) for _ in range(3)] == [(NOW_S, 1), (NOW_S, 2), (NOW_S, 3)]
    assert numbers(signer(tmp_path, now_s=5)) == (NOW_S, 4)
    assert numbers(signer(tmp_path, device="other")) == (NOW_S, 1)


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 30, b"1768471200 0000000009 00000000\n"], ids=["empty", "x", "nul", "sum"])
def test_damaged_numbers_begin_a_boot_above_the_earlier_ones(tmp_path: Path, damage: bytes) -> None:
    assert numbers(signer(tmp_path)) == (NOW_S, 1)
    (file,) = tmp_path.glob("numbers-*")
    file.write_bytes(damage)
    assert numbers(signer(tmp_path, now_s=NOW_S + 60)) == (NOW_S + 60, 1)


def test_refused_number_begins_a_boot_once_for_all_who_share_it(tmp_path: Path) -> None:
    first, second = signer(tmp_path, now_s=7), signer(tmp_path, now_s=7)
    assert [numbers(first), numbers(second)] == [(7, 1), (7, 2)]
    first.refused()
    second.refused()
    assert [numbers(first), numbers(second), numbers(first)] == [(8, 1), (8, 2), (8, 3)]
    (tmp_path / "numbers-pump-7").unlink()
    assert numbers(first) == (7, 1)  # by the clock, as at a first start; and not 0


def test_number_is_read_and_written_under_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, held = signer(tmp_path), list[bool]()
    numbers(one)

    def watched(really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with (tmp_path / "numbers-pump-7").open() as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(True)
            return really(*arguments)

        return call

    with monkeypatch.context() as patched:
        for name in ("pread", "pwrite"):
            patched.setattr(f"spoorway_tracker.signing.os.{name}", watched(getattr(os, name)))
        numbers(one)
    assert held == [True, True]


def test_lock_does_not_stay_with_a_child_that_was_forked_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a child has copies of all descriptors, and closes only those it knows."""
    one, really, copies = signer(tmp_path), os.open, list[int]()

    def copied(*arguments: Any) -> int:
        copies.append(os.dup(fd := really(*arguments)))
        return fd

    with monkeypatch.context() as patched:
        patched.setattr("spoorway_tracker.signing.os.open", copied)
        numbers(one)
    with (tmp_path / "numbers-pump-7").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for fd in copies:
        os.close(fd)


def test_numbers_of_many_processes_never_repeat(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from spoorway_tracker.signing import Signer
one = Signer("pump-7", {KEY!r}, Path(sys.argv[1]), lambda: {NOW_S * 1000})
for _ in range(200):
    found = one.headers("/i", b"")
    print(found["Spoorway-Boot"], found["Spoorway-Sequence"])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "trackers/python")}
    command = [sys.executable, "-c", program, str(tmp_path)]
    each = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [line for process in each for line in process.communicate(timeout=60)[0].splitlines()]
    assert sorted(said, key=lambda line: int(line.split()[1])) == [f"{NOW_S} {n}" for n in range(1, 801)]


def test_409_loses_nothing_and_the_next_attempt_is_of_a_new_boot(answering: Answering, make: Make) -> None:
    answering.answers = [status(409), OK]
    tracker = make(answering.url, clock_ms=lambda: NOW_S * 1000)
    event_id = tracker.track_structured("a", "b")
    assert tracker.flush(5)
    assert [asked.headers["spoorway-boot"] for asked in answering.asked] == [str(NOW_S), str(NOW_S + 1)]
    assert [asked.events[0]["eid"] for asked in answering.asked] == [event_id] * 2
    assert tracker.counters.sent == 1 and not tracker.counters.dropped


@pytest.mark.parametrize("code", [401, 403])
def test_refused_key_keeps_the_events(answering: Answering, make: Make, code: int) -> None:
    answering.answers = [status(code), OK]
    tracker = make(answering.url)
    tracker.track_structured("a", "b")
    assert tracker.flush(5) and len(answering.asked) == 2


def test_repetition_on_a_new_connection_is_a_copy_byte_for_byte(answering: Answering, make: Make) -> None:
    """So that the gateway acknowledges it as one."""
    answering.answers = [OK, b"reset", OK]
    tracker = make(answering.url)
    for _ in range(2):
        tracker.track_structured("a", "b")
        assert tracker.flush(5)
    _, sent, again = answering.asked
    assert (sent.headers, sent.body) == (again.headers, again.body)
    assert tracker.counters.failed_attempts == 0


def test_numbers_that_cannot_be_kept_keep_the_events(answering: Answering, make: Make, tmp_path: Path) -> None:
    tracker = make(answering.url)
    tracker.track_structured("a", "b")
    (folder,) = (tmp_path / "queue").iterdir()
    (folder / "numbers-pump-7").mkdir()
    assert not tracker.flush(0.2) and answering.asked == []
    (folder / "numbers-pump-7").rmdir()
    assert tracker.flush(5)


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("http://x", {"key": KEY[:-1]}, "64 hex digits"),
        ("http://x", {"key": ""}, "64 hex digits"),
        ("http://x", {"device": "a/b"}, "no device's name"),
        ("http://x", {"device": ""}, "no device's name"),
        ("http://x", {"folder": None}, "needs a folder"),
        ("mqtt://x/pump-7", {}, "password"),
    ],
)
def test_what_cannot_be_signed_is_told_at_the_start_without_the_key(
    make: Make, url: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why) as told:
        make(url, **options)
    assert KEY[:-1] not in str(told.value)


# Against the running gateway ------------------------------------------------------------------------------------------


def added(data: Path, *arguments: str) -> str:
    """The key that `spoorway device add` prints, in its own words."""
    command = [sys.executable, "-m", "spoorway", "device", *arguments, "--data", str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    key: str = json.loads(done.stdout.splitlines()[0])["key"]
    return key


def journaled(data: Path) -> Counter[tuple[str | None, str | None]]:
    """How often each (device, message sequence) is in the journal."""
    reader, cursor = FileReader(data / "journal"), {}
    found: Counter[tuple[str | None, str | None]] = Counter()
    while (chunk := reader.read(cursor)).items:
        cursor = dict(chunk.cursor)
        for item in chunk.items:
            assert not isinstance(item, Damage)
            found[item.device, dict(item.headers).get("Spoorway-Sequence")] += 1
    reader.close()
    return found


@pytest.mark.slow
def test_gateway_takes_signed_messages_of_several_processes_once(
    start: Callable[..., Running], environment: dict[str, str], tmp_path: Path
) -> None:
    key = added(tmp_path / "data", "add", "till-3", "--kind", "hmac")
    product = start()
    program = """
import os, sys
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1], "till", device="till-3", key=sys.argv[2], linger_s=0.01)
children = []
for name in ("a", "b", "c"):
    if not (child := os.fork()):
        for n in range(40): assert tracker.track_structured("sale", name, value=n, durable=True)
        ended = tracker.close(30)
        os._exit(0 if ended and not tracker.counters.failed_attempts else 1)
    children.append(child)
for n in range(40): assert tracker.track_structured("sale", "parent", value=n, durable=True)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
assert tracker.close(30)
"""
    for number in (1, 2):  # the second start counts on
        done = subprocess.run(
            [sys.executable, "-c", program, product.url, key],
            env=environment, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        product.wait(160 * number)
    rows = product.query("SELECT COUNT(*) AS n, COUNT(DISTINCT event_id) AS ids FROM atomic.events WHERE app_id = 'till'")
    assert rows == [{"n": 320, "ids": 320}]
    assert product.query("SELECT duplicate AS n FROM atomic.totals") == [{"n": 0}]
    found = journaled(product.data)
    assert {device for device, _ in found} == {"till-3"} and set(found.values()) == {1}


@pytest.mark.slow
def test_what_was_signed_once_cannot_be_said_again(start: Callable[..., Running], make: Make, tmp_path: Path) -> None:
    """Requests as the tracker made them, recorded on the way, and sent again by somebody else."""
    key = added(tmp_path / "data", "add", "pump-7")
    product = start()
    with Answering() as tap:
        tracker = make(tap.url, key=key)
        for n in range(3):
            tracker.track_structured("a", str(n))
            assert tracker.flush(5)
    first, second, third = tap.asked

    def replay(asked: Asked, body: bytes | None = None, **other: str) -> int:
        connection = http.client.HTTPConnection(product.url.removeprefix("http://"), timeout=20)
        try:
            headers = {**asked.headers, **other}
            del headers["content-length"], headers["host"]
            connection.request(asked.method, asked.target, asked.body if body is None else body, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    assert [replay(second), replay(first), replay(first)] == [200, 200, 200]
    assert replay(third, third.body.replace(b'"2"', b'"9"')) == 401
    assert replay(third, **{"spoorway-sequence": "99"}) == 401
    assert replay(third, **{"spoorway-device": "pump-8"}) == 401
    product.wait(2)
    assert journaled(product.data) == {("pump-7", "1"): 1, ("pump-7", "2"): 1}
    later = make(product.url, folder=tmp_path / "elsewhere", key=key, clock_ms=lambda: 4_000_000_000_000)  # a later boot
    later.track_structured("a", "later")
    assert later.flush(20)
    assert replay(third) == 409


@pytest.mark.slow
def test_lost_numbers_wrong_keys_and_rotation_lose_nothing(start: Callable[..., Running], make: Make, tmp_path: Path) -> None:
    key = added(tmp_path / "data", "add", "pump-7")
    product, told = start(), list[str]()

    def deliver(which: str, limit_s: float = 20, **options: Any) -> bool:
        def tell(reason: str, count: int, details: str) -> None:
            told.append(details)

        tracker = make(product.url, key=which, on_error=tell, **options)
        assert tracker.track_structured("a", "b")
        return tracker.close(limit_s)

    assert deliver(key)
    (file,) = (tmp_path / "queue").glob("*/numbers-pump-7")
    text = file.read_text()
    file.write_text("")
    assert not deliver(key, 0.5, clock_ms=lambda: 5_000) and told[-1].startswith("409")  # neither numbers nor a clock
    file.write_text(text)
    assert deliver(key)
    assert not deliver("f" * 64, 0.3) and told[-1].startswith("401")
    new = added(product.data, "rotate", "pump-7")
    product.until(lambda: deliver(new, 1), lambda: told[-1])
    product.until(lambda: product.totals() >= 5, lambda: f"{product.totals()} events")
    assert product.query("SELECT COUNT(DISTINCT event_id) - COUNT(*) AS n FROM atomic.events") == [{"n": 0}]


@pytest.mark.slow
def test_command_signs_with_the_key_of_its_environment(
    start: Callable[..., Running], environment: dict[str, str], tmp_path: Path
) -> None:
    key = added(tmp_path / "data", "add", "cron-1", "--kind", "hmac")
    product = start()
    line = '{"verb": "structured", "category": "backup", "action": "done"}\n'
    command = [sys.executable, "-m", "spoorway_tracker.cli", product.url, "--app", "cron", "--device", "cron-1"]
    done = subprocess.run(
        command,
        input=line,
        env=environment | {"SPOORWAY_DEVICE_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "1 taken, 1 sent, 0 refused\n")
    product.wait(1)
    assert journaled(product.data) == {("cron-1", "1"): 1}
    without = subprocess.run(command, input=line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert without.returncode == 2 and "64 hex digits" in without.stderr
