"""`spoorway export`: what other tools read is what is stored, and a large store costs no more memory than a small one."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from snowplow_analytics_sdk.event_transformer import transform

from enrich.enrichments import defaults
from enrich.pipeline import Options, Pipeline
from protocol.schemas import bundled
from protocol.seams import Event, FailedEvent, Position
from protocol.tables import COLUMN_NAMES, COLUMNS
from spoorway.webhooks import bundled as bundled_mappings
from spoorway.world import World
from storage.rows import to_tsv
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin
from tests.conformance import vectors

pytestmark = pytest.mark.slow

DECIMALS = [place for place, column in enumerate(COLUMNS) if column.type == "decimal"]
EVENT_ID = COLUMN_NAMES.index("event_id")
MANY = 200_000
NOON = 1_768_478_400_000  # 2026-01-15 12:00


def vector_events() -> Iterator[Event]:
    """Every good event the enrich vectors know, each under an id of its own."""
    own: dict[str, Any] = {}
    pipeline = Pipeline(Options(webhooks=tuple(bundled_mappings())), lambda uri: own.get(uri) or bundled(uri), defaults(World()))
    number = 0
    for case in vectors.cases("enrich"):
        own = case.fields.get("schemas", {})
        pipeline.forget_schemas(own)
        payload = vectors.raw_payload(case)
        for outcome in pipeline.outcomes(payload, vectors.now_ms(payload)):
            if not isinstance(outcome, FailedEvent):
                number += 1
                yield cast(Event, {**outcome, "event_id": f"00000000-0000-4000-8000-{number:012d}"})


def store(folder: Path, events: list[Event]) -> Path:
    target = Plugin(Config(str(folder / "events.db")), bundled)
    target.commit(Batch(events, [], {"lane": Position(1, 1, 1)}, len(events)))
    target.close()
    return folder


def run(data: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "spoorway", "export", "--data", str(data), *arguments]
    return subprocess.run(command, capture_output=True, timeout=120)


def out(data: Path, *arguments: str) -> bytes:
    done = run(data, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(data: Path, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out(data, "--format", "ndjson", *arguments).splitlines()]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(vector_events())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, events: list[Event]) -> Path:
    return store(tmp_path_factory.mktemp("data"), events)


def with_numbers(line: str) -> list[Any]:
    """The fields; decimals by value, because SQLite keeps no scale."""
    fields: list[Any] = line.split("\t")
    assert len(fields) == len(COLUMNS)
    for place in DECIMALS:
        fields[place] = float(fields[place]) if fields[place] else None
    return fields


def test_tsv_is_the_canonical_line_of_every_event(data: Path, events: list[Event]) -> None:
    assert len(events) > 500
    text = out(data).decode()
    assert text.endswith("\n")
    exported = sorted([with_numbers(line) for line in text[:-1].split("\n")], key=lambda fields: fields[EVENT_ID])
    for line, event in zip(exported, events, strict=True):
        assert line == with_numbers(to_tsv(event))


def test_tsv_is_read_back_by_the_analytics_sdk(data: Path, events: list[Event]) -> None:
    read = 0
    exported = sorted(out(data).decode()[:-1].split("\n"), key=lambda line: line.split("\t")[EVENT_ID])
    for line, event in zip(exported, events, strict=True):
        try:
            found = transform(line)
        except Exception as error:
            # The SDK knows fewer schema URIs than the protocol allows; nothing else may stop it.
            assert "Iglu" in str(error) or "schema" in str(error).lower(), (str(error), event)
            continue
        read += 1
        assert found["event_id"] == event.get("event_id")
        assert found.get("app_id") == (event.get("app_id") or None)
    assert read > 0.95 * len(events)


def test_ndjson_has_the_columns_that_have_a_value(data: Path, events: list[Event]) -> None:
    for line, event in zip(sorted(lines(data), key=lambda line: str(line["event_id"])), events, strict=True):
        assert set(line) <= set(COLUMN_NAMES)
        assert line["event_id"] == event.get("event_id")
        if "unstruct_event" in event:
            assert line["unstruct_event"]["data"] == event["unstruct_event"]
        if "br_cookies" in event:
            assert line["br_cookies"] is event["br_cookies"]


def test_parquet_has_the_warehouses_types(data: Path, events: list[Event], tmp_path: Path) -> None:
    pq: Any = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "events.parquet"
    said = out(data, "--format", "parquet", "--output", str(file)).decode()
    assert said == f"{len(events):,} events in {file}\n"
    table = pq.read_table(file)
    assert table.column_names == list(COLUMN_NAMES)
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["collector_tstamp"], types["tr_total"], types["se_value"]) == (
        "timestamp[ms, tz=UTC]",
        "decimal128(18, 2)",
        "double",
    )
    assert (types["br_cookies"], types["txn_id"], types["contexts"]) == ("bool", "int32", "string")
    pa: Any = pytest.importorskip("pyarrow")
    for place, name in enumerate(table.column_names):  # as numbers: the protocol has a year 0, Python has none
        if types[name].startswith("timestamp"):
            table = table.set_column(place, name, table.column(place).cast(pa.int64()))
    for row, event in zip(table.sort_by("event_id").to_pylist(), events, strict=True):
        assert row["event_id"] == event.get("event_id")
        for name in types:
            if types[name].startswith("timestamp"):
                assert row[name] == event.get(name)
        if "tr_total" in event and abs(event["tr_total"]) < 10**16:
            assert row["tr_total"] == event["tr_total"].quantize(Decimal("0.01"), "ROUND_HALF_UP")
    stdout = out(data, "--format", "parquet")
    assert stdout[:4] == stdout[-4:] == b"PAR1" and len(stdout) == file.stat().st_size


def test_filters_choose(tmp_path: Path) -> None:
    def event(number: int, **columns: Any) -> Event:
        base = {"event_id": f"00000000-0000-4000-8000-{number:012d}", "collector_tstamp": NOON + number * 3_600_000}
        return cast(Event, base | {"app_id": "shop", "event_name": "page_view"} | columns)

    data = store(tmp_path, [event(0), event(1, app_id="blog"), event(2, event_name="add_to_cart"), event(3, platform="iot")])

    def chosen(*arguments: str) -> list[int]:
        return [int(line["event_id"][-12:]) for line in lines(data, *arguments)]

    assert chosen() == [0, 1, 2, 3]
    assert chosen("--since", "2026-01-15 13:00") == [1, 2, 3]
    assert chosen("--until", "2026-01-15 13:00") == [0]
    assert chosen("--since", "2026-01-15T13:00Z", "--until", "2026-01-15T14:00:00.001+00:00") == [1, 2]
    assert chosen("--app", "blog", "--app", "none") == [1]
    assert chosen("--event", "add_to_cart", "--event", "page_view", "--app", "shop") == [0, 2, 3]
    assert chosen("--where", "platform = 'iot' or app_id = 'blog' -- a comment", "--since", "2026-01-15 14:30") == [3]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--where", "nobody = 1"], "no such column: nobody in --where"),
        (["--where", "1; delete from events"], "in --where"),
        (["--where", "1) union select * from atomic.failed_events --"], "in --where"),
        (["--where", "load_extension('x')"], "not authorized"),
        (["--since", "soon"], "--since: expected a time"),
        (["--output", "/proc/none/x"], "/proc/none/x"),
    ],
)
def test_mistake_is_one_line_and_changes_nothing(data: Path, events: list[Event], arguments: list[str], complaint: str) -> None:
    refused = run(data, *arguments)
    assert refused.returncode == 1
    assert complaint in refused.stderr.decode() and refused.stderr.count(b"\n") == 1
    with sqlite3.connect(data / "events.db") as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (len(events),)
    db.close()


def test_file_is_never_overwritten_nor_left_half(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.tsv"
    file.write_text("mine")
    assert run(data, "--output", str(file)).returncode == 1
    assert file.read_text() == "mine"
    broken = run(data, "--output", str(tmp_path / "other.tsv"), "--where", "abs(-9223372036854775808) > 0")
    assert broken.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["events.tsv"]


def test_a_reader_that_has_seen_enough_ends_it_quietly(large: Path) -> None:
    command = f"{sys.executable} -m spoorway export --data {large} | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1


def test_missing_pyarrow_names_the_cure(data: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['pyarrow'] = None; from spoorway.cli import main; sys.exit(main(sys.argv[1:]))"
    output = ["--output", str(tmp_path / "x.parquet")]
    command = [sys.executable, "-c", blocked, "export", "--data", str(data), "--format", "parquet", *output]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr == "spoorway: --format parquet needs pyarrow; install spoorway[parquet]\n"
    assert not (tmp_path / "x.parquet").exists()
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(requirement.startswith("pyarrow") for requirement in extras["parquet"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, events: list[Event]) -> Path:
    """A store of MANY rows: one event again and again."""
    usual = sorted(events, key=len)[len(events) // 2]
    folder = store(tmp_path_factory.mktemp("large"), [usual])
    names = ", ".join(name for name in COLUMN_NAMES if name != "event_id")
    with sqlite3.connect(folder / "events.db") as db:
        db.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY - 1})"
            f" INSERT INTO events (event_id, {names})"
            f" SELECT printf('00000000-0000-4000-9000-%012d', i), {names} FROM n, events WHERE events.rowid = 1"
        )
    db.close()
    return folder


def peak_mb(data: Path, form: str, file: Path, *arguments: str) -> float:
    """Of a child that exports, and the child alone."""
    command = [
        sys.executable,
        "-m",
        "spoorway",
        "export",
        "--data",
        str(data),
        "--format",
        form,
        "--output",
        str(file),
        *arguments,
    ]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    assert status == 0
    return usage.ru_maxrss / 1024


@pytest.mark.parametrize(("form", "more_mb"), [("tsv", 16), ("ndjson", 16), ("parquet", 128)])
def test_memory_is_bounded_whatever_the_store_holds(large: Path, tmp_path: Path, form: str, more_mb: int) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    few = peak_mb(large, form, tmp_path / "few", "--where", "rowid <= 2000")
    many = peak_mb(large, form, tmp_path / "many")
    assert many < few + more_mb
    if form == "parquet":
        pq: Any = pytest.importorskip("pyarrow.parquet")
        assert pq.read_metadata(tmp_path / "many").num_rows == MANY
    else:
        assert (tmp_path / "many").read_bytes().count(b"\n") == MANY
