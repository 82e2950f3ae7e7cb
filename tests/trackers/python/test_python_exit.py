"""What the Python tracker delivers when its program ends, forks, freezes or is closed; against the running product."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spoorway_tracker import Tracker
from tests.end_to_end.conftest import Running
from tests.trackers.python.answering import HANG, OK, Answering

pytestmark = pytest.mark.slow


def run(program: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def counted(product: Running, expected: int) -> dict[str, int]:
    """Stored events by action."""
    product.wait(expected)
    rows = product.query("SELECT se_action, COUNT(*) AS n FROM atomic.events GROUP BY 1")
    return {str(row["se_action"]): int(row["n"]) for row in rows}


def test_plain_end_of_a_program_delivers_everything(spoorway_run: Running, environment: dict[str, str]) -> None:
    program = """
import sys
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1], folder=None)
for n in range(105): tracker.track_structured("exit", "end")
"""
    done = run(program, environment, spoorway_run.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert counted(spoorway_run, 105) == {"end": 105}


def test_forks_multiprocessing_and_threads_deliver_each_event_once(spoorway_run: Running, environment: dict[str, str]) -> None:
    program = """
import multiprocessing, os, sys, threading
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1])
def work(name, count):
    for n in range(count): assert tracker.track_structured("fork", name, durable=n % 10 == 0)
if __name__ == "__main__":
    work("before", 30)
    multiprocessing.set_start_method("fork")
    each = [multiprocessing.Process(target=work, args=("multiprocessing", 50)) for _ in range(3)]
    for process in each: process.start()
    child = os.fork()
    if child == 0:
        work("fork", 40)
        tracker.close()
        os._exit(0)
    threads = [threading.Thread(target=work, args=("thread", 50)) for _ in range(4)]
    for thread in threads: thread.start()
    for one in [*threads, *each]: one.join()
    assert os.waitpid(child, 0)[1] == 0 and all(process.exitcode == 0 for process in each)
"""
    done = run(program, environment, spoorway_run.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert counted(spoorway_run, 420) == {"before": 30, "multiprocessing": 150, "fork": 40, "thread": 200}


def test_child_of_a_fork_has_a_connection_of_its_own_and_the_parent_keeps_his(
    answering: Answering, environment: dict[str, str]
) -> None:
    program = """
import os, sys
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1])
def deliver(name):
    assert tracker.track_structured("fork", name) and tracker.flush(20)
deliver("before")
if (child := os.fork()) == 0:
    deliver("child")
    assert tracker.counters.tracked == tracker.counters.sent == 1
    os._exit(0 if tracker.close(20) else 1)
assert os.waitpid(child, 0)[1] == 0
deliver("after")
assert tracker.counters.attempts == 2
"""
    done = run(program, environment, answering.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["se_ac"] for asked in answering.asked for event in asked.events] == ["before", "child", "after"]
    assert answering.accepted == 2


@pytest.mark.parametrize("options", ["", ", device='till', key='0f' * 32", ", method='get'"], ids=["post", "signed", "get"])
def test_sending_thread_imports_nothing(answering: Answering, environment: dict[str, str], options: str) -> None:
    """A child forked in the middle of an import would find half a module, for ever."""
    later = b"HTTP/1.1 503 Later\r\nRetry-After: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
    answering.answers = [b"HTTP/1.1 200 OK\r\nAccept-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", later, OK]
    program = f"""
import builtins, sys, threading
from spoorway_tracker import Tracker
really, found = builtins.__import__, set()
def watched(*arguments, **named):
    before = set(sys.modules)
    module = really(*arguments, **named)
    if threading.current_thread() is not threading.main_thread():
        found.update(set(sys.modules) - before)
    return module
builtins.__import__ = watched
tracker = Tracker(sys.argv[1], linger_s=0{options})
for _ in range(2):
    for n in range(30): assert tracker.track_structured("imports", "nothing")
    assert tracker.flush(20)
print(sorted(found))
"""
    done = run(program, environment, answering.url.replace("127.0.0.1", "localhost"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_hung_server_delays_the_end_by_two_seconds_and_the_next_start_delivers(
    answering: Answering, environment: dict[str, str]
) -> None:
    """All trackers of a program together; its own hook, made before theirs, runs after them."""
    answering.answers = [HANG]
    program = """
import atexit, sys, time
atexit.register(lambda: print(time.monotonic() - ended))
from spoorway_tracker import Tracker
trackers = [Tracker(sys.argv[1] + path) for path in ("", "/two", "/three")]
for n in range(20): print(trackers[n % 3].track_structured("exit", "hung"))
ended = time.monotonic()
"""
    first = run(program, environment, answering.url)
    assert (first.returncode, first.stderr) == (0, "")
    *ids, took_s = first.stdout.split()
    assert 1.9 < float(took_s) < 5  # and not six
    answering.answers = [OK]
    answering.asked.clear()
    program = "import sys; from spoorway_tracker import Tracker; [Tracker(sys.argv[1] + path) for path in ('', '/two', '/three')]"
    second = run(program, environment, answering.url)
    assert (second.returncode, second.stderr) == (0, "")
    assert sorted(event["eid"] for asked in answering.asked for event in asked.events) == sorted(ids)
    assert not list(Path(environment["SPOORWAY_TRACKER_FOLDER"]).glob("*/lane-*"))


def test_living_program_takes_over_what_another_leaves_behind_later(
    answering: Answering, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoorway_tracker.delivery.ADOPT_EVERY_S", 0.05)
    program = """
import os, sys
from spoorway_tracker import Tracker
print(Tracker(sys.argv[1], background=False).track_structured("left", "behind"), flush=True)
os.kill(os.getpid(), 9)
"""
    with Tracker(answering.url, folder=environment["SPOORWAY_TRACKER_FOLDER"], linger_s=0) as living:
        assert living.track_structured("living", "on") and living.flush(20)
        left = run(program, environment, answering.url).stdout.split()
        end = time.monotonic() + 30
        while len(answering.asked) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert [event["eid"] for event in answering.asked[1].events] == left


def test_exit_out_of_a_signal_handler_does_not_wait_for_itself(answering: Answering, environment: dict[str, str]) -> None:
    """The handler tracks, flushes and leaves while the main thread is in the middle of tracking."""
    program = """
import os, signal, sys
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1], linger_s=0.01)
def end(*_):
    tracker.track_structured("signal", "handler")
    tracker.close(1)
    sys.exit(7)
signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
while True: tracker.track_structured("signal", "main", durable=True)
"""
    for moment in (0.1, 0.15, 0.2):
        began = time.monotonic()
        done = run(program, environment, answering.url, str(moment))
        assert done.returncode == 7, done.stderr
        assert time.monotonic() - began < 20


def test_frozen_program_and_frozen_gateway_lose_and_repeat_nothing(spoorway_run: Running, environment: dict[str, str]) -> None:
    program = """
import sys, time
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1], linger_s=0.01, timeout_s=0.5)
for n in range(300):
    tracker.track_structured("freeze", "thaw", value=n)
    time.sleep(0.005)
tracker.close(20)
"""
    with subprocess.Popen([sys.executable, "-c", program, spoorway_run.url], env=environment) as frozen:
        for pid in (spoorway_run.process.pid, frozen.pid, spoorway_run.process.pid):
            time.sleep(0.25)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.8)
            os.kill(pid, signal.SIGCONT)
        assert frozen.wait(40) == 0
    spoorway_run.until(
        lambda: spoorway_run.query("SELECT COUNT(*) AS n FROM atomic.events")[0]["n"] >= 300, lambda: "not all events arrived"
    )
    rows = spoorway_run.query("SELECT COUNT(*) AS n, COUNT(DISTINCT se_value) AS different FROM atomic.events")
    assert rows == [{"n": 300, "different": 300}]


def test_mqtt_is_acknowledged_and_stored(start: object, tmp_path: Path) -> None:
    assert callable(start)
    product: Running = start("--mqtt", "127.0.0.1:0")
    url = _mqtt_url(product)
    with Tracker(f"{url}/greenhouse", "app", folder=tmp_path / "queue", platform="iot") as tracker:
        for n in range(50):
            assert tracker.track_structured("mqtt", "reading", value=n, durable=True)
        assert tracker.flush(20)
        assert tracker.counters.sent == 50
    assert counted(product, 50) == {"reading": 50}


def _mqtt_url(product: Running) -> str:
    import json

    url: str = json.loads((product.data / "running.json").read_text())["urls"]["mqtt"][0]
    return url.rstrip("/")
