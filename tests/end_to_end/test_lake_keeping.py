"""`spoorway erase`, `retain` and `compact` on events in files, as a user types them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled
from protocol.seams import RawPayload
from spoorway.cli import main
from storage.targets import Counts, s3
from tests.end_to_end.test_lake_commands import NOON, append, configured, load

pytestmark = pytest.mark.slow


def payload(number: int, user: str) -> RawPayload:
    eid = "none" if number % 5 == 4 else f"00000000-0000-4000-8000-{number:012d}"
    return RawPayload(f"{number:032x}", NOON + number, "http", "/i", query=f"e=pv&p=web&tv=t&aid=shop&uid={user}&eid={eid}")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(arguments) == code, capsys.readouterr().err
    return capsys.readouterr().out


def totals(folder: Path) -> Counts:
    target = s3.Plugin(s3.Config(str(folder / "lake"), state=str(folder / "data" / "lake.s3.db")), bundled)
    try:
        return target.totals()
    finally:
        target.close()


def held(folder: Path) -> bytes:
    """Everything in the lake, unpacked as far as it is packed as text."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in paths)


def test_a_person_is_erased_from_the_files_and_the_rest_expires(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, str(tmp_path / "lake"), "both")
    append(tmp_path / "data", [payload(number, "theirs" if number < 10 else "mine") for number in range(30)])
    load(config)
    assert b"theirs" in held(tmp_path / "lake")
    would = json.loads(said(capsys, "erase", *config, "--user", "theirs", "--dry-run", "--json"))
    assert would["stores"] == {"lake": {"events": 8, "failed": 2}}
    receipt = json.loads(said(capsys, "erase", *config, "--user", "theirs", "--yes", "--json"))
    told: dict[str, Any] = receipt["stores"]["lake"]
    assert (told["state"], told["events"], told["failed"]) == ("done", 8, 2)
    assert b"theirs" not in held(tmp_path / "lake")
    said(capsys, "compact", *config)
    load(config)
    count = ("sql", *config, "--on", "s3", "--json", "select count(*) as n, count(distinct user_id) as users from events")
    assert json.loads(said(capsys, *count)) == {"n": 16, "users": 1}
    assert totals(tmp_path) == Counts(30, 16, 4, erased=10)
    said(capsys, "replay", *config, "--to", "lake")  # the journal does not bring them back
    assert totals(tmp_path) == Counts(30, 16, 4, erased=10)
    assert json.loads(said(capsys, *count)) == {"n": 16, "users": 1}
    with Path(config[1]).open("a") as file:
        file.write('[storage.retention.all]\nolder_than = "1h"\n')
    would_go = json.loads(said(capsys, "retain", *config, "--dry-run", "--json"))
    assert would_go == {"target": "lake", "rule": "all", "events": 16, "failed": 4}
    assert json.loads(said(capsys, "retain", *config, "--json")) == would_go
    assert json.loads(said(capsys, *count)) == {"n": 0, "users": 0}
    assert json.loads(said(capsys, "retain", *config, "--json"))["events"] == 0
    assert totals(tmp_path) == Counts(30, erased=10, expired=20)
