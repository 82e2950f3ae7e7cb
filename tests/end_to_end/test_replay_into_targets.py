"""`spoorway replay --from archive --to NAME` into the warehouses: emptied and built anew from the archive alone."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.journal.options import Options
from gateway.journal.writer import FileWriter
from protocol.seams import RawPayload
from spoorway.files import journal_folder, prepare
from tests.peers.postgres_server import PostgresServer
from tests.peers.redshift_double import DATABASE, PASSWORD, ROLE, USER, RedshiftDouble

pytestmark = pytest.mark.slow

NOON = 1_768_478_400_000  # 2026-01-15 12:00
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
CLICK = "iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1"
POST = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
# As PostgreSQL and Redshift both answer them. What differs from one loading to the next, when it was, is not among them.
EVENTS = (
    "SELECT event_id::varchar, collector_tstamp::varchar, dvce_created_tstamp::varchar, event, user_id, app_id, page_url,"
    " se_value, br_cookies, event_name FROM events ORDER BY 1"
)
CLICKS = "SELECT target_url FROM com_snowplowanalytics_snowplow_link_click_1 ORDER BY 1"


def payload(number: int) -> RawPayload:
    """A page view, a structured event or a click; every tenth fails, every eleventh came before."""
    number -= number % 11 == 10
    event = {
        "p": "web", "tv": "t", "aid": "shop", "uid": f"u-{number % 4}", "dtm": str(NOON - number), "cookie": str(number % 2),
        "eid": f"00000000-0000-4000-8000-{number:012d}" if number % 10 != 3 else "none", "url": f"http://s.example/caf\u00e9/{number}",
    }  # fmt: skip
    click = json.dumps({"schema": UNSTRUCT, "data": {"schema": CLICK, "data": {"targetUrl": f"http://s.example/{number}"}}})
    kinds = ({"e": "pv"}, {"e": "se", "se_ca": "c", "se_ac": "a", "se_va": f"{number}.25"}, {"e": "ue", "ue_pr": click})
    body = json.dumps({"schema": POST, "data": [event | kinds[number % 3]]}).encode()
    path = "/com.snowplowanalytics.snowplow/tp2"
    return RawPayload(f"{number:032x}", NOON + number, "http", path, body=body, content_type="application/json")


class Site:
    """A journal of many segments, an archive and one target. `ask` is set by who knows the target."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder, self.data, self.config = folder, folder / "data", folder / "warehouse.toml"
        self.config.write_text(
            f'data = "{self.data}"\n[archive]\nurl = "{folder / "archive"}"\n[storage.targets.warehouse]\n{target}'
        )
        prepare(self.data)
        asyncio.run(self._write())

    async def _write(self) -> None:
        writer = FileWriter.open(journal_folder(self.data), Options(min_free_bytes=0, segment_bytes=8_000))
        for number in range(60):
            await writer.append(payload(number))
        await writer.close()

    def out(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "spoorway", *arguments, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rebuilt(self, ask: Any, totals: str) -> None:
        """Loads, archives, loses the journal, spoils the store and builds it anew: the same as before."""

        def held() -> list[Any]:
            (events, clicks, failed, account) = (
                ask(sql) for sql in (EVENTS, CLICKS, "SELECT failed_id::varchar FROM failed_events ORDER BY 1", totals)
            )
            return [events, clicks, failed, account]

        self.out("load", "--once")
        self.out("archive", "now")
        before = held()
        assert [len(part) for part in before] == [50, 17, 5, 1] and before[3] == [(50, 5, 5)]
        assert len(list((self.folder / "archive").rglob("*.gz"))) > 2
        shutil.rmtree(journal_folder(self.data))
        ask("UPDATE events SET user_id = 'spoilt', event_id = md5(event_id::varchar)::uuid WHERE event_name = 'page_view'")
        ask("DELETE FROM events WHERE event_name = 'event'")
        assert held() != before
        told = self.out("replay", "--from", "archive", "--to", "warehouse")
        assert told == "60 payloads: 50 events stored, 5 failed, 5 duplicates\n"
        assert held() == before


def test_postgres_is_built_anew_from_the_archive_alone(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server:
        site = Site(
            tmp_path,
            "use = 'postgres'\nschema = 'web'\nhost = '127.0.0.1'\n"
            f"port = {server.port}\nuser = 'postgres'\ndatabase = 'postgres'\n",
        )

        def ask(sql: str) -> list[Any]:
            with psycopg.connect(server.dsn, options="-c search_path=web", autocommit=True) as db:
                done = db.execute(sql.encode())
                return done.fetchall() if done.description else []

        site.rebuilt(ask, "SELECT stored, failed, duplicate FROM totals")


def test_redshift_is_built_anew_from_the_archive_alone(tmp_path: Path) -> None:
    """On the double, with the bucket that it is loaded through as it was left."""
    with RedshiftDouble(tmp_path) as double, double.s3.in_environment():
        double.s3.bucket("loads")
        (tmp_path / "password").write_text(PASSWORD + "\n")
        site = Site(
            tmp_path,
            "use = 'redshift'\nhost = '127.0.0.1'\ntls = false\nevery_s = 0.1\n"
            f"port = {double.port}\ndatabase = '{DATABASE}'\nuser = '{USER}'\npassword_file = '{tmp_path / 'password'}'\n"
            f"url = 's3://loads/in'\nendpoint = '{double.s3.endpoint}'\nrole = '{ROLE}'\nschema = 'web'\n",
        )

        def ask(sql: str) -> list[Any]:
            with double.query() as db:
                db.execute("SET search_path = web")
                done = db.execute(sql.encode())
                return done.fetchall() if done.description else []

        site.rebuilt(ask, "SELECT stored, failed, duplicate FROM spoorway_state")
