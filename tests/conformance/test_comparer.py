"""The comparer bites: an answer that is right passes, and every kind of fault planted into it is reported.

The right answers are made from the vectors' own expectations, so each fault is planted into hundreds of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from protocol.seams import FailedEvent, RawPayload, Reason
from protocol.tables import COLUMNS
from protocol.wire import write_query
from tests.conformance import comparer, vectors
from tests.conformance.test_trackers import expected_parameters

PAYLOAD = RawPayload("a" * 32, vectors.RECEIVED_MS, "http", "/i")
TYPES = {column.name: column.type for column in COLUMNS}
ENRICH = [case for case in vectors.cases("enrich") if "matches" not in json.dumps(case.fields["expect"])]
TRACKER = [case for case in vectors.cases("tracker") if "refused" not in case.fields["expect"]]
GATEWAY = list(vectors.cases("gateway"))


# Answers that are right


def _value(name: str, text: Any) -> Any:
    match TYPES[name]:
        case "timestamp":
            return _milliseconds(text)
        case "decimal":
            return Decimal(text)
        case _:
            return text


def _milliseconds(text: str) -> int:
    """The inverse of comparer.time_text by another way: counting days, not by datetime."""
    date, clock = text.split(" ")
    year, month, day = map(int, date.split("-"))
    years = year - (month <= 2)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = years * 365 + years // 4 - years // 100 + years // 400 + day_of_year - 719_468
    hours, minutes, seconds = clock.split(":")
    return ((days * 24 + int(hours)) * 60 + int(minutes)) * 60_000 + round(float(seconds) * 1000)


def _right_outcome(want: dict[str, Any]) -> Any:
    if "failed" in want:
        reasons = [
            Reason(r["step"], r.get("field", "f"), r.get("message_has", "m"), None, r.get("keyword", "k"), r.get("schema"))
            for r in want["failed"]["reasons"]
        ]
        return FailedEvent("id", want["failed"]["kind"], tuple(reasons), PAYLOAD, 0)
    return {n: _value(n, v) for n, v in want["columns"].items() if v is not None}


def _right_query(case: vectors.Case) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, want in expected_parameters(case, "x-1").items():
        if isinstance(want, str):
            parameters[name] = want
        elif "number" in want:
            parameters[name] = want["number"]
        else:
            text = json.dumps(want)
            parameters[name] = base64.urlsafe_b64encode(text.encode()).decode() if name in ("cx", "ue_px") else text
    return parameters


def _outcome_faults(fault: Callable[[list[Any]], list[Any] | None], cases: Iterable[vectors.Case] = ENRICH) -> int:
    """Plants the fault wherever it can be planted; all of them must be reported. Returns how many there were."""
    planted = 0
    for case in cases:
        want = case.fields["expect"]
        faulty = fault([_right_outcome(w) for w in want])
        if faulty is not None:
            planted += 1
            assert comparer.outcome_differences(want, faulty), case.id
    return planted


def _query_faults(fault: Callable[[dict[str, str]], str]) -> None:
    for case in TRACKER:
        query = fault(_right_query(case))
        assert comparer.query_differences(expected_parameters(case, "x-1"), query), f"{case.id}: {query}"


# Outcomes


def test_right_outcomes_pass() -> None:
    for case in ENRICH:
        want = case.fields["expect"]
        assert comparer.outcome_differences(want, [_right_outcome(w) for w in want]) == [], case.id


def test_missing_outcome_is_reported() -> None:
    assert _outcome_faults(lambda outcomes: outcomes[:-1]) == len(ENRICH)


def test_extra_outcome_is_reported() -> None:
    assert _outcome_faults(lambda outcomes: [*outcomes, outcomes[0]]) == len(ENRICH)


def test_wrong_order_of_outcomes_is_reported() -> None:
    def swapped(outcomes: list[Any]) -> list[Any] | None:
        return None if outcomes == outcomes[::-1] else outcomes[::-1]

    assert _outcome_faults(swapped) >= 5


def test_missing_column_is_reported() -> None:
    def without(outcomes: list[Any]) -> list[Any] | None:
        event = outcomes[0]
        if isinstance(event, FailedEvent) or not event:
            return None
        name = next(iter(event))
        return [{k: v for k, v in event.items() if k != name}, *outcomes[1:]]

    assert _outcome_faults(without) > 300


def test_wrong_value_is_reported() -> None:
    def wrong(value: Any) -> Any:
        match value:
            case bool():
                return not value
            case int() | Decimal():
                return value + 1
            case str():
                return value + "x"
            case list():
                return []
            case _:
                inner: Any = value["data"]
                if len(inner) > 1:
                    return {**value, "data": dict(reversed(inner.items()))}  # the order of keys is a value too
                return {**value, "schema": "iglu:com.acme/other/jsonschema/1-0-0"}

    def faulty(outcomes: list[Any]) -> list[Any] | None:
        event = outcomes[-1]
        if isinstance(event, FailedEvent) or not event:
            return None
        name = list(event)[-1]
        return [*outcomes[:-1], {**event, name: wrong(event[name])}]

    assert _outcome_faults(faulty) > 300


def test_column_that_must_be_absent_is_reported() -> None:
    absent = [c for c in ENRICH if None in c.fields["expect"][0].get("columns", {}).values()]

    def filled(outcomes: list[Any]) -> list[Any]:
        return [{**dict.fromkeys((c for c in TYPES if c not in outcomes[0]), "x"), **outcomes[0]}]

    assert _outcome_faults(filled, absent) > 50


@pytest.mark.parametrize(("right", "wrong"), [(1, True), (1, "1"), (1, 1.0), (True, 1), ("1", 1), ("12.50", Decimal("12.5"))])
def test_kinds_of_values_are_told_apart(right: Any, wrong: Any) -> None:
    name = "tr_total" if isinstance(wrong, Decimal) else "br_cookies" if right is True else "app_id" if right == "1" else "vid"
    name = "domain_sessionidx" if name == "vid" else name
    event: Any = {name: wrong}
    assert comparer.outcome_differences([{"columns": {name: right}}], [event])


def test_null_in_an_event_is_reported() -> None:
    for value in (None, ""):
        event: Any = {"event": "x", "app_id": value}
        assert comparer.outcome_differences([{"columns": {"event": "x"}}], [event])


def test_success_instead_of_failure_is_reported() -> None:
    def mended(outcomes: list[Any]) -> list[Any] | None:
        return [{"event": "page_view"}, *outcomes[1:]] if isinstance(outcomes[0], FailedEvent) else None

    assert _outcome_faults(mended) > 300


def test_failure_instead_of_success_is_reported() -> None:
    def broken(outcomes: list[Any]) -> list[Any] | None:
        failure = FailedEvent("id", "schema_violations", (), PAYLOAD, 0)
        return None if isinstance(outcomes[0], FailedEvent) else [failure, *outcomes[1:]]

    assert _outcome_faults(broken) > 300


def test_wrong_kind_is_reported() -> None:
    def other(outcomes: list[Any]) -> list[Any] | None:
        failed = outcomes[0]
        return [replace(failed, kind="size_violation"), *outcomes[1:]] if isinstance(failed, FailedEvent) else None

    assert _outcome_faults(other) > 300


@pytest.mark.parametrize("fault", ["step", "field", "keyword", "missing", "extra"])
def test_wrong_reason_is_reported(fault: str) -> None:
    def faulty(outcomes: list[Any]) -> list[Any] | None:
        failed = outcomes[0]
        if not isinstance(failed, FailedEvent):
            return None
        first, *rest = failed.reasons
        match fault:
            case "missing":
                reasons = rest
            case "extra":
                reasons = [first, *rest, Reason("elsewhere", "", "")]
            case _:
                if getattr(first, fault) in ("f", "k"):  # the case does not ask for it
                    return None
                reasons = [replace(first, **{fault: "other"}), *rest]
        return [replace(failed, reasons=tuple(reasons)), *outcomes[1:]]

    assert _outcome_faults(faulty) > 200


def test_wrong_schema_or_message_of_a_reason_is_reported() -> None:
    rule = {"step": "contexts", "schema": "iglu:a/b/c/1-0-0", "message_has": "missing"}
    want = [{"failed": {"kind": "schema_violations", "reasons": [rule]}}]
    right = Reason("contexts", "", "a is missing", schema="iglu:a/b/c/1-0-0")
    failed = FailedEvent("id", "schema_violations", (right,), PAYLOAD, 0)
    assert comparer.outcome_differences(want, [failed]) == []
    for wrong in (replace(right, schema=None), replace(right, message="a is there")):
        assert comparer.outcome_differences(want, [replace(failed, reasons=(wrong,))])


def test_times_are_written_for_all_years() -> None:
    for text in ("0000-01-01 00:00:00.000", "0000-12-31 23:59:59.999", "0001-01-01 00:00:00.000", "1969-12-31 23:59:59.999"):
        assert comparer.time_text(_milliseconds(text)) == text
    assert comparer.time_text(253_402_300_799_999) == "9999-12-31 23:59:59.999"
    assert comparer.time_text(-62_167_219_200_000) == "0000-01-01 00:00:00.000"


# Query strings


def test_right_query_strings_pass() -> None:
    for case in TRACKER:
        expected = expected_parameters(case, "x-1")
        assert comparer.query_differences(expected, write_query(_right_query(case))) == [], case.id
        assert comparer.query_differences(expected, write_query(_right_query(case)).replace("%20", "+")) == [], case.id


def test_missing_key_is_reported() -> None:
    def without(n: int, right: dict[str, str]) -> str:
        return write_query({k: v for i, (k, v) in enumerate(right.items()) if i != n % len(right)})

    for n in range(8):
        _query_faults(partial(without, n))


def test_extra_key_is_reported() -> None:
    _query_faults(lambda right: write_query({**right, "made_up": "1"}))
    _query_faults(lambda right: write_query({**right, "tid": ""}))


def test_wrong_parameter_is_reported() -> None:
    def longer(n: int, right: dict[str, str]) -> str:
        return write_query({k: v + ("1" if i == n % len(right) else "") for i, (k, v) in enumerate(right.items())})

    for n in range(8):
        _query_faults(partial(longer, n))


def test_repeated_key_is_reported() -> None:
    _query_faults(lambda right: write_query(right) + "&" + write_query({"e": right["e"]}))


def test_key_without_value_is_reported() -> None:
    assert comparer.query_differences({"e": "pv", "aid": ""}, "e=pv&aid")


def test_unencoded_query_is_reported() -> None:
    def with_raw(raw: str, right: dict[str, str]) -> str:
        return f"{write_query(right)}&page={raw}"

    for raw in (" ", '"', "<", "{", "|", "\\", "^", "`", "é", "\n", "%", "%zz", "#"):
        _query_faults(partial(with_raw, raw))
        assert comparer.query_differences({"page": f"a{raw}b"}, f"page=a{raw}b") == [f"not url-encoded: {f'page=a{raw}b'!r}"]


def test_encoding_twice_is_reported() -> None:
    double = {"page": "a b"}
    assert comparer.query_differences(double, "page=a%2520b") == ["page: expected 'a b', got 'a%20b'"]
    assert comparer.query_differences({"page": "a+b"}, "page=a+b") == ["page: expected 'a+b', got 'a b'"]


def test_wrong_json_is_reported() -> None:
    want = {"schema": "iglu:a/b/c/1-0-0", "data": {"a": 1, "b": [1.5, "x", None]}}
    right = json.dumps(want)
    assert comparer.query_differences({"ue_pr": want}, write_query({"ue_pr": right})) == []
    for wrong in (
        right[:-1],
        right.replace("1.5", "1.50001"),
        right.replace('"a": 1', '"a": "1"'),
        right.replace("null", "0"),
        "",
    ):
        assert comparer.query_differences({"ue_pr": want}, write_query({"ue_pr": wrong})), wrong


def test_wrong_base64_is_reported() -> None:
    want = {"schema": "iglu:a/b/c/1-0-0", "data": ">>>???~~~ÿ"}
    padded = base64.urlsafe_b64encode(json.dumps(want, ensure_ascii=False).encode()).decode()
    standard = base64.b64encode(json.dumps(want, ensure_ascii=False).encode()).decode()
    assert standard != padded
    for right in (padded, padded.rstrip("=")):
        assert comparer.query_differences({"cx": want}, write_query({"cx": right})) == []
    for wrong in (standard, padded[:-5], padded + "A", json.dumps(want), padded[:8] + "\n" + padded[8:]):
        assert comparer.query_differences({"cx": want}, write_query({"cx": wrong})), wrong


def test_wrong_number_is_reported() -> None:
    want = {"se_va": {"number": "0.0000001"}}
    for right in ("0.0000001", "1E-7", "1e-07"):
        assert comparer.query_differences(want, write_query({"se_va": right})) == []
    for wrong in ("0.000001", "1e-8", "NaN", "", "0,0000001", " 1e-7"):
        assert comparer.query_differences(want, write_query({"se_va": wrong})), wrong


# Answers of the gateway

RESPONSE = {
    "status": 200,
    "headers": {"Content-Type": "text/plain", "Retry-After": {"matches": "[0-9]+"}, "Location": None},
    "cookies": {"sp": {"value": "1", "Path": "/", "Secure": True}},
    "body": "ok",
}
HEADERS = [("content-type", "text/plain"), ("Retry-After", "5"), ("Set-Cookie", "sp=1; Secure; Path=/")]


def test_right_answer_passes() -> None:
    assert comparer.answer_differences(RESPONSE, 200, HEADERS, b"ok") == []


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, HEADERS, b"ok"),
        (200, HEADERS, b"OK"),
        (200, HEADERS, b""),
        (200, HEADERS[1:], b"ok"),
        (200, [*HEADERS, ("Content-Type", "text/plain")], b"ok"),
        (200, [("Content-Type", "text/html"), *HEADERS[1:]], b"ok"),
        (200, [HEADERS[0], ("Retry-After", "soon"), HEADERS[2]], b"ok"),
        (200, [*HEADERS, ("Location", "https://evil.example/")], b"ok"),
        (200, HEADERS[:2], b"ok"),
        (200, [*HEADERS[:2], ("Set-Cookie", "sp=2; Secure; Path=/")], b"ok"),
        (200, [*HEADERS[:2], ("Set-Cookie", "sp=1; Path=/")], b"ok"),
        (200, [*HEADERS[:2], ("Set-Cookie", "sp=1; Secure; Path=/; Domain=evil.example")], b"ok"),
        (200, [*HEADERS, ("Set-Cookie", "sp=1; Secure; Path=/")], b"ok"),
        (200, [*HEADERS, ("Set-Cookie", "other=1")], b"ok"),
    ],
)
def test_wrong_answer_is_reported(status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    assert comparer.answer_differences(RESPONSE, status, headers, body)


def test_cookie_where_none_must_be_is_reported() -> None:
    assert comparer.answer_differences({"status": 200, "cookies": None}, 200, HEADERS, b"")


@pytest.mark.parametrize(
    ("want", "body"), [({"body_has": "x"}, b"y"), ({"body_starts": "GIF"}, b"xGIF"), ({"body_bytes": 43}, b"x" * 42)]
)
def test_wrong_body_is_reported(want: dict[str, Any], body: bytes) -> None:
    assert comparer.answer_differences({"status": 200, **want}, 200, [], body)


def test_wrong_record_is_reported() -> None:
    want = [{"path": "/i", "body": None, "nuid": {"matches": "[0-9]+"}, "headers": {"Cookie": None, "Referer": "r"}}]
    right = {"path": "/i", "nuid": "1", "headers": [["referer", "r"]]}
    assert comparer.recorded_differences(want, [right]) == []
    faults: list[dict[str, Any]] = [
        {"path": "/"},
        {"body": ""},
        {"nuid": "x"},
        {"nuid": None},
        {"headers": []},
        {"headers": [["Referer", "r"], ["Cookie", "a=b"]]},
        {"headers": [["Referer", "s"]]},
        {"headers": [["Referer", "r"], ["Referer", "r"]]},
    ]
    for fault in faults:
        assert comparer.recorded_differences(want, [right | fault]), fault
    assert comparer.recorded_differences(want, [])
    assert comparer.recorded_differences(want, [right, right])
    assert comparer.recorded_differences([], [right])
