"""docs/sql.md: every query on the page runs and finds something, both in the file itself and attached as `atomic`."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled
from protocol.seams import FailedEvent, Position, RawPayload, Reason
from protocol.tables import COLUMN_NAMES
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin

PAGE = Path(__file__).parents[2].joinpath("docs", "sql.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
READING = "iglu:com.acme/sensorReading/jsonschema/1-0-2"
DOCUMENT: Any = {
    "properties": {
        "sensor": {"type": "string"},
        "value": {"type": "number"},
        "place": {"type": "object", "properties": {"roomNo": {"type": "integer"}}},
    }
}
NOON = 1_768_478_400_000  # 2026-01-15 12:00


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("docs")
    target = Plugin(Config(str(folder / "spoorway-data" / "events.db")), lambda uri: DOCUMENT if uri == READING else bundled(uri))
    reading: Any = {"schema": READING, "data": {"sensor": "t1", "value": 21.5, "place": {"roomNo": 7}}}
    common: Any = {"event_id": "00000000-0000-4000-8000-000000000001", "collector_tstamp": NOON, "user_id": "greenhouse"}
    named: Any = {
        "event_vendor": "com.acme",
        "event_name": "sensorReading",
        "event_format": "jsonschema",
        "event_version": "1-0-2",
    }
    events: list[Any] = [
        common | named | {"event": "unstruct", "unstruct_event": reading, "event_fingerprint": "a"},
        common | {"event": "page_view", "page_urlpath": "/", "contexts": [reading], "event_fingerprint": "b"},
    ]
    payload = RawPayload("0" * 32, NOON, "http", "/i", query="e=pv&eid=x")
    failed = FailedEvent(
        "f", "schema_violations", (Reason("atomic", "eid", "is not a UUID", "x"),), payload, NOON, 0, {"eid": "x"}
    )
    target.commit(Batch(events, [failed], {"lane-0": Position(1, 400, 3)}, 3))
    target.close()
    yield folder


def test_the_page_has_its_queries() -> None:
    assert len(QUERIES) >= 14
    assert len(COMMANDS) == 1


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_finds_something(data: Path, query: str) -> None:
    db = sqlite3.connect(data / "spoorway-data" / "events.db")
    db.execute("ATTACH ? AS atomic", (str(data / "spoorway-data" / "events.db"),))
    rows = db.execute(query).fetchall()
    db.close()
    assert rows
    assert any(value is not None for value in rows[0])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(data: Path, command: str) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("the sqlite3 command is not installed")
    done = subprocess.run(command, shell=True, cwd=data, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


def test_the_events_table_has_the_canonical_columns_in_their_order(data: Path) -> None:
    db = sqlite3.connect(data / "spoorway-data" / "events.db")
    columns = [row[1] for row in db.execute("PRAGMA table_info(events)")]
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.close()
    assert columns == list(COLUMN_NAMES)
    assert tables == set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
