"""`spoorway erase` on everything at once: journal, archive, SQLite, PostgreSQL and files; killed in the midst and resumed."""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spoorway.config import Settings, load
from spoorway.files import Claim
from tests.peers.postgres_server import PostgresServer
from tests.unit.test_erasing import write

pytestmark = pytest.mark.slow

ALL = {f"u-{n}": 28 for n in range(4)}  # and two failed ones of each
OTHERS = {user: count for user, count in ALL.items() if user != "u-1"}


class Site:
    """Everything that keeps events, and nobody that runs."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.server, self.data, self.folder, self.config = server, folder / "data", folder, folder / "spoorway.toml"
        self.config.write_text(
            f'data = "{self.data}"\n[archive]\nurl = "{folder / "archive"}"\n[storage.targets.sqlite]\n'
            "[storage.targets.warehouse]\nuse = 'postgres'\nschema = 'web'\n"
            f"host = '127.0.0.1'\nport = {server.port}\nuser = 'postgres'\ndatabase = 'postgres'\n"
            f"[storage.targets.lake]\nuse = 's3'\nurl = '{folder / 'lake'}'\nformat = 'parquet'\nevery_s = 3600\n"
        )

    def settings(self) -> Settings:
        return load(self.config, {}, {})

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "spoorway", *arguments, "--config", str(self.config)]

    def out(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def segments(self, where: str) -> dict[str, int]:
        """How often each is named in the journal's or the archive's segments."""
        text = b"".join(gzip.decompress(path.read_bytes()) for path in (self.folder / where).rglob("*.gz"))
        found = {user: text.count(f'"{user}\\"'.encode()) for user in ALL}
        assert sum(found.values()) == text.count(b"u-")  # named in no other way either
        return {user: count for user, count in found.items() if count}

    def sqlite(self) -> tuple[dict[str, int], list[str], tuple[int, ...]]:
        """Events by user, failed events as text, the account: stored, failed, erased. So the two others."""
        with contextlib.closing(sqlite3.connect(self.data / "events.db")) as db:
            events = db.execute("SELECT user_id FROM events").fetchall()
            failed = db.execute("SELECT e.*, p.* FROM failed_events e LEFT JOIN failed_payloads p USING (payload_id)").fetchall()
            (totals,) = db.execute("SELECT stored, failed, erased FROM totals").fetchall()
        return Counter(user for (user,) in events), [str(row) for row in failed], totals

    def warehouse(self) -> tuple[dict[str, int], list[str], tuple[int, ...]]:
        with psycopg.connect(self.server.dsn, options="-c search_path=web") as db:
            events = db.execute("SELECT user_id FROM events").fetchall()
            failed = db.execute("SELECT * FROM failed_events").fetchall()
            (totals,) = db.execute("SELECT stored, failed, erased FROM totals").fetchall()
        return Counter(user for (user,) in events), [str(row) for row in failed], totals

    def lake(self) -> tuple[dict[str, int], list[str]]:
        rows = import_module("pyarrow.dataset").dataset
        events = [str(path) for path in (self.folder / "lake").rglob("*.parquet") if "failed" not in path.as_posix()]
        users: list[Any] = rows(events, format="parquet").to_table(columns=["user_id"]).column(0).to_pylist()
        failed = [path for path in (self.folder / "lake").rglob("*.gz") if "failed" in path.as_posix()]
        return Counter(users), [line for path in failed for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Any:
    with PostgresServer(tmp_path) as server:
        yield Site(tmp_path, server)


def test_killed_between_two_stores_it_is_resumed_and_nobody_else_is_touched(site: Site) -> None:
    write(site.settings())
    site.out("load", "--once")
    site.out("archive", "now")
    for where in ("data/journal", "archive"):
        assert site.segments(where) == {f"u-{n}": 30 for n in range(4)}
    for events, failed, *totals in (site.sqlite(), site.warehouse(), site.lake()):
        assert (events, len(failed), totals or [(112, 8, 0)]) == (ALL, 8, [(112, 8, 0)])

    claim = Claim(site.data, "warehouse")  # as who loads it has it: there the command waits
    with (site.folder / "told.txt").open("w") as told:
        erasing = subprocess.Popen(site.command("erase", "--user", "u-1", "--yes"), stdout=told, stderr=told)
    end = time.monotonic() + 60
    while "target warehouse: waiting" not in (site.folder / "told.txt").read_text():
        assert erasing.poll() is None and time.monotonic() < end, (site.folder / "told.txt").read_text()
        time.sleep(0.01)
    erasing.kill()
    assert erasing.wait(30) == -9
    claim.release()
    assert (site.sqlite()[0], site.warehouse()[0], site.lake()[0]) == (OTHERS, ALL, ALL)
    assert len(list((site.data / "erasures").glob("*.asked"))) == 1

    receipt = json.loads(site.out("erase", "--resume", "--json"))
    assert receipt["state"] == "done" and not list((site.data / "erasures").glob("*.asked"))
    for where in ("data/journal", "archive"):
        assert site.segments(where) == {f"u-{n}": 30 for n in (0, 2, 3)}
    for events, failed, *totals in (site.sqlite(), site.warehouse(), site.lake()):
        assert (events, len(failed), totals or [(84, 6, 30)]) == (OTHERS, 6, [(84, 6, 30)])
        assert "u-1" not in str(failed)
    for part in ("journal", "archive"):
        assert sum(one["events"] for one in receipt[part].values()) == 30
    assert receipt["archive"] == receipt["journal"]  # the archive's segments are the journal's, byte for byte
    counts = {name: (one["state"], one["events"], one["failed"]) for name, one in receipt["stores"].items()}
    assert counts == dict.fromkeys(("sqlite", "warehouse", "lake"), ("done", 28, 2))
    assert site.out("erase", "--resume") == "nothing was cut short\n"
    for said in map(json.loads, site.out("doctor", "--json").splitlines()):
        assert said["state"] != "wrong", said
