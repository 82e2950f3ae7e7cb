"""Compact frames through the running product: from a sensor's bytes to SQL, and a template that arrives late."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from protocol.compact import encode
from protocol.devices import device_event_id
from protocol.templates import bundled, template

ROOT = Path(__file__).parents[2]
SCHEMA = {
    "$schema": "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#",
    "description": "How full a tank is",
    "self": {"vendor": "com.acme", "name": "tank", "format": "jsonschema", "version": "1-0-0"},
    "type": "object",
    "properties": {
        "level_cm": {"description": "Height of the water", "type": ["number", "null"], "minimum": 0, "maximum": 500},
        "valve": {"description": "As it is now", "type": ["string", "null"], "enum": ["open", "shut", None], "maxLength": 8},
    },
    "additionalProperties": False,
}
TANK = """
id = 8
version = 1
schema = "iglu:com.acme/tank/jsonschema/1-0-0"
app_id = "tanks"

[[fields]]
name = "level_cm"
type = "decimal"
scale = 1

[[fields]]
name = "valve"
type = "enum"
values = ["open", "shut"]
"""


def post(url: str, body: bytes, query: str = "") -> int:
    request = urllib.request.Request(f"{url}/io.spoorway/c1{query}", body, {"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        status: int = answer.status
    return status


def spoorway(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spoorway", *arguments, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_readings_answer_sql_at_the_time_they_were_made(spoorway_run: Any) -> None:
    readings = [(60_000, {"temperature_celsius": 21.57, "pressure_hpa": 1013.2}), (120_000, {"temperature_celsius": -0.01})]
    frame = encode(bundled()[1, 1], readings, 300, 41, 180_000, device="house-7")
    assert post(spoorway_run.url, frame, "?aid=greenhouse") == 200
    assert post(spoorway_run.url, frame, "?aid=greenhouse") == 200, "a copy is taken, and stored once"
    spoorway_run.wait(4)
    rows = spoorway_run.query(
        "SELECT event_id, app_id, platform, v_tracker, event_name, unstruct_event,"
        " round((julianday(collector_tstamp) - julianday(derived_tstamp)) * 86400) AS age_s"
        " FROM atomic.events ORDER BY age_s DESC"
    )
    assert [row["event_id"] for row in rows] == [device_event_id("house-7", 300, n) for n in (41, 42)]
    assert [row["age_s"] for row in rows] == [120, 60]
    assert {(row["app_id"], row["platform"], row["v_tracker"], row["event_name"]) for row in rows} == {
        ("greenhouse", "iot", "compact-1", "environment_reading")
    }
    assert '"temperature_celsius":21.57,"pressure_hpa":1013.2}' in rows[0]["unstruct_event"].replace(": ", ":").replace(", ", ",")
    totals = spoorway_run.query("SELECT stored, failed, duplicate FROM atomic.totals")
    assert totals == [{"stored": 2, "failed": 0, "duplicate": 2}]


@pytest.mark.slow
def test_a_sealed_frame_is_its_devices_whoever_sends_it(spoorway_run: Any) -> None:
    added = spoorway(spoorway_run.data, "device", "add", "node-7", "--kind", "hmac", "--json")
    assert added.returncode == 0, added.stderr
    key = bytes.fromhex(json.loads(added.stdout)["key"])
    reading = [(5, {"humidity_percent": 45.2})]

    def sent(key: bytes, sequence: int) -> None:
        post(spoorway_run.url, encode(bundled()[1, 1], reading, 1, sequence, 5, device="node-7", sealed_by=("node-7", key)))

    def stored() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = spoorway_run.query("SELECT event_id, derived_contexts FROM atomic.events")
        return found

    sequence = 0
    while sequence == 0 or (not stored() and sequence < 20):  # a running gateway notices a device within a second
        sequence += 1
        sent(key, sequence)
        spoorway_run.wait(sequence)
    sent(b"?" * 32, 100)
    spoorway_run.wait(sequence + 1)
    (row,) = stored()
    assert row["event_id"] == device_event_id("node-7", 1, sequence)
    (facts,) = [each["data"] for each in json.loads(row["derived_contexts"])["data"] if "/device_time/" in each["schema"]]
    assert (facts["device"], facts["proven"]) == ("node-7", True)
    failed = spoorway_run.query("SELECT reasons FROM failed_events")
    assert len(failed) == sequence
    assert all('"Unproved"' in row["reasons"] for row in failed)


@pytest.mark.slow
def test_events_come_back_when_their_template_arrives(spoorway_run: Any, tmp_path: Path) -> None:
    tank = template(tomllib.loads(TANK))
    good = encode(bundled()[1, 1], [(5, {"humidity_percent": 45.2})], 1, 3, 5)
    frames = encode(tank, [(1, {"level_cm": 12.3, "valve": "shut"}), (2, {"level_cm": 12.4})], 1, 1, 3, device="tank-1")
    post(spoorway_run.url, frames + good)
    post(spoorway_run.url, encode(tank, [(9, {"level_cm": 999.9})], 1, 4, 9))
    post(spoorway_run.url, good[:-1])
    spoorway_run.wait(5)
    shown = [json.loads(line) for line in spoorway(spoorway_run.data, "failed", "list", "--json").stdout.splitlines()]
    assert sum("no template 8 of version 1 is known" in row["first_reason"] for row in shown) == 3, shown

    file, schema = tmp_path / "tank.toml", tmp_path / "tank.json"
    file.write_text(TANK)
    schema.write_text(json.dumps(SCHEMA))
    early = spoorway(spoorway_run.data, "template", "add", str(file))
    assert (early.returncode, "spoorway schema add" in early.stderr) == (1, True), early.stderr
    assert spoorway(spoorway_run.data, "schema", "add", str(schema)).returncode == 0
    added = spoorway(spoorway_run.data, "template", "add", str(file))
    assert added.returncode == 0, added.stderr
    spoorway_run.until(
        lambda: spoorway_run.query("SELECT stored FROM atomic.totals") == [{"stored": 3}],
        lambda: str(spoorway_run.query("SELECT * FROM atomic.totals")),
    )
    rows = spoorway_run.query("SELECT app_id, level_cm, valve FROM com_acme_tank_1 JOIN events ON event_id = root_id ORDER BY 2")
    assert [(row["app_id"], row["level_cm"], row["valve"]) for row in rows] == [("tanks", 12.3, "shut"), ("tanks", 12.4, None)]
    # What its schema refuses, and what was cut off, stay failed; now for those reasons.
    kinds = [row["kind"] for row in spoorway_run.query("SELECT kind FROM failed_events WHERE replayed_tstamp IS NULL ORDER BY 1")]
    assert kinds == ["adapter_failures", "schema_violations"]
    again = spoorway(spoorway_run.data, "failed", "replay", "--json")
    assert json.loads(again.stdout) == {"tried": 2, "solved": 0, "still_failed": 2}
