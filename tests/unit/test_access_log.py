"""Every line of an access log becomes one payload, and the same one however often and under whatever name its file is read."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.access_log.counters import Counters
from gateway.access_log.places import Places
from gateway.access_log.reading import Reading
from gateway.access_log.sources import Unreadable, inflated, open_source
from gateway.transports.access_log import Config, Plugin, check
from protocol.seams import ConfigurationError, RawPayload, TransientError
from tests.peers.s3_server import S3Server

HOUR_NS = 3_600_000_000_000
FIELDS = "#Version: 1.0\n#Fields: date time c-ip cs-method cs-uri-stem sc-status cs-uri-query x-edge-request-id\n"


def line(number: int, **other: Any) -> str:
    """Without an id of its own: what makes it unique is its place."""
    row = {"msec": f"{1_700_000_000 + number}.5", "request_method": "GET", "request_uri": f"/i?e=pv&n={number}", "status": "200"}
    return json.dumps(row | other) + "\n"


def cloudfront(*numbers: int) -> str:
    return FIELDS + "".join(f"2026-11-22\t05:37:40\t192.0.2.7\tGET\t/i\t200\te=pv&n={n}\tid-{n}\n" for n in numbers)


class Logs:
    """A folder of logs, and one that reads them: each look reads what is new. begin() is a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "logs"
        self.folder.mkdir()
        self.config = Config(path=str(self.folder), state=str(folder / "state.db"))
        self.later_ns = 0
        self.begin()

    def begin(self) -> None:
        self.counters = Counters()
        self.places = Places(self.config.state)
        self.places.open()
        self.source = open_source(self.config, lambda: time.time_ns() + self.later_ns)
        self.reading = Reading(self.config, self.source, self.places, self.counters, lambda: 77)

    def restart(self, **options: Any) -> None:
        self.end()
        self.config = replace(self.config, **options)
        self.begin()

    def end(self) -> None:
        self.places.close()
        self.source.close()

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return path

    def look(self) -> list[RawPayload]:
        return [payload for batch in self.reading.batches() for payload in batch]

    def numbers(self) -> list[str]:
        return [payload.query.rpartition("n=")[2] for payload in self.look()]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    made = Logs(tmp_path)
    yield made
    made.end()


def test_a_line_becomes_the_payload_that_the_http_transport_would_have_made(logs: Logs) -> None:
    logs.write(
        "a.log",
        line(
            1,
            request_method="HEAD",
            request_id="r1",
            remote_addr="::ffff:192.0.2.7",
            http_host="T.example:8443",
            http_user_agent="Mozilla/5.0",
            http_cookie="sp=me; secret=1",
            http_x_forwarded_for="203.0.113.9",
            http_authorization="Basic x",
        ),
    )
    (payload,) = logs.look()
    assert payload == RawPayload(
        payload.id,
        1_700_000_001_500,
        "access_log",
        "/i",
        "e=pv&n=1",
        headers=(("User-Agent", "Mozilla/5.0"), (":method", "HEAD")),
        ip="192.0.2.7",
        host="T.example",
        network_userid="me",
    )
    assert len(payload.id) == 32
    assert set(payload.id) <= set("0123456789abcdef")


def test_who_asked_to_be_anonymous_is(logs: Logs) -> None:
    logs.write("a.log", line(1, remote_addr="192.0.2.7", http_cookie="sp=me", http_sp_anonymous="*"))
    (payload,) = logs.look()
    assert (payload.ip, payload.network_userid) == (None, "00000000-0000-0000-0000-000000000000")


def test_addresses_may_be_truncated_before_the_payload_exists(logs: Logs) -> None:
    logs.restart(truncate_ip=True)
    logs.write("a.log", line(1, remote_addr="192.0.2.7"))
    assert [payload.ip for payload in logs.look()] == ["192.0.2.0"]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"request_method": "POST"}, "other"),
        ({"request_uri": "/index.html?e=pv"}, "other"),
        ({"request_uri": "/css/site.css"}, "other"),
        ({"request_uri": "/i?e=pv", "status": "301"}, "redirected"),
        ({"request_uri": "/i?e=pv", "status": "404"}, "accepted"),
        ({"request_uri": "/i"}, "accepted"),
        ({"request_uri": "http://t.example/i?e=pv"}, "accepted"),
        ({"request_uri": "/pixel.gif?e=pv"}, "accepted"),
        ({"request_uri": "/com.snowplowanalytics.iglu/v1?schema=x"}, "accepted"),
        ({"request_uri": None}, "bad"),
    ],
)
def test_requests_for_the_pixel_count_and_others_are_counted(logs: Logs, changes: dict[str, Any], outcome: Any) -> None:
    logs.restart(paths={"/pixel.gif": "/i"})
    text = line(1, **changes) if changes.get("request_uri", "") is not None else '{"request_uri": ""}\n'
    logs.write("a.log", text)
    found = logs.look()
    assert logs.counters.lines == dict.fromkeys(logs.counters.lines, 0) | {outcome: 1}
    assert len(found) == (outcome in ("accepted", "bad"))
    if outcome == "accepted":
        assert found[0].path == ("/com.snowplowanalytics.iglu/v1" if "iglu" in text else "/i")


def test_a_bad_line_is_a_payload_of_its_bytes(logs: Logs) -> None:
    logs.write("a.log", line(1) + "rubbish\n\n" + line(2))
    first, bad, second = logs.look()
    assert (bad.transport, bad.path, bad.body, bad.received_ms) == ("access_log", "/invalid", b"rubbish", 77)
    assert [first.query[-1], second.query[-1]] == ["1", "2"]
    assert len({first.id, bad.id, second.id}) == 3


def test_a_line_that_is_too_long_comes_apart_and_nothing_of_it_is_lost(logs: Logs) -> None:
    logs.restart(longest_line_bytes=1_000)
    text = "x" * 700_000
    logs.write("a.log", line(1) + text + "\n" + line(2))
    first, *parts, second = logs.look()
    assert b"".join(part.body or b"" for part in parts).decode() == text
    assert max(len(part.body or b"") for part in parts) < 300_000
    assert {part.path for part in parts} == {"/invalid"}
    assert [first.query[-1], second.query[-1]] == ["1", "2"]


def test_a_growing_file_is_read_as_it_grows_and_half_a_line_waits(logs: Logs) -> None:
    logs.write("a.log", line(1) + line(2)[:40])
    assert logs.numbers() == ["1"]
    assert logs.numbers() == []
    logs.write("a.log", line(2)[40:])
    assert logs.numbers() == ["2"]
    logs.write("a.log", line(3))
    logs.restart()
    assert logs.numbers() == ["3"]
    assert logs.numbers() == []


def test_half_a_line_that_nobody_finishes_is_kept_as_what_it_is(logs: Logs) -> None:
    logs.write("a.log", line(1) + line(2)[:40])
    assert logs.numbers() == ["1"]
    logs.later_ns = HOUR_NS + 1
    (half,) = logs.look()
    assert (half.path, half.body) == ("/invalid", line(2)[:40].encode())
    assert logs.look() == []


def test_rotation_loses_nothing_and_repeats_nothing(logs: Logs) -> None:
    log = logs.write("a.log", line(1))
    assert logs.numbers() == ["1"]
    logs.write("a.log", line(2))
    log.rename(logs.folder / "a.log.1")
    logs.write("a.log.1", line(3))  # nginx writes to the old file until it is told
    logs.write("a.log", line(4))
    assert logs.numbers() == ["2", "3", "4"]
    with gzip.open(logs.folder / "a.log.2.gz", "wb") as packed:
        packed.write((logs.folder / "a.log.1").read_bytes())
    (logs.folder / "a.log.1").unlink()
    (logs.folder / "a.log").rename(logs.folder / "a.log.1")
    logs.write("a.log.1", line(5))
    logs.write("a.log", line(6))
    logs.restart()
    assert logs.numbers() == ["5", "6"]
    assert logs.numbers() == []


def test_what_is_written_to_a_file_after_it_was_taken_away_is_read_all_the_same(logs: Logs) -> None:
    log = logs.write("a.log", line(1))
    assert logs.numbers() == ["1"]
    with log.open("a") as writing:
        shutil.move(log, logs.folder.parent / "elsewhere")
        writing.write(line(2))
        writing.flush()
        assert logs.numbers() == ["2"]
        log.write_text(line(3))
        assert logs.numbers() == ["3"]
        writing.write(line(4) + "half")
        writing.flush()
        assert logs.numbers() == ["4"]
    logs.later_ns = 61_000_000_000
    assert [payload.body for payload in logs.look()] == [b"half"]
    assert logs.look() == []
    assert [held.name for held in logs.source._held.values()] == [str(log)]  # type: ignore[attr-defined]


def test_a_file_that_is_copied_and_emptied_goes_on(logs: Logs) -> None:
    log = logs.write("a.log", line(1) + line(2))
    assert logs.numbers() == ["1", "2"]
    logs.write("a.log", line(3))
    shutil.copyfile(log, logs.folder / "a.log.1")
    os.truncate(log, 0)
    assert logs.numbers() == ["3"]
    logs.write("a.log", line(4))
    assert logs.numbers() == ["4"]
    os.truncate(log, 0)
    logs.write("a.log", line(5) + line(6) + line(7))  # longer than before at the next look
    assert logs.numbers() == ["5", "6", "7"]


def test_the_same_line_is_the_same_payload_when_nothing_is_remembered(logs: Logs, tmp_path: Path) -> None:
    logs.write("a.log", line(1) + "rubbish\n" + line(1) + line(2))
    found = logs.look()
    assert len({payload.id for payload in found}) == 4  # a line that stands there twice is two requests
    with gzip.open(logs.folder / "a.log.1.gz", "wb") as packed:
        packed.write((logs.folder / "a.log").read_bytes())
    (logs.folder / "a.log").unlink()
    logs.restart(state=str(tmp_path / "other.db"))
    assert logs.look() == found


def test_a_request_that_has_an_id_is_the_same_in_any_file(logs: Logs) -> None:
    logs.write("E1.2026-11-22-05.aaaa", cloudfront(1, 2))
    logs.write("E1.2026-11-22-05.bbbb", cloudfront(3, 2))
    found = logs.look()
    assert [payload.query[-1] for payload in found] == ["1", "2", "3", "2"]
    assert found[1].id == found[3].id
    assert len({payload.id for payload in found}) == 3


def test_files_that_begin_alike_are_told_apart(logs: Logs) -> None:
    logs.write("a.log", line(1) + line(2))
    logs.write("b.log", line(1) + line(3) + line(4))
    assert sorted(logs.numbers()) == ["1", "1", "2", "3", "4"]
    logs.write("a.log", line(5))
    logs.write("b.log", line(6))
    assert sorted(logs.numbers())[-2:] == ["5", "6"]


def test_names_of_columns_hold_after_a_restart_in_the_middle(logs: Logs) -> None:
    logs.write("a", cloudfront(1))
    assert logs.numbers() == ["1"]
    logs.write("a", cloudfront(2).removeprefix(FIELDS))
    logs.restart()
    assert [payload.query for payload in logs.look()] == ["e=pv&n=2"]


def test_gzip_of_several_members_is_read_and_a_damaged_one_as_far_as_it_goes(logs: Logs) -> None:
    logs.write("a.gz", gzip.compress(line(1).encode()) + gzip.compress((line(2) + line(3)[:-1]).encode()))
    assert logs.numbers() == ["1", "2", "3"]
    whole = gzip.compress("".join(line(n) for n in range(2_000)).encode())
    logs.write("b.gz", whole[:-2_000])
    found = logs.numbers()
    assert found == [str(n) for n in range(len(found))]
    assert 1_000 < len(found) < 2_000
    assert logs.counters.unreadable == 1
    assert logs.look() == []
    assert logs.counters.unreadable == 1  # not tried again while it stays as it is
    logs.write("b.gz", whole[-2_000:])  # it was only being written
    assert logs.numbers() == [str(n) for n in range(len(found), 2_000)]


def test_a_file_that_inflates_a_thousandfold_takes_no_more_memory() -> None:
    packed = gzip.compress(bytes(20_000_000))
    pieces = list(inflated("x", iter([packed]), 0))
    assert sum(map(len, pieces)) == 20_000_000
    assert max(map(len, pieces)) <= 1 << 18


def test_a_pattern_a_folder_and_its_folders(logs: Logs) -> None:
    logs.write("a.log", line(1))
    logs.write("2026/11/b.log", line(2)) if (logs.folder / "2026").mkdir() is None else None
    logs.write(".hidden", line(3))
    assert sorted(logs.numbers()) == ["1", "2"]
    logs.restart(path=f"{logs.folder}/*.lo?", state="")
    logs.write("c.log", line(4))
    (logs.folder / "link.log").symlink_to("c.log")
    assert sorted(logs.numbers()) == ["1", "4"]


def test_many_lines_come_in_batches_and_a_place_is_kept_only_after_the_next_is_asked_for(logs: Logs) -> None:
    logs.write("a.log", "".join(line(n) for n in range(2_500)))
    batches = logs.reading.batches()
    assert [len(next(batches)), len(next(batches))] == [1_000, 1_000]
    logs.restart()  # killed before the second was on disk
    assert logs.numbers() == [str(n) for n in range(1_000, 2_500)]


def test_what_is_gone_for_a_week_is_forgotten(logs: Logs) -> None:
    logs.write("a.log", line(1))
    logs.look()
    day_ms = 86_400_000
    logs.places.seen([str(logs.folder / "a.log")], 77 + 7 * day_ms)
    logs.places.seen([], 77 + 14 * day_ms)
    assert logs.places.by_name(str(logs.folder / "a.log")) is not None
    logs.places.seen([], 78 + 14 * day_ms)
    assert logs.places.by_name(str(logs.folder / "a.log")) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "no folder that can be read"),
        ({"path": "/nowhere/at/all/*.log"}, "/nowhere/at/all is no folder that can be read"),
        ({"path": "s3://"}, "expected s3://BUCKET/PREFIX"),
        ({"path": "/tmp", "paths": {"/p.gif": "/nothing"}}, "possible are /i,"),
        ({"path": "/tmp", "paths": {"p.gif": "/i"}}, "'p.gif' = '/i'"),
        ({"path": "/tmp", "stored_headers": ("Authorization",)}, "it holds credentials"),
    ],
)
def test_a_mistake_in_the_options_is_told_at_the_start(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Plugin(Config(**options))


def test_a_state_file_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a diary, no database, and longer than a header of one hundred bytes would be " * 3)
    plugin = Plugin(Config(path=str(tmp_path), state=str(tmp_path / "state")))
    with pytest.raises(ConfigurationError, match="file is not a database"):
        asyncio.run(plugin.start(lambda payload: asyncio.sleep(0)))


def test_what_the_journal_cannot_take_is_offered_again_and_stopping_keeps_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("".join(line(n) for n in range(1_500)))
    config = Config(path=str(tmp_path / "a.log"), state=str(tmp_path / "state.db"), scan_s=0.01, retry_s=0.001)
    refusals = [TransientError("full")] * 3

    async def read_until(count: int) -> list[list[RawPayload]]:
        taken: list[list[RawPayload]] = []
        enough = asyncio.Event()

        async def accept(payload: RawPayload) -> None:
            raise AssertionError("there is a way for many")

        async def many(payloads: list[RawPayload]) -> None:
            if refusals:
                raise refusals.pop()
            taken.append(payloads)
            if sum(map(len, taken)) >= count:
                enough.set()

        accept.many = many  # type: ignore[attr-defined]
        plugin = Plugin(config)
        await plugin.start(accept)
        async with asyncio.timeout(60):
            await enough.wait()
        await plugin.stop()
        assert plugin.counters.not_taken in (0, 3)
        return taken

    first = asyncio.run(read_until(1_000))
    second = asyncio.run(read_until(1_500 - sum(map(len, first)))) if sum(map(len, first)) < 1_500 else []
    numbers = [payload.query.rpartition("n=")[2] for batch in first + second for payload in batch]
    assert numbers == [str(n) for n in range(1_500)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.mark.slow
def test_objects_in_s3_are_read_once_each_also_late_and_uploaded_again(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket, put = s3.bucket("access-logs").removeprefix("s3://"), s3.client().put_object

    def upload(name: str, *numbers: int) -> None:
        put(Bucket=bucket, Key=f"cdn/{name}", Body=gzip.compress(cloudfront(*numbers).encode(), mtime=0))

    upload("E1.2026-11-22-05.aaaa.gz", 1, 2)
    put(Bucket=bucket, Key="cdn/", Body=b"")
    put(Bucket=bucket, Key="other/x", Body=line(9).encode())
    (tmp_path / "logs").mkdir()
    logs = Logs(tmp_path / "logs")
    logs.restart(path=f"s3://{bucket}/cdn/")
    first = logs.look()
    assert [payload.query[-1] for payload in first] == ["1", "2"]
    assert logs.look() == []
    upload("E1.2026-11-21-01.late.gz", 3)
    upload("E1.2026-11-22-05.aaaa.gz", 1, 2, 4)
    put(Bucket=bucket, Key="cdn/E1.2026-11-22-06.plain", Body=cloudfront(5).encode())
    logs.restart()
    again = logs.look()
    assert [payload.query[-1] for payload in again] == ["3", "4", "5"]
    upload("E1.2026-11-22-05.aaaa.gz", 2, 1)  # the same requests, put together otherwise
    assert {payload.id for payload in logs.look()} == {payload.id for payload in first}
    logs.restart(after="E1.2026-11-22-05.aaaa.gz", state="")
    assert logs.numbers() == ["5"]
    assert logs.counters.files == 1
    logs.restart(after="")
    (file,) = [one for one in logs.source.files() if one.name.endswith("aaaa.gz")]
    upload("E1.2026-11-22-05.aaaa.gz", 9)  # after it was listed: what is read must be what was listed
    with pytest.raises(Unreadable, match=r"PreconditionFailed|412"):
        list(file.chunks(0))
    assert check(logs.config) == ""
    logs.restart(path="s3://no-such-bucket/cdn/")
    assert "NoSuchBucket" in check(logs.config)
    assert logs.look() == []
    assert logs.counters.unreadable == 1
    logs.end()
