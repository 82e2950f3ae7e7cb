"""Event -> row values and canonical TSV."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from snowplow_analytics_sdk.event_transformer import transform

from protocol.seams import Event, FailedEvent, Position, RawPayload, Reason
from protocol.tables import COLUMN_NAMES, COLUMNS
from storage.rows import clean, decimal_text, degrees_text, json_text, timestamp, to_row, to_rows, to_tsv
from storage.targets import Batch, memory, sqlite

UNSTRUCT: Any = {
    "schema": "iglu:com.acme/linkClick/jsonschema/1-0-0",
    "data": {"targetUrl": "https://x/é\t\n", "n": [1, 2.5, None, True]},
}
ENTITY: Any = {"schema": "iglu:com.acme.shop/cart/jsonschema/2-1-0", "data": {"total": 3}}

SAMPLES: dict[str, tuple[Any, str, Any]] = {  # by type: value, TSV field, what the SDK reads
    "string": ("Café ☕ 𝄞", "Café ☕ 𝄞", "Café ☕ 𝄞"),
    "uuid": ("c6ef3124-b53a-4b13-a233-0088f79dcbcb",) * 3,
    "timestamp": (1_768_471_202_500, "2026-01-15 10:00:02.500", "2026-01-15T10:00:02.500Z"),
    "integer": (-7, "-7", -7),
    "decimal": (Decimal("42.50"), "42.50", 42.5),
    "float": (51.514198303222656, "51.5142", 51.5142),
    "boolean": (False, "0", False),
}


def test_every_column_is_read_back_by_the_analytics_sdk() -> None:
    event: Any = {c.name: SAMPLES[c.type][0] for c in COLUMNS if c.type != "json"}
    event |= {"unstruct_event": UNSTRUCT, "contexts": [ENTITY, ENTITY], "derived_contexts": [{**ENTITY, "data": []}]}
    line = to_tsv(event)
    fields = line.split("\t")
    assert len(fields) == 131
    assert [f for f, c in zip(fields, COLUMNS, strict=True) if c.type != "json" and f != SAMPLES[c.type][1]] == []
    read = transform(line)
    for column in COLUMNS:
        if column.type == "json":
            continue
        # The SDK has its own name for one column and keeps one decimal as text.
        name = {"refr_dvce_tstamp": "refr_device_tstamp"}.get(column.name, column.name)
        assert read[name] == ("42.50" if name == "se_value" else SAMPLES[column.type][2]), name
    assert read["unstruct_event_com_acme_link_click_1"] == UNSTRUCT["data"]
    assert read["geo_location"] == "51.5142,51.5142"
    assert fields[COLUMN_NAMES.index("contexts")] == (
        '{"schema":"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1","data":['
        '{"schema":"iglu:com.acme.shop/cart/jsonschema/2-1-0","data":{"total":3}},'
        '{"schema":"iglu:com.acme.shop/cart/jsonschema/2-1-0","data":{"total":3}}]}'
    )
    assert fields[COLUMN_NAMES.index("unstruct_event")] == (
        '{"schema":"iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0","data":{"schema":'
        '"iglu:com.acme/linkClick/jsonschema/1-0-0","data":{"targetUrl":"https://x/é\\t\\n","n":[1,2.5,null,true]}}}'
    )


def test_an_event_with_nothing_is_131_empty_fields() -> None:
    assert to_tsv({}) == "\t" * 130
    assert to_tsv({"contexts": [], "app_id": ""}) == "\t" * 130
    assert to_row({}) == (None,) * 131


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01 00:00:00.000"),
        (-1, "1969-12-31 23:59:59.999"),
        (951_782_400_000, "2000-02-29 00:00:00.000"),
        (-62_135_596_800_000, "0001-01-01 00:00:00.000"),
        (-62_135_596_800_001, "0000-12-31 23:59:59.999"),
        (-62_162_121_600_000, "0000-02-29 00:00:00.000"),
        (-62_167_219_200_000, "0000-01-01 00:00:00.000"),
        (-62_167_219_200_001, None),
        (253_402_300_799_999, "9999-12-31 23:59:59.999"),
        (253_402_300_800_000, None),
    ],
)
def test_timestamps_have_text_from_year_0_to_9999(ms: int, text: str | None) -> None:
    assert timestamp(ms) == text


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(strategies.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_timestamps_agree_with_datetime(ms: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert timestamp(ms) == moment.isoformat(" ", "milliseconds").removesuffix("+00:00")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("42.50", "42.50"),
        ("-0.10", "-0.10"),
        ("1E7", "10000000"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1E-7"),
        ("123E-10", "1.23E-8"),
        ("NaN", None),
        ("-Infinity", None),
        ("1E999999", "1E+999999"),  # never expanded into a megabyte
    ],
)
def test_decimals_keep_their_scale(number: str, text: str | None) -> None:
    assert decimal_text(Decimal(number)) == text


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(strategies.floats(-180, 180, width=32))
def test_degrees_are_the_shortest_text_of_the_same_32_bit_float(degrees: float) -> None:
    text = degrees_text(degrees)
    assert text is not None and "e" not in text
    assert struct.pack("<f", float(text)) == struct.pack("<f", degrees + 0.0)
    digits = f"{Decimal(text):e}".split("e")[0].strip("-").replace(".", "").rstrip("0")
    if len(digits) > 1:
        assert struct.pack("<f", float(f"{degrees:.{len(digits) - 1}g}")) != struct.pack("<f", degrees)


def test_what_are_no_degrees_is_null() -> None:
    assert [degrees_text(d) for d in (1e300, float("nan"), float("inf"))] == [None] * 3


def test_text_is_cleaned_of_what_no_line_can_carry() -> None:
    assert clean("a\tb\r\nc\0\x1f\x7fd\ud800\udfff\u2028\u00a0e") == "a    bcd\ufffd\ufffd\u2028\u00a0e"


def test_json_is_cleaned_of_nul_and_lone_surrogates_at_any_depth_and_keeps_the_rest() -> None:
    assert (
        json_text({"a\0": ["\ud800", "x\0y", "\\u0000", 2**70, "é"]})
        == '{"a":["\ufffd","xy","\\\\u0000",1180591620717411303424,"é"]}'
    )
    assert json_text({"a\0": "x\0y", "b": "\\u0000"}) == '{"a":"xy","b":"\\\\u0000"}'
    assert json_text([float("nan"), "\ud800", float("inf")]) == '[null,"\ufffd",null]'
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert json.loads(json_text(deep))


def test_numbers_a_column_cannot_hold_are_null() -> None:
    rows = to_rows([{"txn_id": 2**63, "geo_latitude": float("inf")}, {"txn_id": -(2**63)}], ("txn_id", "geo_latitude"))
    assert rows == [(None, None), (-(2**63), None)]


@pytest.mark.parametrize("names", [("app_id",), ("app_id", "txn_id"), ("user_id", "txn_id", "app_id")])
def test_rows_hold_the_named_columns_in_the_order_asked_for(names: tuple[str, ...]) -> None:
    events: list[Event] = [{"app_id": "a", "txn_id": 1}, {"txn_id": 2, "app_id": "b"}, {"app_id": "c", "txn_id": 3}]
    assert to_rows(events, names) == [tuple(event.get(name) for name in names) for event in events]


def test_columns_that_do_not_exist_are_left_out() -> None:
    event: Any = {"app_id": "a", "robert'); DROP TABLE events; --": "x"}
    assert to_tsv(event) == "a" + "\t" * 130
    assert to_row(event) == ("a",) + (None,) * 130


# Any text Python can hold, surrogates and NUL among it.
ANY_TEXT = strategies.text(strategies.characters(), max_size=20)
ANY_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | ANY_TEXT,
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
SELF_DESCRIBING = strategies.fixed_dictionaries({"schema": ANY_TEXT, "data": ANY_JSON})
BY_TYPE: dict[str, strategies.SearchStrategy[Any]] = {
    "string": ANY_TEXT,
    "uuid": ANY_TEXT,
    "timestamp": strategies.integers(),
    "integer": strategies.integers(),
    "decimal": strategies.decimals(),
    "float": strategies.floats(),
    "boolean": strategies.booleans(),
    "json": strategies.lists(SELF_DESCRIBING, max_size=2),
}
ANY_EVENT: strategies.SearchStrategy[Event] = strategies.fixed_dictionaries(
    {}, optional={c.name: SELF_DESCRIBING if c.name == "unstruct_event" else BY_TYPE[c.type] for c in COLUMNS}
)  # type: ignore[assignment]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(ANY_EVENT)
def test_any_event_is_one_line_of_131_fields_that_utf8_can_hold(event: Event) -> None:
    line = to_tsv(event)
    assert line.count("\t") == 130
    assert not set("\r\n\0") & set(line)
    fields = dict(zip(COLUMN_NAMES, line.encode().decode().split("\t"), strict=True))
    for column in COLUMNS:
        if column.type == "json" and fields[column.name]:
            assert set(json.loads(fields[column.name])) == {"schema", "data"}
    for value in to_row(event):
        assert value is None or isinstance(value, (int, float)) or value.encode() is not None


@given(strategies.lists(strategies.none() | ANY_TEXT | strategies.sampled_from(['"', "\x7f", "\\", "\xa0", "\x80"]), max_size=6))
def test_a_column_of_text_is_cleaned_as_each_of_its_texts(texts: list[str | None]) -> None:
    events: list[Event] = [{} if text is None else {"page_title": text} for text in texts]
    assert to_rows(events, ("page_title",)) == [(None if text is None else clean(text),) for text in texts]


ANY_FAILURE = strategies.builds(
    FailedEvent,
    id=ANY_TEXT,
    kind=strategies.just("schema_violations"),
    reasons=strategies.lists(
        strategies.builds(Reason, step=ANY_TEXT, field=ANY_TEXT, message=ANY_TEXT, value=ANY_TEXT | strategies.none()), max_size=2
    ).map(tuple),
    payload=strategies.builds(
        RawPayload,
        id=ANY_TEXT,
        received_ms=strategies.integers(-(2**63), 2**63 - 1),
        transport=ANY_TEXT,
        path=ANY_TEXT | strategies.just("/\ud800"),
        headers=strategies.lists(strategies.tuples(ANY_TEXT, ANY_TEXT), max_size=2).map(tuple),
    ),
    failed_ms=strategies.integers(),
    index=strategies.none() | strategies.integers(0, 1000),
    parameters=strategies.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
    event=ANY_EVENT,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(strategies.lists(strategies.tuples(ANY_TEXT, ANY_EVENT), max_size=4), strategies.lists(ANY_FAILURE, max_size=3))
def test_any_events_and_failures_can_be_committed(parts: list[tuple[str, Event]], failed: list[FailedEvent]) -> None:
    events: list[Event] = [{**event, "event_id": event_id} for event_id, event in parts]
    with TemporaryDirectory() as folder:
        target = sqlite.Plugin(sqlite.Config(folder + "/events.db"), lambda uri: None)
        counts = target.commit(Batch(events, failed, {"lane": Position(1, 1, 1)}, 1))
        assert counts.stored + counts.failed + counts.duplicate == len(events) + len(failed)
        assert len(target.list_failed()) == counts.failed
        target.close()
    in_ram = memory.Plugin(memory.Config(), lambda uri: None)
    assert in_ram.commit(Batch(events, failed, {"lane": Position(1, 1, 1)}, 1)) == counts


PRINTABLE = strategies.text(strategies.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
PLAIN: dict[str, strategies.SearchStrategy[Any]] = {
    "string": PRINTABLE,
    "uuid": strategies.uuids().map(str),
    "timestamp": strategies.integers(0, 253_402_300_799_999),
    "integer": strategies.integers(-(2**31), 2**31 - 1),
    "decimal": strategies.decimals(allow_nan=False, allow_infinity=False, places=2),
    "float": strategies.floats(-180, 180, width=32),
    "boolean": strategies.booleans(),
}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(strategies.fixed_dictionaries({}, optional={c.name: PLAIN[c.type] for c in COLUMNS if c.type != "json"}))
def test_what_the_sdk_reads_is_what_was_written(event: dict[str, Any]) -> None:
    read = transform(to_tsv(event), add_geolocation_data=False)  # type: ignore[arg-type]
    for column in COLUMNS:
        if column.name not in event or column.name == "refr_dvce_tstamp":
            continue
        value, got = event[column.name], read[column.name]
        if column.type == "timestamp":
            assert datetime.fromisoformat(got) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
        elif column.type == "float":
            assert struct.pack("<f", got) == struct.pack("<f", value + 0.0)
        else:
            assert (Decimal(got) if column.name == "se_value" else got) == (
                float(value) if column.name != "se_value" and column.type == "decimal" else value
            )
