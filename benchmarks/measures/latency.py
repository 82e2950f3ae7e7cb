"""From an event's sending to its row in SQL, at light load, through the running product."""

from __future__ import annotations

import http.client
import random
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path

from benchmarks import mix
from benchmarks.load import percentile, wait_until
from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from benchmarks.server import Server, spoorway
from tests.peers.ports import free_port

_PER_S = 20
_QUIET_S = 4.5  # the loader looks less often after about four quiet seconds


def measure(effort: Effort) -> Result:
    port, data = free_port(), effort.folder / "data"
    long = effort.rounds > 1
    seconds, single = (20, 4) if long else (3, 1)
    with Server(spoorway("run", data, port, free_port()), port, effort.folder / "log") as server:
        wait_until(lambda: _stored(data / "events.db", "") is False, 20)
        steady = _Observed(port, data / "events.db")
        chance = random.Random(1)
        # Around its time, not on it: a beat of 50 ms would meet the loader's own beat always at the same places.
        steady.send([(number + chance.random()) / _PER_S for number in range(seconds * _PER_S)])
        sparse = _Observed(port, data / "events.db")
        sparse.send([_QUIET_S * (number + 1) for number in range(single)])
        server.stop()
    return Result(
        "from sending to SQL",
        f"`spoorway run` with its defaults; {_PER_S} events per second for {seconds} s, each in a request of its own; SQLite is "
        "asked for every event's id until it is there.",
        "one page view to a POST, its time moved by chance within its twentieth of a second.",
        [Table("Milliseconds from sending", [
            _row(f"acknowledged (on disk), {_PER_S} events/s", steady.acknowledged_ms),
            _row(f"row to be read in SQL, {_PER_S} events/s", steady.visible_ms),
            _row(f"acknowledged, one event after {_QUIET_S} quiet seconds", sparse.acknowledged_ms),
            _row(f"row to be read in SQL, one event after {_QUIET_S} quiet seconds", sparse.visible_ms),
        ])],
        ["The question is asked every millisecond, so a row may have been there up to a millisecond (and its answer) earlier."],
        {"acknowledged_ms": steady.acknowledged_ms, "visible_ms": steady.visible_ms},
    )  # fmt: skip


class _Observed:
    """Sends events at given times from a thread and looks for their rows."""

    def __init__(self, port: int, file: Path) -> None:
        self._port, self._file = port, file
        self._sent: list[tuple[str, float]] = []
        self.acknowledged_ms: list[float] = []
        self.visible_ms: list[float] = []

    def send(self, at: list[float]) -> None:
        """at: seconds from now. Returns when every row was seen. Raises RuntimeError when one does not come."""
        failures: list[Exception] = []
        sender = threading.Thread(target=self._send, args=(at, failures), daemon=True)
        sender.start()
        seen = 0
        end = time.monotonic() + at[-1] + 20
        with closing(sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True)) as db:
            waiting: list[tuple[str, float]] = []
            while len(self.visible_ms) < len(at):
                waiting += (fresh := self._sent[seen:])
                seen += len(fresh)
                for one in list(waiting):
                    if db.execute("SELECT 1 FROM events WHERE event_id = ?", (one[0],)).fetchone():
                        self.visible_ms.append((time.perf_counter() - one[1]) * 1000)
                        waiting.remove(one)
                if failures or time.monotonic() > end:
                    raise RuntimeError(f"{len(self.visible_ms)} of {len(at)} events arrived: {failures}")
                time.sleep(0.001)
        sender.join()
        self.visible_ms.sort()
        self.acknowledged_ms.sort()

    def _send(self, at: list[float], failures: list[Exception]) -> None:
        chance = random.Random()
        headers = {"Content-Type": mix.CONTENT_TYPE, "User-Agent": mix.USER_AGENT}
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            connection.connect()
            began = time.perf_counter()
            for due in at:
                time.sleep(max(0, began + due - time.perf_counter()))
                event = mix.page_view(chance, time.time_ns() // 1_000_000)
                event["eid"] = str(uuid.uuid4())
                body = mix.post([event])
                now = time.perf_counter()
                self._sent.append((event["eid"], now))
                connection.request("POST", mix.POST_PATH, body, headers)
                answer = connection.getresponse()
                answer.read()
                self.acknowledged_ms.append((time.perf_counter() - now) * 1000)
                if answer.status != 200:
                    raise RuntimeError(f"answered {answer.status}")
            connection.close()
        except Exception as error:  # told by the thread that waits
            failures.append(error)


def _stored(file: Path, event_id: str) -> bool | None:
    """None while there is no such table yet."""
    if not file.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
            return db.execute("SELECT 1 FROM events WHERE event_id = ?", (event_id,)).fetchone() is not None
    except sqlite3.OperationalError:
        return None


def _row(label: str, found: list[float]) -> Row:
    return {
        "what": label,
        "events": f"{len(found)}",
        "p50": percentile(found, 50),
        "p99": percentile(found, 99) if len(found) >= 100 else None,
        "longest": found[-1],
    }
