"""A running `spoorway run` on a fresh data folder: the product as its user has it, on ports the system chooses."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.seams import ConfigurationError
from spoorway.database import open_read_only
from tests.peers.s3_server import S3Server

_START_S = 60
_WAIT_S = 180


class Running:
    """url: where trackers send. admin: where metrics are."""

    def __init__(self, data: Path, arguments: list[str]) -> None:
        self.data = data
        self.errors = data.parent / "stderr.txt"
        listen = ("--http", "127.0.0.1:0", "--admin", "127.0.0.1:0")
        command = [sys.executable, "-m", "spoorway", "run", "--data", str(data), *listen, *arguments]
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        self.announced = "".join(iter(self.process.stdout.readline, "ready\n")) if self._started() else ""
        state = json.loads((data / "running.json").read_text())
        self.url: str = state["urls"]["http"][0]
        self.admin: str = state["admin"]

    def _started(self) -> bool:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if (self.data / "running.json").exists():
                return True
            if self.process.poll() is not None:
                raise AssertionError(self.errors.read_text())
            time.sleep(0.01)
        raise AssertionError("spoorway run did not start")

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of the store attached as `atomic`."""
        with contextlib.closing(open_read_only(self.data / "events.db")) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, values)]

    def wait(self, count: int) -> None:
        """Until `count` events are stored, failed or dropped as duplicates."""
        self.until(lambda: self.totals() >= count, lambda: f"{self.totals()} of {count} events arrived")

    def totals(self) -> int:
        if not (self.data / "events.db").exists():
            return 0
        try:
            (row,) = self.query("SELECT stored + failed + duplicate AS n FROM atomic.totals")
        except ConfigurationError:  # the file is there, its tables are being made
            return 0
        return int(row["n"])

    def until(self, true: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Asks again and again. A store that is not there yet is no answer."""
        end = time.monotonic() + _WAIT_S
        while True:
            with contextlib.suppress(ConfigurationError):
                if true():
                    return
            assert time.monotonic() < end, otherwise()
            time.sleep(0.02)

    def get(self, url: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`start(*arguments)`: another start on the same data folder; all are ended with the test."""
    started: list[Running] = []

    def begin(*arguments: str) -> Running:
        started.append(Running(tmp_path / "data", list(arguments)))
        return started[-1]

    yield begin
    for each in started:
        each.stop()


@pytest.fixture
def spoorway_run(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def s3() -> Iterator[S3Server]:
    """A store of this test's own, and in the environment what finds it."""
    with S3Server() as server, server.in_environment():
        yield server
