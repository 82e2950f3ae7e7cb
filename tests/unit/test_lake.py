"""The S3 target's files: names, types, merging, what a crash leaves, and that engines read them."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snowplow_analytics_sdk.event_transformer import transform  # type: ignore[import-untyped]

from enrich.pipeline import Options as EnrichOptions
from enrich.pipeline import Pipeline
from gateway.journal import Chunk
from protocol.schemas import bundled
from protocol.seams import (
    START,
    ConfigurationError,
    Cursor,
    Event,
    FailedEvent,
    PermanentError,
    Position,
    RawPayload,
    Reason,
    TransientError,
)
from protocol.tables import COLUMN_NAMES, COLUMNS
from spoorway.loader import Loader
from storage import lake
from storage.lake import commits, merging, writing
from storage.lake.index import Index
from storage.lake.parquet import schema, to_parquet, to_table
from storage.lake.statements import statements
from storage.objects import Found, Objects, open_objects
from storage.rows import to_row
from storage.targets import Batch, Counts, Overtaken, s3
from tests.contracts.s3_bench import LakeBench, Refusing

NOON = 1_768_478_400_000  # 2026-01-15 12:00
DAY_MS = 86_400_000
ROOT = Path(__file__).parents[2]


def event_of(number: int, name: str = "page_view", day: int = 0, **columns: Any) -> Event:
    event: Any = {
        "app_id": "shop",
        "event": "page_view",
        "event_name": name,
        "event_id": f"00000000-0000-4000-8000-{number:012d}",
        "event_fingerprint": "f",
        "collector_tstamp": NOON + day * DAY_MS + number,
        "v_collector": "c",
        "v_etl": "e",
    }
    return event | columns


def failed_of(number: int) -> FailedEvent:
    payload = RawPayload(f"{number:032x}", NOON, "http", "/i", query="e=pv", body=b"\xff\x00")
    return FailedEvent(f"failed-{number}", "schema_violations", (Reason("atomic", "eid", "is no UUID", "x"),), payload, NOON, 0)


def batch(end: int, *events: Event, failed: tuple[FailedEvent, ...] = ()) -> Batch:
    return Batch(events, failed, {"lane": Position(1, end, end)}, len(events) + len(failed))


def root(bench: LakeBench) -> Path:
    return Path(bench.config.url)


def filled(bench: LakeBench, commits_made: int = 6) -> list[str]:
    """So many commits of three events each, over two days and two names; the ids."""
    target = bench.open()
    numbers = count(1)
    ids: list[str] = []
    for end in range(1, commits_made + 1):
        made = [event_of(next(numbers)), event_of(next(numbers), "link_click"), event_of(next(numbers), day=1)]
        target.commit(batch(end, *made, failed=(failed_of(end),)))
        ids += [str(event["event_id"]) for event in made]
    return sorted(ids)


def compacted(objects: Objects, before: str = "9999-12-31", most_bytes: int = 1 << 20) -> int:
    newest, _ = commits.newest(objects)
    plan = merging.plan(objects, lake.SUFFIXES, before, most_bytes, newest.number)
    objects.delete(plan.tidy)
    for members in plan.merges:
        merging.merge(objects, members)
    return len(plan.merges)


def copied(folder: Path, name: str) -> LakeBench:
    """Of what lies in `before`; open."""
    shutil.copytree(folder / "before", folder / name)
    bench = LakeBench(folder / name)
    bench.open().cursor()
    return bench


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut leaves is not asked here, and a shared disk can take a second for each of thousands of fsyncs."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LakeBench]:
    made = LakeBench(tmp_path)
    yield made
    if made.target:
        made.target.close()


# Names ------------------------------------------------------------------------------------------------------------------


def found(*ranges: tuple[int, int], partition: str = "events/day=2026-01-15/name=a") -> list[Found]:
    return [Found(f"{partition}/{first:010d}-{last:010d}.parquet", 1, "") for first, last in ranges]


def ranges(pieces: list[lake.Piece]) -> list[tuple[int, int]]:
    return [(piece.first, piece.last) for piece in pieces]


def test_a_file_within_another_ones_numbers_is_superseded() -> None:
    live, superseded = lake.sorted_out(found((1, 1), (1, 4), (2, 2), (3, 4), (5, 5), (6, 9), (7, 7), (10, 10)))
    assert ranges(live) == [(1, 4), (5, 5), (6, 9), (10, 10)]
    assert ranges(superseded) == [(1, 1), (2, 2), (3, 4), (7, 7)]


def test_a_file_of_another_partition_supersedes_nothing() -> None:
    listing = found((1, 1), partition="events/day=2026-01-15/name=a") + found((1, 9), partition="events/day=2026-01-15/name=b")
    assert len(lake.sorted_out(listing)[0]) == 2


def test_what_is_none_of_ours_is_passed_over() -> None:
    assert list(lake.pieces([Found("events/day=2026-01-15/name=a/notes.txt", 1, ""), Found("events/readme", 1, "")])) == []


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("page_view", "name=page_view"),
        ("ad/click=1", "name=ad%2Fclick%3D1"),
        ("größe", "name=gr%C3%B6%C3%9Fe"),
        ("..", "name=.."),
        ("", "name=unknown"),
    ],
)
def test_a_name_becomes_a_folder_as_hive_escapes_it(name: str, partition: str) -> None:
    assert lake.events_partition("2026-01-15", name) == f"day=2026-01-15/{partition}"


def test_very_long_names_stay_short_and_apart() -> None:
    one, other = (lake.events_partition("2026-01-15", "ä" * 500 + end) for end in "ab")
    assert one != other
    assert len(one) < 160


@pytest.mark.parametrize(("ms", "day"), [(NOON, "2026-01-15"), (-1, "1969-12-31"), (None, "1970-01-01"), (10**18, "1970-01-01")])
def test_a_day_is_utcs(ms: int | None, day: str) -> None:
    assert lake.day_of(ms) == day


# Types ------------------------------------------------------------------------------------------------------------------


def test_every_column_has_its_type_and_keeps_its_value() -> None:
    event = event_of(
        1,
        txn_id=7,
        se_value=Decimal("42.50"),
        tr_total=Decimal("9.995"),
        geo_latitude=1.5,
        br_cookies=False,
        page_title="tab\tand\x00",
        contexts=[{"schema": "iglu:a/b/jsonschema/1-0-0", "data": {"n": 1}}],
    )
    (row,) = to_table([event]).to_pylist()
    assert row["collector_tstamp"] == datetime(2026, 1, 15, 12, 0, 0, 1000, UTC)
    assert (row["txn_id"], row["se_value"], row["tr_total"], row["geo_latitude"]) == (7, 42.5, Decimal("10.00"), 1.5)
    assert row["br_cookies"] is False
    stored = dict(zip(COLUMN_NAMES, to_row(event), strict=True))
    assert (row["page_title"], row["contexts"]) == (stored["page_title"], stored["contexts"]) != (None, None)
    assert list(row) == list(COLUMN_NAMES)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("txn_id", 2**31),
        ("txn_id", 2**70),
        ("dvce_created_tstamp", 10**15 * 9),
        ("dvce_created_tstamp", -(2**80)),
        ("tr_total", Decimal("1e16")),
        ("tr_total", Decimal("9999999999999999.995")),
        ("tr_total", Decimal("NaN")),
        ("se_value", Decimal("Infinity")),
        ("geo_latitude", float("nan")),
    ],
)
def test_what_no_column_can_hold_is_null_and_its_neighbours_stay(column: str, value: object) -> None:
    fine = {"txn_id": 3, "dvce_created_tstamp": NOON, "tr_total": Decimal(1), "se_value": Decimal(1), "geo_latitude": 0.5}
    rows = to_table([event_of(1, **{column: value}), event_of(2, **fine), event_of(3)]).to_pylist()
    assert [row[column] is None for row in rows] == [True, False, True]


@pytest.mark.parametrize("first", range(4))
def test_events_with_other_columns_than_the_first_keep_theirs(first: int) -> None:
    made = [event_of(0, user_id="u"), event_of(1), event_of(2, txn_id=7), event_of(3, user_id="v", txn_id=8)]
    made = made[first:] + made[:first]
    for events in (made, [one for one in made if ("user_id" in one) != ("txn_id" in one)]):  # and as many, but others
        found = [(row["user_id"], row["txn_id"]) for row in to_table(events).to_pylist()]
        assert found == [(event.get("user_id"), event.get("txn_id")) for event in events]


def test_the_schema_is_the_canonical_columns() -> None:
    assert schema().names == list(COLUMN_NAMES)
    kinds = {column.name: str(schema().field(column.name).type) for column in COLUMNS}
    assert {kinds[name] for name in ("tr_total", "ti_price_base")} == {"decimal128(18, 2)"}
    assert (kinds["se_value"], kinds["collector_tstamp"], kinds["txn_id"]) == ("double", "timestamp[ms, tz=UTC]", "int32")


def test_what_never_repeats_has_no_dictionary_and_what_does_has_one() -> None:
    made = pq.ParquetFile(io.BytesIO(to_parquet([event_of(number) for number in range(100)])))
    assert made.schema_arrow.equals(schema(), check_metadata=True)  # as in files of before, with which it is merged
    group = made.metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    encodings = {column.path_in_schema: ("RLE_DICTIONARY" in column.encodings, column.compression) for column in columns}
    assert (encodings["event_id"], encodings["collector_tstamp"], encodings["app_id"]) == (
        (False, "ZSTD"),
        (False, "ZSTD"),
        (True, "ZSTD"),
    )


# Readers ----------------------------------------------------------------------------------------------------------------


def test_duckdb_reads_the_folder_by_day_and_name(bench: LakeBench) -> None:
    ids = filled(bench)
    files = f"{root(bench)}/events/*/*/*.parquet"
    db = duckdb.connect()
    rows = db.execute(
        "SELECT name, CAST(day AS VARCHAR), count(*), min(event_name) FROM read_parquet(?, hive_partitioning = true)"
        " GROUP BY ALL ORDER BY ALL",
        [files],
    ).fetchall()
    assert rows == [
        ("link_click", "2026-01-15", 6, "link_click"),
        ("page_view", "2026-01-15", 6, "page_view"),
        ("page_view", "2026-01-16", 6, "page_view"),
    ]
    read = db.execute("SELECT event_id FROM read_parquet(?) ORDER BY 1", [files]).fetchall()
    assert [event_id for (event_id,) in read] == ids
    failed = db.execute(
        "SELECT failed_id, json_extract_string(reasons, '$[0].message') FROM read_json(?) ORDER BY 1 LIMIT 1",
        [f"{root(bench)}/failed/*/*.ndjson.gz"],
    ).fetchall()
    assert failed == [("failed-1", "is no UUID")]


def filled_out() -> tuple[Event, dict[str, Any]]:
    """An event of which every column has a value of its own, as far as the type allows; and what the SDK is to make of it."""
    values: dict[str, Callable[[int], tuple[Any, ...]]] = {  # by the column's place: what is stored, and what is read
        "string": lambda place: (f"größe {place}",) * 2,
        "uuid": lambda place: (f"00000000-0000-4000-8000-{place:012d}",) * 2,
        "timestamp": lambda place: (NOON + place, f"2026-01-15T12:00:00.{place:03d}Z"),
        "integer": lambda place: (-place,) * 2,
        "decimal": lambda place: (Decimal(f"{place}.50"), place + 0.5),
        "float": lambda place: (place + 0.25,) * 2,
        "boolean": lambda place: (place % 2 == 0,) * 2,
    }
    plain = {column.name: values[column.type](place) for place, column in enumerate(COLUMNS) if column.type != "json"}
    items = [{"schema": f"iglu:com.acme/cartItem/jsonschema/2-0-{n}", "data": {"n": n}} for n in (0, 1)]
    parts: Any = {
        "unstruct_event": {"schema": "iglu:com.acme/linkClick/jsonschema/1-0-0", "data": {"targetUrl": "https://x/é\t\n"}},
        "contexts": [*items, {"schema": "iglu:com.acme/user/jsonschema/1-0-0", "data": {"tags": ["a", None, 1.5]}}],
        "derived_contexts": [{"schema": "iglu:org.example/agent/jsonschema/1-0-0", "data": {"robot": False}}],
    }
    event = {name: stored for name, (stored, _) in plain.items()} | parts
    read = {name: found for name, (_, found) in plain.items()}
    # The SDK has its own name for one column, keeps one decimal as text, and adds where the event was.
    read["refr_device_tstamp"] = read.pop("refr_dvce_tstamp")
    read["se_value"] = str(event["se_value"])
    read["geo_location"] = f"{event['geo_latitude']},{event['geo_longitude']}"
    read |= {
        "unstruct_event_com_acme_link_click_1": {"targetUrl": "https://x/é\t\n"},
        "contexts_com_acme_cart_item_2": [{"n": 0}, {"n": 1}],
        "contexts_com_acme_user_1": [{"tags": ["a", None, 1.5]}],
        "contexts_org_example_agent_1": [{"robot": False}],
    }
    return event, read


@pytest.mark.parametrize("form", ["tsv", "both"])
def test_the_official_sdk_reads_all_of_the_tsv(tmp_path: Path, form: str) -> None:
    bench = LakeBench(tmp_path, form=form)
    target = bench.open()
    full, read = filled_out()
    assert full.keys() == set(COLUMN_NAMES)
    target.commit(batch(1, full, event_of(2, "link_click", tr_total=Decimal("12.50"))))
    files = sorted(root(bench).glob("tsv/*/*/*.tsv.gz"))
    events = [transform(line) for file in files for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    few = {
        "app_id": "shop",
        "event": "page_view",
        "event_name": "link_click",
        "event_fingerprint": "f",
        "event_id": "00000000-0000-4000-8000-000000000002",
        "collector_tstamp": "2026-01-15T12:00:00.002Z",
        "v_collector": "c",
        "v_etl": "e",
        "tr_total": 12.5,
    }
    assert sorted(events, key=len) == [few, read]
    assert root(bench).joinpath("events").exists() == (form == "both")
    target.close()


def test_the_same_batch_makes_the_same_bytes(tmp_path: Path) -> None:
    made: list[dict[str, bytes]] = []
    for name in ("one", "other"):
        bench = LakeBench(tmp_path / name, form="both")
        filled(bench, 2)
        bench.open().close()
        made.append({str(p.relative_to(root(bench))): p.read_bytes() for p in root(bench).rglob("0*.*") if p.is_file()})
    assert made[0] == made[1]
    assert len(made[0]) >= 12


@pytest.mark.parametrize("quick", [False, True])
def test_both_compressors_make_what_every_reader_of_gzip_reads(monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    if not quick:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    compress = writing.compressor.__wrapped__()
    assert ("isal" in compress.func.__module__) is quick
    text = "".join(f"Zeile {number}\tößü\n" for number in range(5_000)).encode()
    assert compress(text) == compress(text)
    assert gzip.decompress(compress(text)) == text
    subprocess.run(["gzip", "-t"], input=compress(text), check=True)


# What comes again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "tsv", "both"])
@pytest.mark.parametrize("merged", [False, True])
def test_a_lost_index_is_read_from_the_files_again(tmp_path: Path, form: str, merged: bool) -> None:
    bench = LakeBench(tmp_path, form=form)
    ids = filled(bench)
    target = bench.open()
    if merged:
        assert compacted(bench.objects())
    target.close()
    for file in tmp_path.glob("s3.db*"):
        file.unlink()
    again = [event_of(number, day=1) for number in (3, 7)] + [event_of(1, event_fingerprint="g")]
    counts = bench.open().commit(batch(99, *again, failed=(failed_of(1), failed_of(50))))
    assert counts == Counts(5, 1, 1, 3)  # the same id and fingerprint on another day is a duplicate, another fingerprint is not
    assert len(ids) == 18


def test_the_index_tells_each_id_its_own_fingerprint(tmp_path: Path) -> None:
    prints = (None, "f", 'quote " and \\', "été", "7", "")
    known = [(f"id-{number}", prints[number % 6], f"2026-01-1{number % 5}") for number in range(3_000)]
    index = Index(tmp_path / "ids.db")
    index.add(known[:1_000], (), ("origin", 1))
    told = index.stored([name for name, *_ in known[500:1_500]] + ["id-0", "id-0", "unknown"])  # and its keys are kept
    assert told == {name: fingerprint for name, fingerprint, _ in known[:1] + known[500:1_000]}
    index.add(known[1_000:], [("failed", "2026-01-12")], ("origin", 2), "2026-01-12")
    assert index.stored([name for name, *_ in known]) == {name: text for name, text, day in known if day >= "2026-01-12"}
    assert (index.stored([]), index.failed(["failed", "id-2"])) == ({}, {"failed": "2026-01-12"})
    index.close()


def test_an_index_of_another_place_is_begun_anew(tmp_path: Path) -> None:
    bench = LakeBench(tmp_path)
    filled(bench)
    bench.open().close()
    elsewhere = LakeBench(tmp_path, url=str(tmp_path / "elsewhere"))
    assert elsewhere.open().commit(batch(1, event_of(1), event_of(2))).stored == 2
    assert elsewhere.open().commit(batch(2, event_of(1))).duplicate == 1
    assert bench.open().commit(batch(99, event_of(1))).duplicate == 1


def test_what_is_older_than_remembered_is_forgotten_and_the_rest_is_not(tmp_path: Path) -> None:
    bench = LakeBench(tmp_path)
    target = s3.Plugin(s3.Config(bench.config.url, every_s=0, remember_days=2, state=bench.config.state), bundled)
    target.commit(batch(1, event_of(1), event_of(2, day=1), event_of(3, day=3)))
    assert target.commit(batch(2, event_of(1), event_of(2, day=1), event_of(3, day=3))) == Counts(3, 1, 0, 2)
    target.close()
    for file in tmp_path.glob("s3.db*"):
        file.unlink()
    again = s3.Plugin(s3.Config(bench.config.url, every_s=0, remember_days=2, state=bench.config.state), bundled)
    assert again.commit(batch(3, event_of(2, day=1), event_of(3, day=3))) == Counts(2, 0, 0, 2)
    again.close()


# Trouble ----------------------------------------------------------------------------------------------------------------


def test_nothing_is_seen_of_what_was_not_committed(bench: LakeBench) -> None:
    filled(bench, 1)
    assert bench.target
    before = sorted(found.name for found in bench.objects().list())
    with pytest.raises(TransientError):
        bench.failing_commit("inside", batch(2, event_of(50), event_of(51, "b")), random.Random(0))
    assert sorted(found.name for found in bench.objects().list()) == before


def test_whichever_call_fails_the_next_life_finds_every_event_once(tmp_path: Path) -> None:
    """A commit of several files, cut off at each of its calls in turn, with the call done or not."""
    before = LakeBench(tmp_path / "before")
    filled(before, 2)
    before.open().close()
    for number in count(1):
        for done in (False, True):
            bench = copied(tmp_path, f"{number}-{done}")
            assert bench.target
            refusing = Refusing(bench.target._objects)
            refusing.fail_at, refusing.done = number, done
            bench.target._objects = refusing  # type: ignore[assignment]
            offered = batch(3, event_of(50), event_of(51, "b"), event_of(1), failed=(failed_of(9),))
            try:
                counts = bench.target.commit(offered)
                assert refusing.calls < number
                bench.target.close()
                return
            except TransientError:
                pass
            other_cut = batch(4, event_of(50), event_of(51, "b"), event_of(1), event_of(52), failed=(failed_of(9),))
            target = bench.open()
            taken = target.cursor()["lane"].sequence == 3
            assert taken == (number > 1 or done)
            counts = target.commit(batch(4, event_of(52)) if taken else other_cut)
            assert counts.stored == (1 if taken else 3)
            assert len(bench.ids()) == len(set(bench.ids())) == target.totals().stored == 9
            assert sorted(bench.failed_ids()) == ["failed-1", "failed-2", "failed-9"]
            target.close()


def test_two_writers_of_one_place_are_told(tmp_path: Path) -> None:
    first = LakeBench(tmp_path)
    second = LakeBench(tmp_path / "second", url=first.config.url)
    one, other = first.open(), second.open()
    one.cursor(), other.cursor()
    one.commit(batch(1, event_of(1)))
    with pytest.raises(Overtaken, match="another loader is at"):
        other.commit(replace(batch(1, event_of(1), event_of(2)), since={}))
    assert len(first.ids()) == 1
    assert other.cursor() == {"lane": Position(1, 1, 1)}
    assert other.commit(batch(2, event_of(1), event_of(2))) == Counts(2, 1, 0, 1)  # it has read what the first one stored
    with pytest.raises(Overtaken):
        one.commit(replace(batch(3, event_of(3)), since={"lane": Position(1, 1, 1)}))
    one.close(), other.close()


def test_a_number_that_another_writer_took_is_followed_by_the_next(tmp_path: Path) -> None:
    """Both hold the last commit for the newest; whoever comes second reads what the first one stored, and goes on."""
    first = LakeBench(tmp_path)
    second = LakeBench(tmp_path / "second", url=first.config.url)
    one, other = first.open(), second.open()

    def lane(name: str, end: int) -> dict[str, Position]:
        return {name: Position(0, end, end)}

    for number in range(3):
        one.commit(Batch([event_of(number)], [], lane("a", number + 1), 1, since=lane("a", number)))
        both = [event_of(number), event_of(number + 10)]
        assert other.commit(Batch(both, [], lane("b", number + 1), 1, since=lane("b", number))) == Counts(1, 1, 0, 1)
    assert one.cursor() == other.cursor() == lane("a", 3) | lane("b", 3)
    assert other.totals() == Counts(6, 6, 0, 3)
    assert commits.newest(first.objects())[0].number == 6
    one.close(), other.close()


def test_a_writer_in_trouble_is_told_that_another_went_on_meanwhile(tmp_path: Path) -> None:
    first = LakeBench(tmp_path)
    second = LakeBench(tmp_path / "second", url=first.config.url)
    one, other = first.open(), second.open()
    assert one.cursor() == other.cursor() == {}
    with pytest.raises(TransientError):
        second.failing_commit("inside", batch(1, event_of(1), event_of(2)), random.Random(0))
    one.commit(batch(5, event_of(1)))
    with pytest.raises(Overtaken):  # its batch ends before the cursor that is there now
        other.commit(replace(batch(1, event_of(1), event_of(2)), since={}))
    assert one.cursor() == {"lane": Position(1, 5, 5)}
    one.close(), other.close()


def test_wiping_that_was_cut_off_is_finished_by_the_next_life(bench: LakeBench) -> None:
    filled(bench)
    assert bench.target
    refusing = Refusing(bench.target._objects)
    refusing.fail_at = 2
    bench.target._objects = refusing  # type: ignore[assignment]
    with pytest.raises(TransientError):
        bench.target.wipe()
    target = bench.open()
    assert (target.cursor(), target.totals(), bench.ids(), bench.failed_ids()) == ({}, Counts(), [], [])
    assert target.commit(batch(1, event_of(1))).stored == 1


class Obliging:
    """Objects that are made again although they were to be new, as some stores do it."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def put_new(self, name: str, body: bytes) -> bool:
        self.objects.put(name, body)
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objects, name)


def test_a_store_that_ignores_conditions_is_refused_before_anything_is_committed(bench: LakeBench) -> None:
    target = s3.Plugin(bench.config, bundled)
    target._objects = Obliging(target._objects)  # type: ignore[assignment]
    with pytest.raises(PermanentError, match="this store ignores If-None-Match"):
        target.commit(batch(1, event_of(1)))
    target.close()


def test_a_store_that_is_out_of_reach_is_passing_trouble_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    target = s3.Plugin(s3.Config("s3://bucket/x", "http://127.0.0.1:9", "us-east-1", state=str(tmp_path / "s3.db")), bundled)
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9"):
        target.cursor()
    target.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": ""}, r"expected s3://BUCKET/PREFIX or a folder"),
        ({"every_s": -1.0}, r"every_s = -1\.0: it must be at least 0"),
        ({"batch_payloads": 0}, r"batch_payloads = 0"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        s3.Plugin(s3.Config(**{"url": str(tmp_path), "state": str(tmp_path / "s3.db"), **options}), bundled)


def test_a_package_that_is_missing_is_named_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "storage.lake.parquet")
    with pytest.raises(ConfigurationError, match=r'format = "parquet" needs pyarrow; install spoorway\[s3\]'):
        s3.Plugin(s3.Config(str(tmp_path / "lake"), state=str(tmp_path / "s3.db")), bundled)
    s3.Plugin(s3.Config(str(tmp_path / "lake"), format="tsv", state=str(tmp_path / "s3.db")), bundled).close()


def test_a_file_that_is_no_index_is_refused_with_the_next_step(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "s3.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE diary (entry)")
    db.close()
    with pytest.raises(PermanentError, match="no index of this version; delete it"):
        s3.Plugin(s3.Config(str(tmp_path / "lake"), state=str(path)), bundled)


def test_a_batch_waits_for_more_unless_there_is_more(tmp_path: Path) -> None:
    now = [0.0]
    target = s3.Plugin(
        s3.Config(str(tmp_path / "lake"), every_s=60, state=str(tmp_path / "s3.db")), bundled, timer=lambda: now[0]
    )
    assert target.pause_s(False) == 0
    target.commit(batch(1, event_of(1)))
    now[0] = 20
    assert (target.pause_s(False), target.pause_s(True)) == (40, 0)
    full = batch(2, event_of(2))
    target.commit(Batch(full.events, full.failed, full.cursor, full.payloads, more=True))
    assert target.pause_s(False) == 0
    target.close()


class Shelf:
    """A reader with a few payloads."""

    def __init__(self, payloads: int) -> None:
        self.payloads = payloads
        self.reads: list[tuple[int, int]] = []

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        self.reads.append((max_payloads, max_bytes))
        start = cursor.get("lane", START).sequence
        end = min(self.payloads, start + max_payloads)
        items = tuple(
            RawPayload(f"{n:032x}", NOON + n, "http", "/i", query=f"e=pv&p=web&tv=t&eid=00000000-0000-4000-8000-{n:012d}")
            for n in range(start, end)
        )
        return Chunk(items, {"lane": Position(1, end, end)}, end < self.payloads)

    def pending(self, cursor: Cursor) -> int:
        return self.payloads - cursor.get("lane", START).sequence

    def close(self) -> None: ...


class Absent:
    """Objects that are out of reach for the first few calls."""

    def __init__(self, objects: Objects, calls: int) -> None:
        self.objects, self.calls = objects, calls

    def __getattr__(self, name: str) -> Any:
        self.calls -= 1
        if self.calls >= 0:
            raise TransientError("out of reach")
        return getattr(self.objects, name)


def test_a_target_that_is_out_of_reach_at_the_start_is_loaded_when_it_is_back(tmp_path: Path) -> None:
    bench = LakeBench(tmp_path)
    target = s3.Plugin(
        s3.Config(bench.config.url, every_s=60, batch_payloads=5, batch_bytes=2_000, state=bench.config.state), bundled
    )
    target._objects = Absent(target._objects, 2)  # type: ignore[assignment]
    shelf, pipeline = Shelf(12), Pipeline(EnrichOptions(), bundled, [])
    loader = Loader("lake", shelf, pipeline, target, lambda: NOON)
    assert (loader.opened, loader.status.state, loader.status.message) == (False, "retrying", "out of reach")
    with pytest.raises(TransientError):
        loader.step()
    assert loader.step()
    assert loader.opened
    assert shelf.reads == [(5, 2_000)]
    finish = threading.Event()
    finish.set()
    loader.run(threading.Event(), finish)
    assert (loader.status.state, loader.status.stored, target.totals().stored) == ("finished", 12, 12)
    target.close()


def test_a_target_that_stays_out_of_reach_does_not_keep_the_process_at_its_end(tmp_path: Path) -> None:
    target = s3.Plugin(s3.Config(str(tmp_path / "lake"), state=str(tmp_path / "s3.db")), bundled)
    target._objects = Absent(target._objects, 10**9)  # type: ignore[assignment]
    loader = Loader("lake", Shelf(1), Pipeline(EnrichOptions(), bundled, []), target, lambda: NOON)
    finish = threading.Event()
    finish.set()
    loader.run(threading.Event(), finish)
    assert loader.status.state == "retrying"
    target.close()


def test_events_that_were_erased_from_the_journal_are_counted(bench: LakeBench) -> None:
    some = batch(1, event_of(1))
    counts = bench.open().commit(Batch(some.events, some.failed, some.cursor, 2, erased=3))
    assert counts == Counts(2, 1, 0, 0, erased=3) == bench.open().totals()


# Merging ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "both"])
def test_merged_files_hold_the_same_events_once(tmp_path: Path, form: str) -> None:
    bench = LakeBench(tmp_path, form=form)
    ids = filled(bench)
    expected = sorted(map(str, bench.rows()))
    failed = sorted(bench.failed_ids())
    assert compacted(bench.objects(), before="2026-01-16") == (3 if form == "parquet" else 5)
    live, superseded = lake.sorted_out(bench.objects().list("events/"))
    assert [piece.last - piece.first for piece in live if piece.day == "2026-01-15"] == [5, 5]
    assert len([piece for piece in live if piece.day == "2026-01-16"]) == 6
    assert not superseded
    assert sorted(bench.ids()) == ids
    assert sorted(map(str, bench.rows())) == expected
    assert sorted(bench.failed_ids()) == failed
    for file in root(bench).glob("tsv/*/*/*.gz"):
        assert all(line.count(b"\t") == 130 for line in gzip.decompress(file.read_bytes()).splitlines())
    assert compacted(bench.objects(), before="2026-01-16") == 0
    # And it goes on: the merged file is merged with its new neighbours.
    assert bench.target
    bench.target.commit(batch(100, event_of(100)))
    assert compacted(bench.objects(), before="2026-01-16") == (1 if form == "parquet" else 2)
    assert len(bench.ids()) == len(set(bench.ids())) == 19
    bench.target.close()


def test_merging_that_is_cut_off_anywhere_leaves_every_event_once(tmp_path: Path) -> None:
    before = LakeBench(tmp_path / "before")
    ids = filled(before, 2)
    before.open().close()
    for number in count(1):
        for done in (False, True):
            bench = copied(tmp_path, f"{number}-{done}")
            assert bench.target
            refusing = Refusing(bench.objects())
            refusing.fail_at, refusing.done = number, done
            try:
                compacted(refusing)  # type: ignore[arg-type]
                bench.target.close()
                return
            except TransientError:
                pass
            live, _ = lake.sorted_out(bench.objects().list("events/"))
            read = [pq.read_table(pa.BufferReader(bench.objects().get(piece.name)), columns=["event_id"]) for piece in live]
            assert sorted(pa.concat_tables(read)["event_id"].to_pylist()) == ids
            compacted(bench.objects())
            assert sorted(bench.ids()) == ids  # which also says that nothing superseded is left
            bench.target.close()


def test_a_file_that_is_written_once_more_after_it_was_merged_counts_no_more(bench: LakeBench) -> None:
    ids = filled(bench)
    (piece, *_) = lake.sorted_out(bench.objects().list("events/"))[0]
    body = bench.objects().get(piece.name)
    compacted(bench.objects())
    bench.objects().put(piece.name, body)
    superseded = lake.sorted_out(bench.objects().list("events/"))[1]
    assert [one.name for one in superseded] == [piece.name]
    compacted(bench.objects())
    assert sorted(bench.ids()) == ids


def test_large_files_stay_as_they_are_and_merged_ones_stay_small(bench: LakeBench) -> None:
    filled(bench, 8)
    sizes = [piece.size for piece in lake.sorted_out(bench.objects().list("events/"))[0]]
    most = 3 * max(sizes)
    compacted(bench.objects(), most_bytes=most)
    live, _ = lake.sorted_out(bench.objects().list("events/"))
    assert 0 < len(live) < len(sizes)
    assert all(piece.last - piece.first <= 3 for piece in live)
    assert compacted(bench.objects(), most_bytes=2 * min(sizes) - 2) == 0


def test_what_is_not_settled_yet_is_not_merged(bench: LakeBench) -> None:
    filled(bench, 2)
    plan = merging.plan(bench.objects(), ["events"], "9999-12-31", 1 << 20, last=1)
    assert plan.merges == []


def test_old_commits_go_and_the_chain_goes_on(bench: LakeBench) -> None:
    filled(bench, 6)
    assert commits.prune(bench.objects(), 2) == 4
    assert [int(found.name[-10:]) for found in bench.objects().list("_spoorway/commits/")] == [5, 6]
    assert bench.open().commit(batch(99, event_of(900))).stored == 1


# kill -9 ----------------------------------------------------------------------------------------------------------------

CHILD = """
    import sys
    from protocol.schemas import bundled
    from protocol.seams import START, Position
    from storage import lake
    from storage.lake import commits, merging
    from storage.objects import open_objects
    from storage.targets import Batch
    from storage.targets.s3 import Config, Plugin

    folder, state, what = sys.argv[1:]
    if what == "merge":
        objects = open_objects(folder)
        print("open", flush=True)
        while True:
            newest, _ = commits.newest(objects)
            plan = merging.plan(objects, lake.SUFFIXES, "9999-12-31", 1 << 20, newest.number - (not newest.settled))
            objects.delete(plan.tidy)
            for members in plan.merges:
                merging.merge(objects, members)
    target = Plugin(Config(folder, every_s=0, format="both", state=state), bundled)
    done = target.cursor().get("lane", START).sequence
    print("open", flush=True)
    while True:
        size = 5 + done % 7  # another cut after a crash
        events = [{"event_id": f"{n:032x}", "event": "page_view", "event_name": f"name{n % 3}", "event_fingerprint": "f",
                   "collector_tstamp": 1700000000000 + n * 100_000, "v_collector": "c", "v_etl": "e"}
                  for n in range(done, done + size)]
        done += size
        target.commit(Batch(events, [], {"lane": Position(1, done, done)}, size))
"""


@pytest.mark.slow
def test_killed_while_committing_and_merging_every_event_is_there_once(tmp_path: Path) -> None:
    chance = random.Random(5)
    bench = LakeBench(tmp_path, form="both")
    reached = commits_made = 0
    for _ in range(3):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(CHILD), bench.config.url, bench.config.state, what],
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            for what in ("load", "merge")
        ]
        for child in children:
            assert child.stdout and child.stdout.readline() == b"open\n"
        until_there_are(bench, more_than=commits_made)
        time.sleep(chance.uniform(0, 0.3))  # where the knife falls; the children would run for ever
        chance.shuffle(children)
        for child in children:
            assert child.poll() is None, "a child ended by itself"
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            assert child.stdout
            child.stdout.close()
        target = bench.open()
        totals, done = target.totals(), target.cursor()["lane"].sequence
        live, _ = lake.sorted_out(bench.objects().list("events/"))
        read = [pq.read_table(io.BytesIO(bench.objects().get(piece.name)), columns=["event_id"]) for piece in live]
        assert sorted(pa.concat_tables(read)["event_id"].to_pylist()) == [f"{n:032x}" for n in range(done)]
        tsv = [bench.objects().get(piece.name) for piece in lake.sorted_out(bench.objects().list("tsv/"))[0]]
        assert sum(gzip.decompress(body).count(b"\n") for body in tsv) == done
        assert totals == Counts(done, done, 0, 0)
        target.close()
        assert done >= reached
        reached, commits_made = done, commits.newest(bench.objects())[0].number
    assert reached > 0


def until_there_are(bench: LakeBench, more_than: int) -> None:
    end = time.monotonic() + 60
    while commits.newest(open_objects(bench.config.url))[0].number <= more_than:
        assert time.monotonic() < end, "no commit"
        time.sleep(0.02)


def test_a_name_with_a_quote_stays_within_its_quotes() -> None:
    made = list(statements("spectrum", "parquet", "s3://bucket", [lake.events_partition("2026-01-15", "it's")]))
    assert "PARTITION (day='2026-01-15', name='it''s')\nLOCATION 's3://bucket/events/day=2026-01-15/name=it%27s/'" in made[-1]
