"""The product with a PostgreSQL target: from a POST to rows, views, questions, mended failures and a store built anew."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.peers.postgres_server import PostgresServer

pytestmark = pytest.mark.slow

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
DOOR = "iglu:com.acme/door/jsonschema/1-0-0"


class Site:
    """A running product whose only target is in PostgreSQL."""

    def __init__(self, folder: Path, server: PostgresServer, start: Any) -> None:
        self.server, self.data = server, folder / "data"
        self.config = folder / "warehouse.toml"
        self.config.write_text(
            "[enrich.resolver]\n[storage.targets.warehouse]\nuse = 'postgres'\nschema = 'web'\n"
            f"host = '127.0.0.1'\nport = {server.port}\nuser = 'postgres'\ndatabase = 'postgres'\n"
        )
        self.running = start("--config", str(self.config))

    def post(self, *events: dict[str, str]) -> list[str]:
        ids = [str(uuid.uuid4()) for _ in events]
        sent = [
            {"e": "pv", "p": "web", "tv": "t", "aid": "shop", "eid": i, **event} for i, event in zip(ids, events, strict=True)
        ]
        body = json.dumps({"schema": PAYLOAD_DATA, "data": sent}).encode()
        url = self.running.url + "/com.snowplowanalytics.snowplow/tp2"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        return ids

    def rows(self, question: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.server.dsn, options="-c search_path=web", row_factory=dict_row) as db:
            return db.execute(question.encode()).fetchall()

    def wait(self, **totals: int) -> None:
        end = time.monotonic() + 60
        found: Any = None
        while time.monotonic() < end:
            try:
                (found,) = self.rows("SELECT stored, failed, duplicate FROM totals")
            except psycopg.errors.UndefinedTable:
                found = None
            if found and all(found[name] == number for name, number in totals.items()):
                return
            time.sleep(0.02)
        raise AssertionError(f"{found}, not {totals}")

    def spoorway(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "spoorway", *arguments, "--data", str(self.data), "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def out(self, *arguments: str) -> str:
        done = self.spoorway(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        done = self.spoorway(*arguments)
        assert done.returncode == 1, done.stdout
        return done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, server: PostgresServer, start: Any) -> Iterator[Site]:
    made = Site(tmp_path, server, start)
    yield made
    made.running.stop()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("DROP SCHEMA IF EXISTS web CASCADE")


def door(**data: Any) -> dict[str, str]:
    return {"e": "ue", "ue_pr": json.dumps({"schema": UNSTRUCT, "data": {"schema": DOOR, "data": data}})}


def test_events_are_asked_mended_and_built_anew(site: Site, tmp_path: Path) -> None:
    (first, *_) = site.post({"url": "http://shop.example/"}, {"vid": "three"}, door(open=True))
    site.wait(stored=1, failed=2)
    # What waited for a schema comes back by itself, and has a typed view.
    schema = tmp_path / "door.json"
    body = {"vendor": "com.acme", "name": "door", "format": "jsonschema", "version": "1-0-0"}
    meta = "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#"
    properties = {"open": {"type": "boolean", "description": "Whether it is"}}
    document = {"$schema": meta, "self": body, "type": "object", "properties": properties, "additionalProperties": False}
    schema.write_text(json.dumps(document))
    site.out("schema", "add", str(schema))
    site.wait(stored=2, failed=1)
    assert [row["open"] for row in site.rows("SELECT open FROM com_acme_door_1")] == [True]

    (failed,) = [json.loads(line) for line in site.out("failed", "list", "--json").splitlines()]
    assert failed["first_reason"].startswith("vid: ")
    assert "vid = three" in site.out("failed", "show", failed["failed_id"])
    assert json.loads(site.out("failed", "replay", "--set", "vid=3", "--json")) == {"tried": 1, "solved": 1, "still_failed": 0}
    site.wait(stored=3, failed=0)

    said = [json.loads(line) for line in site.out("doctor", "--json").splitlines()]
    told = {one["check"]: one for one in said}
    assert told["target warehouse"]["message"] == "3 events and 0 failed events, as counted when they were stored"
    assert told["identity"]["message"] == "accepted 3 = stored 3 + failed 0 + duplicate 0 + pending 0"

    answer = site.out("sql", "--on", "postgres", "SELECT event_id, collector_tstamp, br_cookies FROM events", "--json")
    found = {row["event_id"]: row for row in map(json.loads, answer.splitlines())}
    assert len(found) == 3 and found[first]["collector_tstamp"][:2] == "20"
    before = site.rows("SELECT event_id, collector_tstamp, page_url FROM events ORDER BY 1")

    assert site.running.stop() == 0
    # What was mended by hand is in no journal: it fails again.
    built = site.out("replay", "--from", "journal", "--to", "warehouse")
    assert built == "1 payloads: 2 events stored, 1 failed, 0 duplicates\n"
    after = site.rows("SELECT event_id, collector_tstamp, page_url FROM events ORDER BY 1")
    assert len(after) == 2 and all(row in before for row in after)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("DELETE FROM events", "that is no question"),
        ("WITH gone AS (DELETE FROM events RETURNING 1) SELECT * FROM gone", "the store is read-only here"),
        ("SELECT 1; DROP TABLE events", "multiple commands"),
        ("COPY events TO PROGRAM 'cat'", "that is no question"),
        ("COMMIT", "that is no question"),
        ("SET default_transaction_read_only = off", "that is no question"),
        ("SELECT set_config('transaction_read_only', 'off', false), nextval('s')", 's" does not exist'),
        ("SELECT set_config('transaction_read_only', 'off', true)", "read-write mode must be set before any query"),
        ("SELECT nothing FROM events", 'column "nothing" does not exist'),
        ("SELECT 1/0", "division by zero"),
    ],
    ids=["delete", "hidden delete", "two", "copy", "commit", "set", "sequence", "writable", "column", "division"],
)
def test_a_question_cannot_write(asked: Site, question: str, answer: str) -> None:
    assert answer in asked.refused("sql", "--on", "postgres", question)
    assert asked.rows("SELECT count(*) AS n FROM events") == [{"n": 1}]


@pytest.fixture(scope="module")
def asked(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Loaded once; nothing runs."""
    from spoorway.building import open_target
    from spoorway.config import load
    from storage.targets import Batch

    folder = tmp_path_factory.mktemp("asked")
    site = Site(folder, server, lambda *_: None)
    site.config.write_text(site.config.read_text().replace("'web'", "'asked'"))
    found = load(site.config, {"data": str(site.data)})
    target = open_target(found, found.targets()[0])
    target.commit(Batch([{"event_id": str(uuid.uuid4()), "collector_tstamp": 1_768_478_400_000}], [], {}, 1))
    target.close()
    site.rows = lambda question: _rows(server, question)  # type: ignore[method-assign]
    yield site


def _rows(server: PostgresServer, question: str) -> list[dict[str, Any]]:
    with psycopg.connect(server.dsn, options="-c search_path=asked", row_factory=dict_row) as db:
        return db.execute(question.encode()).fetchall()


def test_answers_read_as_those_of_sqlite(asked: Site) -> None:
    question = (
        "SELECT count(*) AS n, sum(1.5) AS sum, true AS yes, NULL AS none, '{\"a\": 1}'::jsonb AS doc,"
        " max(collector_tstamp) AS t, 12345678901234567890::numeric AS big, 'NaN'::numeric AS nan, '%s' AS percent FROM events"
    )
    row = json.loads(asked.out("sql", "--on", "postgres", question, "--json"))
    assert row == {
        "n": 1, "sum": 1.5, "yes": True, "none": None, "doc": '{"a": 1}', "t": "2026-01-15 12:00:00",
        "big": 12345678901234567890, "nan": "NaN", "percent": "%s",
    }  # fmt: skip
    assert asked.out("sql", "--on", "postgres", "SELECT 1 AS one WHERE false", "--format", "csv") == "one\n"
    assert "no postgres target by the name x" in asked.refused("sql", "--on", "postgres", "--target", "x", "SELECT 1")
    assert "QUERY PLAN" in asked.out("sql", "--on", "postgres", "EXPLAIN SELECT 1")


def test_the_doctor_says_when_the_database_is_away(asked: Site, server: PostgresServer) -> None:
    (asked.data / "journal").mkdir(parents=True, exist_ok=True)
    server.stop()
    try:
        said = [json.loads(line) for line in asked.spoorway("doctor", "--json").stdout.splitlines()]
    finally:
        server.start()
    (one,) = [one for one in said if one["check"] == "target warehouse"]
    assert one["state"] == "wrong" and "Connection refused" in one["message"] and "the journal keeps what comes" in one["message"]
