"""Failed events as a person handles them: mended, exported, dropped; and the account that holds all the while."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"


class Shop:
    """A running product that was sent one good event and three bad ones."""

    def __init__(self, running: Any) -> None:
        self.running = running
        good = {"e": "pv", "p": "web", "tv": "t", "aid": "shop"}
        self.ids = [str(uuid.uuid4()) for _ in range(3)]
        events = [
            {**good, "eid": self.ids[0]},
            {**good, "eid": self.ids[1], "vid": "three"},
            {**good, "eid": self.ids[2], "tid": "many"},
        ]
        self.post("/com.snowplowanalytics.snowplow/tp2", {"schema": PAYLOAD_DATA, "data": events})
        self.post("/com.acme/nothing", {"a": 1})
        running.wait(4)

    def post(self, path: str, body: Any) -> None:
        request = urllib.request.Request(self.running.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def spoorway(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "spoorway", *arguments, "--data", str(self.running.data)]
        return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=60)

    def out(self, *arguments: str) -> str:
        done = self.spoorway(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def failed(self) -> dict[str, str]:
        """first_reason's field -> id, of those that wait."""
        rows = [json.loads(line) for line in self.out("failed", "list", "--json").splitlines()]
        return {row["first_reason"].partition(":")[0]: row["failed_id"] for row in rows}


@pytest.fixture
def shop(spoorway_run: Any) -> Shop:
    return Shop(spoorway_run)


def test_a_mended_event_is_stored_and_a_second_try_changes_nothing(shop: Shop) -> None:
    tried = json.loads(shop.out("failed", "replay", "--set", "vid=3", "--json"))
    assert tried == {"tried": 3, "solved": 1, "still_failed": 2}
    (row,) = shop.running.query("select event_id, domain_sessionidx, app_id from atomic.events where event_id = ?", shop.ids[1])
    assert (row["domain_sessionidx"], row["app_id"]) == (3, "shop")
    assert json.loads(shop.out("failed", "replay", "--set", "vid=3", "--json")) == {"tried": 2, "solved": 0, "still_failed": 2}
    assert json.loads(shop.out("failed", "replay", "--set", "tid=", "--kind", "schema_violations", "--json"))["solved"] == 1
    assert shop.running.query("select count(*) as n from atomic.events") == [{"n": 3}]
    assert shop.spoorway("doctor").returncode == 0


def test_one_that_was_solved_before_is_not_tried_and_not_called_failed(shop: Shop) -> None:
    one = shop.failed()["vid"]
    for left in (1, 0):
        assert shop.out("failed", "replay", "--id", one, "--set", "vid=3") == f"{left} tried, {left} solved, 0 still failed\n"
    again = shop.spoorway("failed", "replay", "--id", one, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout) == {"tried": 0, "solved": 0, "still_failed": 0}
    assert again.stderr.splitlines()[-1] == "spoorway: 1 not tried: solved before"


def test_a_script_mends_what_it_wants_to(shop: Shop, tmp_path: Path) -> None:
    pytest.importorskip("lupa")
    script = tmp_path / "mend.lua"
    script.write_text(
        'function enrich(event, parameters)\n  if parameters.vid == "three" then return {vid = 3} end\n'
        '  return nil, "not mine"\nend\n'
    )
    done = shop.spoorway("failed", "replay", "--kind", "schema_violations", "--script", str(script))
    assert done.stdout == "2 tried, 1 solved, 1 still failed\n"
    assert "1 not tried: not mine" in done.stderr
    both = shop.spoorway("failed", "replay", "--script", str(script), "--set", "a=b")
    assert both.returncode == 1


def test_bad_rows_are_exported_one_a_line(shop: Shop, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in shop.out("failed", "export").splitlines()]
    kinds = sorted(line["schema"].split("/")[1] for line in lines)
    assert kinds == ["adapter_failures", "schema_violations", "schema_violations"]
    (adapter,) = [line["data"] for line in lines if "adapter_failures" in line["schema"]]
    assert (adapter["payload"]["vendor"], adapter["payload"]["body"]) == ("com.acme", '{"a": 1}')
    file = tmp_path / "bad.ndjson"
    one = shop.failed()["vid"]
    assert shop.out("failed", "export", "--id", one, "--output", str(file)) == f"1 bad rows of 1 failed events in {file}\n"
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["data"]["payload"]["enriched"]["event_id"] == shop.ids[1]
    again = shop.spoorway("failed", "export", "--output", str(file))
    assert again.returncode == 1 and "exists already" in again.stderr


def test_dropped_events_are_counted_and_the_account_holds(shop: Shop) -> None:
    before = shop.failed()
    assert "say which" in shop.spoorway("failed", "drop").stderr
    asked = shop.spoorway("failed", "drop", "--all")
    assert asked.returncode == 1 and "say --yes" in asked.stderr
    assert len(shop.failed()) == 3
    assert json.loads(shop.out("failed", "drop", "--id", before["vid"], "--yes", "--json")) == {"dropped": 1}
    unknown = shop.spoorway("failed", "drop", "--id", before["vid"], "--yes")
    assert unknown.returncode == 1 and "there is no failed event" in unknown.stderr
    assert shop.out("failed", "drop", "--kind", "adapter_failures", "--yes") == "1 failed events dropped, and counted as such\n"
    assert list(shop.failed()) == ["tid"]
    account = shop.out("doctor")
    assert "accepted 4 = stored 1 + failed 1 + duplicate 0 + dropped 2 + pending 0" in account
    (totals,) = shop.running.query("select stored, failed, duplicate, dropped from atomic.totals")
    assert totals == {"stored": 1, "failed": 1, "duplicate": 0, "dropped": 2}
    assert shop.running.query("select count(*) as n from atomic.dropped_events") == [{"n": 2}]

    def told() -> bool:
        text = shop.running.get(shop.running.admin + "/metrics")[1]
        return 'spoorway_target_events_total{target="sqlite",outcome="dropped"} 2' in text

    # The loader tells its totals with its next batch.
    shop.post("/com.snowplowanalytics.snowplow/tp2", {"schema": PAYLOAD_DATA, "data": [{"e": "pv", "p": "web", "tv": "t"}]})
    shop.running.until(told, lambda: "the dropped events are not in /metrics")


def test_a_rebuild_from_the_journal_brings_dropped_events_back(shop: Shop) -> None:
    shop.out("failed", "drop", "--all", "--yes")
    shop.running.stop()
    assert "1 events stored, 3 failed, 0 duplicates" in shop.out("replay")
    assert len(shop.failed()) == 3
    assert "accepted 4 = stored 1 + failed 3 + duplicate 0 + pending 0" in shop.out("doctor")
