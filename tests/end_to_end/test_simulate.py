"""Simulated devices with everything going wrong, over each door: each event is a row once, and every loss has its name in SQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def simulate(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "spoorway", "simulate", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stored(running: Any) -> int:
    if not running.totals():
        return 0
    count: int = running.query("SELECT count(*) AS n FROM atomic.events WHERE app_id = 'greenhouse'")[0]["n"]
    return count


FAULTS = ("--fault", "gap", "--fault", "duplicate", "--fault", "reorder", "--fault", "reboot", "--fault", "offline")


@pytest.mark.parametrize("over", ["http", "mqtt", "serial"])
def test_every_event_is_stored_once_and_every_loss_is_named(start: Callable[..., Any], tmp_path: Path, over: str) -> None:
    ports = tmp_path / "ports"
    running = start("--mqtt", "127.0.0.1:0", "--serial", f"{ports}/*")
    where = ("--to", str(ports)) if over == "serial" else ()
    devices, events = (2, 40) if over == "serial" else (8, 100)
    many = ("--devices", str(devices), "--events", str(events))
    told = simulate("greenhouse", "--data", str(running.data), "--over", over, *where, *many, *FAULTS)
    sent = told["events"]
    assert sent + told["lost"] == devices * events
    assert told["lost"] > 0
    assert told["attempts"] > told["messages"], "nothing was sent twice: the faults did nothing"

    running.until(lambda: stored(running) >= sent, lambda: f"{stored(running)} of {sent} events are stored")
    assert stored(running) == sent
    gaps = running.query("SELECT device, boot_id, first_missing, last_missing FROM atomic.device_gaps")
    named = {(gap["device"], gap["boot_id"], n) for gap in gaps for n in range(gap["first_missing"], gap["last_missing"] + 1)}
    assert named == {(one["device"], boot, sequence) for one in told["devices"] for boot, sequence in one["lost"]}
    health = running.query("SELECT device, boots FROM atomic.device_health WHERE device LIKE 'greenhouse-%'")
    assert {row["device"]: row["boots"] for row in health} == {one["device"]: one["boots"] for one in told["devices"]}
    assert running.query("SELECT count(*) AS n FROM atomic.events WHERE derived_tstamp < '2026-01-01'")[0]["n"] == 0
    running.stop()


def test_a_simulated_game_and_shop_answer_the_questions_about_them(start: Callable[..., Any]) -> None:
    running = start()
    for profile in ("game", "website"):
        assert simulate(profile, "--data", str(running.data), "--devices", "10", "--events", "120")["events"] == 1_200
    running.until(lambda: running.totals() == 2_400, lambda: f"{running.totals()} of 2,400 events")
    assert running.query("SELECT failed FROM atomic.totals") == [{"failed": 0}]
    asked = ("levels", "level_failures", "economy", "sessions", "sources", "scroll_depth", "funnel", "orders", "products")
    for name in asked:
        command = [sys.executable, "-m", "spoorway", "ask", "run", name, "--data", str(running.data), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(rows) >= (4 if name == "funnel" else 1), name
        assert name != "funnel" or rows[3]["visitors"] > 0
    running.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("greenhouse", "--to", "ftp://somewhere"), "expected HOST:PORT"),
        (("greenhouse", "--to", "127.0.0.1:1"), "is `spoorway run` up?"),
        (("greenhouse", "--over", "serial"), "needs a folder"),
        (("greenhouse", "--devices", "10000", "--events", "1000000"), "at most"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "spoorway", "simulate", "--data", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
