"""The product with a Redshift target: from a POST to rows, a cluster that restarts, failed events, a store built anew."""

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

import pytest

from tests.peers.redshift_double import DATABASE, PASSWORD, ROLE, USER, RedshiftDouble

pytestmark = pytest.mark.slow

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
LONG = "http://s.example/?" + "u" * 5_000
CLICK = "iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1"


@pytest.fixture
def double(tmp_path: Path) -> Iterator[RedshiftDouble]:
    with RedshiftDouble(tmp_path) as made, made.s3.in_environment():
        made.s3.bucket("loads")
        yield made


class Site:
    def __init__(self, folder: Path, double: RedshiftDouble, start: Any) -> None:
        self.double, self.data, self.config = double, folder / "data", folder / "warehouse.toml"
        (folder / "password").write_text(PASSWORD + "\n")
        self.config.write_text(
            "[storage.targets.warehouse]\nuse = 'redshift'\nhost = '127.0.0.1'\ntls = false\nevery_s = 0.1\n"
            f"port = {double.port}\ndatabase = '{DATABASE}'\nuser = '{USER}'\npassword_file = '{folder / 'password'}'\n"
            f"url = 's3://loads/in'\nendpoint = '{double.s3.endpoint}'\nrole = '{ROLE}'\nschema = 'web'\n"
        )
        self.running = start("--config", str(self.config))

    def post(self, *events: dict[str, str]) -> None:
        sent = [{"e": "pv", "p": "web", "tv": "t", "eid": str(uuid.uuid4()), **event} for event in events]
        body = json.dumps({"schema": PAYLOAD_DATA, "data": sent}).encode()
        url = self.running.url + "/com.snowplowanalytics.snowplow/tp2"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        with self.double.query() as db:
            db.execute("SET search_path = web")
            found: list[tuple[Any, ...]] = db.execute(question).fetchall()
            return found

    def wait(self, stored: int, failed: int) -> None:
        end, found = time.monotonic() + 60, None
        while time.monotonic() < end:
            if self.rows("SELECT 1 FROM pg_tables WHERE schemaname = 'web' AND tablename = 'spoorway_state'"):
                found = self.rows("SELECT stored, failed FROM spoorway_state")
                if found == [(stored, failed)]:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{found}, not {stored}, {failed}")

    def out(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "spoorway", *arguments, "--data", str(self.data), "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_events_are_loaded_through_a_restart_failed_ones_are_shown_and_all_is_built_anew(
    tmp_path: Path, double: RedshiftDouble, start: Any
) -> None:
    site = Site(tmp_path, double, start)
    click = json.dumps({"schema": UNSTRUCT, "data": {"schema": CLICK, "data": {"targetUrl": "http://shop.example/x"}}})
    site.post(
        {"url": "http://shop.example/"},
        {"e": "ue", "ue_pr": click},
        {"vid": "three"},
        {"url": "http://s.example/?" + "u" * 5_000},
    )
    site.wait(2, 2)
    assert site.rows("SELECT target_url FROM com_snowplowanalytics_snowplow_link_click_1") == [("http://shop.example/x",)]
    double.cut_all()
    site.post({"page": "after the restart", "uid": "somebody"})
    site.wait(3, 2)
    assert site.rows("SELECT page_title FROM events WHERE page_title IS NOT NULL") == [("after the restart",)]
    failed = [json.loads(line) for line in site.out("failed", "list", "--json").splitlines()]
    reasons = {reason["keyword"]: reason for one in failed for reason in one["reasons"]}
    assert (reasons["redshift_maxBytes"]["field"], len(failed)) == ("page_url", 2)
    exported = [json.loads(line) for line in site.out("failed", "export").splitlines()]
    assert len(exported) == 2
    # A column was made wider; built anew, the event that did not fit is there.
    site.running.stop()
    with double.query() as db:
        db.execute('ALTER TABLE web.events ALTER COLUMN page_url TYPE varchar(10000), DROP CONSTRAINT "bytes of page_url"')
    site.out("replay", "--from", "journal", "--to", "warehouse")
    assert site.rows("SELECT stored, failed, duplicate FROM spoorway_state") == [(4, 1, 0)]
    assert site.rows("SELECT count(*), max(length(page_url)) FROM events") == [(4, 5_018)]
    # A person goes, from the journal and the store; a rule finds nothing that is old enough.
    receipt = json.loads(site.out("erase", "--user", "somebody", "--yes", "--json"))
    assert receipt["stores"]["warehouse"] | {"at": ""} == {"state": "done", "events": 1, "failed": 0, "at": ""}
    assert site.rows("SELECT stored, erased FROM spoorway_state") == [(3, 1)]
    assert site.rows("SELECT count(*) FROM events WHERE user_id IS NOT NULL") == [(0,)]
    with site.config.open("a") as file:
        file.write("[storage.retention.all]\nolder_than = '1d'\n")
    assert [json.loads(line)["target"] for line in site.out("retain", "--json").splitlines()] == ["warehouse"]
    assert json.loads(site.out("ask", "run", "schemas", "--on", "warehouse", "--json").splitlines()[0])["events"] > 0
