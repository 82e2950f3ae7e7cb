"""The demo's programs against a gateway: what they say they send is what is stored, or fails as they say it must."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol.payloads import from_json
from protocol.seams import RawPayload

DEMO = Path(__file__).parents[2] / "examples" / "demo"
READINGS = 366
pytestmark = pytest.mark.slow


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"demo_{name}", DEMO / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, str(DEMO / f"{name}.py"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_reading_keeps_its_own_time_and_is_stored_once_however_often_it_is_sent(spoorway_run: Any) -> None:
    assert run("sensors", spoorway_run.url) == f"{READINGS} readings sent\n"
    spoorway_run.wait(READINGS)
    run("sensors", spoorway_run.url, "--limit", "60", "--batch", "20")
    spoorway_run.wait(READINGS + 60)
    rows = spoorway_run.query("select * from atomic.events order by derived_tstamp")
    assert len(rows) == READINGS
    assert [r["derived_tstamp"] for r in rows[:2]] == ["2012-01-02 08:00:00.000", "2012-01-03 08:00:00.000"]
    assert all(r["derived_tstamp"] == r["true_tstamp"] == r["dvce_created_tstamp"] for r in rows)
    rain = [json.loads(r["unstruct_event"])["data"]["data"]["precipitation_mm"] for r in rows]
    assert round(sum(rain), 1) == 1226.0  # millimetres that fell on Seattle in 2012, in the source


def test_the_app_ends_only_when_its_last_event_is_acknowledged(spoorway_run: Any) -> None:
    said = run("app", spoorway_run.url, "--seconds", "1")
    tracked = int(said.split(" of ")[1].split()[0])
    spoorway_run.wait(tracked)
    kinds = spoorway_run.query("select event_name, count(*) n from atomic.events group by 1 order by 1")
    assert sum(kind["n"] for kind in kinds) == tracked
    assert {kind["event_name"] for kind in kinds} == {"event", "screen_view", "snowplow_ecommerce_action"}


def test_the_app_says_so_when_nobody_takes_its_events() -> None:
    nobody = "http://127.0.0.1:9"  # the discard port
    assert " 0 of " in run("app", nobody, "--seconds", "0", "--patience", "0.2", code=1)


def test_each_broken_request_fails_as_it_says_and_none_becomes_an_event(spoorway_run: Any) -> None:
    broken = program("broken")
    cases = broken.cases()
    for number, case in enumerate(cases, 1):
        assert broken.send(spoorway_run.url, case) == 200, case.name
        spoorway_run.wait(number)
        (newest,) = spoorway_run.query("select kind, reasons from atomic.failed_events order by rowid desc limit 1")
        assert newest["kind"] == case.kind, (case.name, newest)
        assert len(json.loads(newest["reasons"])) == (2 if case.name == "two things wrong" else 1), (case.name, newest)
    assert spoorway_run.query("select count(*) n from atomic.events") == [{"n": 0}]


def test_the_recorded_visit_is_whole_and_holds_no_real_address() -> None:
    payloads = [from_json(line) for line in (DEMO / "website-visit.ndjson").read_bytes().splitlines()]
    events = [event for payload in payloads for event in json.loads(payload.body or b"")["data"]]
    assert len({event["eid"] for event in events}) >= 100
    assert {event["e"] for event in events} == {"pv", "pp", "se", "ue"}
    assert len({p.id for p in payloads}) == len(payloads)
    assert [p.received_ms for p in payloads] == sorted(p.received_ms for p in payloads)
    documentation = ("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:")
    assert all(p.ip is None or p.ip.startswith(documentation) for p in payloads)
    anonymous = {p.ip is None for p in payloads if "sp-anonymous" in {name.lower() for name, _ in p.headers}}
    assert anonymous == {True}
    assert clocks(payloads) == {0, 423}  # one visitor's clock is seven minutes and three seconds fast


def clocks(payloads: list[RawPayload]) -> set[int]:
    """By how many seconds the senders' clocks are ahead."""
    sent = [(p, max(int(event["stm"]) for event in json.loads(p.body or b"")["data"])) for p in payloads]
    return {max(0, round((ms - p.received_ms + 80) / 1000)) for p, ms in sent}
