"""A topic of a real Kafka, a store in SQLite and the workers that load it, as processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from gateway.journal.kafka import key_of
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, RawPayload
from spoorway.database import open_read_only

WAIT_S = 60
PARTITIONS = 4
RECEIVED = 1_700_000_000_000


class Site:
    """A topic, a store in SQLite that all workers share, and the workers, each in a data folder of its own."""

    def __init__(self, folder: Path, bootstrap: str, topic: str, more: str = "") -> None:
        """more: of the configuration."""
        self.folder, self.store, self.bootstrap, self.topic = folder, folder / "events.db", bootstrap, topic
        self.config = folder / "spoorway.toml"
        self.config.write_text(
            f'[journal.kafka]\nbrokers = ["{bootstrap}"]\ntopic = "{topic}"\ngroup = "{topic}"\nsession_ms = 3000\n'
            f'[storage.targets.sqlite]\npath = "{self.store}"\n{more}',
            "utf-8",
        )
        self._workers: list[subprocess.Popen[str]] = []
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
            made.result(30)

    def worker(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """The process and where it is asked; it is ready to read, its lanes come when the group gives them."""
        data = self.folder / f"data{len(self._workers)}"
        command = [sys.executable, "-m", "spoorway", "worker", "--config", str(self.config), "--data", str(data)]
        with (self.folder / "stderr.txt").open("a") as errors:
            process = subprocess.Popen(
                [*command, "--admin", "127.0.0.1:0", *arguments], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._workers.append(process)
        assert process.stdout is not None
        said = "".join(iter(process.stdout.readline, "ready\n")) if process.poll() is None else ""
        return process, said.partition("admin   ")[2].split()[0]

    def send(self, first: int, last: int) -> None:
        """An event per payload, from one of forty browsers, numbered in the order in which it is sent."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True})
        for number in range(first, last):
            eid = f"00000000-0000-4000-8000-{number:012d}"
            query = f"e=se&se_ca=c&se_ac=a&se_pr={number}&p=web&tv=t-1&aid=shop&eid={eid}"
            payload = RawPayload(
                f"{number:032x}",
                RECEIVED + number,
                "http",
                "/i",
                query=query,
                network_userid=f"{number % 40:08d}-0000-4000-8000-000000000000",
            )
            producer.produce(self.topic, to_json(payload), key_of(payload))
        assert producer.flush(30) == 0

    def rows(self, question: str) -> list[tuple[object, ...]]:
        with contextlib.suppress(ConfigurationError), contextlib.closing(open_read_only(self.store)) as db:
            return [tuple(row) for row in db.execute(question)]
        return []

    def stored(self) -> int:
        return int(str(rows[0][0])) if (rows := self.rows("SELECT stored FROM atomic.totals")) else 0

    def until(self, true: Callable[[], bool], otherwise: Callable[[], object]) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end, f"{otherwise()}\n{(self.folder / 'stderr.txt').read_text()[-3000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        for process in self._workers:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(admin: str) -> dict[str, float]:
    lines = [line for line in get(f"{admin}/metrics")[1].splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0].removeprefix("spoorway_"): float(line.rpartition(" ")[2]) for line in lines}
