"""Erasing, retention, backup and restore beside a running `spoorway run`, as a user types them; and kill -9 in the midst."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.end_to_end.conftest import Running

POST = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"

ROUNDS = int(os.environ.get("SPOORWAY_ERASE_KILLS", "3"))

pytestmark = pytest.mark.slow


def send(running: Running, *events: dict[str, str]) -> None:
    body = json.dumps({"schema": POST, "data": [{"e": "pv", "p": "web", "tv": "t", "aid": "shop", **event} for event in events]})
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{running.url}/com.snowplowanalytics.snowplow/tp2", body.encode(), headers)
    urllib.request.urlopen(request, timeout=30).close()


def command(data: Path, *arguments: str, code: int = 0) -> str:
    made = [sys.executable, "-m", "spoorway", *arguments, "--data", str(data)]
    done = subprocess.run(made, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def journal(data: Path) -> bytes:
    paths = sorted((data / "journal").rglob("*.ndjson*"))
    return b"".join(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in paths)


def users(running: Running) -> dict[str, int]:
    return {row["user_id"]: row["n"] for row in running.query("SELECT user_id, count(*) AS n FROM atomic.events GROUP BY 1")}


class Sender(threading.Thread):
    """Keeps posting events of u-0 to u-3 until it is told to end; counts what was acknowledged."""

    def __init__(self, running: Running) -> None:
        super().__init__(daemon=True)
        self.running, self.ending, self.sent = running, threading.Event(), 0

    def run(self) -> None:
        while not self.ending.is_set():
            send(self.running, *({"uid": f"u-{n}"} for n in range(4)))
            self.sent += 4

    def end(self) -> int:
        self.ending.set()
        self.join(60)
        return self.sent


def test_a_person_is_erased_while_others_go_on_sending(start: Callable[..., Running]) -> None:
    running = start()
    send(running, *({"uid": f"u-{n}"} for n in range(4)), {"uid": "gone", "eid": "no uuid"}, {"uid": "gone"})
    running.wait(6)
    sender = Sender(running)
    sender.start()
    would = json.loads(command(running.data, "erase", "--user", "gone", "--dry-run", "--json"))
    assert would == {"journal": {"payloads": 1, "events": 2}, "stores": {"sqlite": {"events": 1, "failed": 1}}}
    assert "gone" in users(running)
    receipt = json.loads(command(running.data, "erase", "--user", "gone", "--yes", "--json"))
    assert (receipt["stores"]["sqlite"]["events"], receipt["stores"]["sqlite"]["failed"]) == (1, 1)
    assert [one["events"] for one in receipt["journal"].values()] == [2]
    accepted = sender.end() + 6
    running.wait(accepted - 2)
    running.until(lambda: running.totals() == accepted - 2, lambda: f"{running.totals()} of {accepted}")
    assert users(running).keys() == {"u-0", "u-1", "u-2", "u-3"}
    _, metrics = running.get(f"{running.admin}/metrics")
    assert 'spoorway_target_events_total{target="sqlite",outcome="erased"} 2' in metrics
    assert running.stop() == 0
    assert b"gone" not in journal(running.data)
    told = command(running.data, "doctor")
    assert "erased 2 + pending 0" in told and "damaged" not in told
    command(running.data, "replay", "--to", "sqlite")
    assert users(running).keys() == {"u-0", "u-1", "u-2", "u-3"}
    assert "erased 2 + pending 0" in command(running.data, "doctor")


def test_killed_at_any_moment_an_erasure_is_finished_by_resume(start: Callable[..., Running]) -> None:
    """kill -9 of the command, of the product, or of both."""
    running, chance, people = start(), random.Random(9), ROUNDS + 2
    for _ in range(30):
        send(running, *({"uid": f"u-{n}"} for n in range(people)))
    running.wait(30 * people)
    killed = 0
    for number in range(ROUNDS):
        made = [sys.executable, "-m", "spoorway", "erase", "--user", f"u-{number}", "--yes", "--data", str(running.data)]
        erasing = subprocess.Popen(made, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        asked = running.data / "erasures"
        end = time.monotonic() + 60
        while not list(asked.glob("*.asked")) and erasing.poll() is None:
            assert time.monotonic() < end
        time.sleep(chance.random() * 0.4)
        what = number % 3
        if what != 1 and erasing.poll() is None:
            killed += 1
            erasing.kill()
        if what != 0:
            running.process.kill()
            running.stop()
            (running.data / "running.json").unlink()
            running = start()
        erasing.wait(120)
        command(running.data, "erase", "--resume")
        assert not list(asked.glob("*.asked"))
        receipts = [json.loads(path.read_text()) for path in sorted(asked.glob("*.json"))]
        assert len(receipts) == number + 1
        assert [receipt["stores"]["sqlite"]["events"] for receipt in receipts] == [30] * (number + 1)
        assert users(running) == {f"u-{n}": 30 for n in range(number + 1, people)}
    assert killed >= 1
    assert running.stop() == 0
    text = journal(running.data)
    assert not [n for n in range(ROUNDS) if b'"u-%d\\"' % n in text] and text.count(b'"u-%d\\"' % ROUNDS) == 30
    assert f"= stored 60 + failed 0 + duplicate 0 + erased {30 * ROUNDS:,} + pending 0" in command(running.data, "doctor")


def test_rules_of_retention_are_kept_by_the_running_product(start: Callable[..., Running], tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[storage.retention.old]\nolder_than = "1h"\napp_id = "shop"\n')
    running = start("--config", str(rules))
    send(running, *({"aid": "shop", "uid": "u-1"} for _ in range(3)), {"aid": "house"})
    running.wait(4)
    with contextlib.closing(sqlite3.connect(running.data / "events.db", 30)) as db, db:
        db.execute("UPDATE events SET collector_tstamp = '2020-01-01 00:00:00.000' WHERE user_id = 'u-1' OR app_id = 'house'")
    arguments = ("retain", "--config", str(rules), "--json")
    expected = {"target": "sqlite", "rule": "old", "events": 3, "failed": 0}
    assert json.loads(command(running.data, *arguments, "--dry-run")) == expected
    assert len(running.query("SELECT 1 FROM atomic.events")) == 4
    assert json.loads(command(running.data, *arguments)) == expected
    assert [row["app_id"] for row in running.query("SELECT app_id FROM atomic.events")] == ["house"]
    running.stop()
    assert json.loads(command(running.data, *arguments)) == expected | {"events": 0}
    assert "= stored 1 + failed 0 + duplicate 0 + expired 3 + pending 0" in command(
        running.data, "doctor", "--config", str(rules)
    )


def test_a_backup_made_under_load_is_whole_and_goes_on_from_its_moment(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start()
    sender = Sender(running)
    sender.start()
    running.wait(200)
    report = json.loads(command(running.data, "backup", str(tmp_path / "copy.db"), "--json"))
    assert report["events"] >= 200
    held = report["events"]
    running.wait(held + 200)
    command(running.data, "restore", str(tmp_path / "copy.db"), code=1)  # while it runs
    accepted = sender.end()
    running.wait(accepted)
    assert running.stop() == 0
    everything = sorted(row["event_id"] for row in running.query("SELECT event_id FROM atomic.events"))
    assert len(everything) == accepted > held
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (held,)
    (running.data / "events.db").write_bytes(b"lost")
    for name in ("events.db-wal", "events.db-shm"):
        (running.data / name).unlink(missing_ok=True)
    restored = json.loads(command(running.data, "restore", str(tmp_path / "copy.db"), "--json"))
    assert restored["events"] == held and restored["payloads_to_load_from_the_journal"] > 0
    assert Path(cast(list[Any], restored["kept_before"])[0]).read_bytes() == b"lost"
    (running.data / "running.json").unlink(missing_ok=True)
    running = start()
    running.wait(accepted)
    running.stop()
    assert sorted(row["event_id"] for row in running.query("SELECT event_id FROM atomic.events")) == everything
    assert f"accepted {accepted:,} = stored {accepted:,} + failed 0 + duplicate 0 + pending 0" in command(running.data, "doctor")
