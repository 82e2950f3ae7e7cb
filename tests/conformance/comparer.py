"""Expectation and answer -> the list of differences, each in one line; an empty list means they agree.

The only place that decides what counts as equal. Knows no room: it is given values, never calls the code under test.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from protocol.seams import FailedEvent, Outcome, Reason
from protocol.tables import COLUMNS

_TYPES = {column.name: column.type for column in COLUMNS}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOUR_CENTURIES = timedelta(days=146_097)  # datetime has no year 0, and the calendar repeats
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$'()*+,;:@/?&=-]|%[0-9A-Fa-f]{2})*")


# Outcomes of enrichment


def outcome_differences(expected: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> list[str]:
    """expected: the `expect` list of an enrich case. Outcomes are compared in order, each with its partner."""
    found: list[str] = []
    if len(expected) != len(outcomes):
        found.append(f"{len(expected)} outcomes expected, {len(outcomes)} came: {[_named(o) for o in outcomes]}")
    for n, (want, have) in enumerate(zip(expected, outcomes, strict=False)):
        if "failed" in want:
            found += [f"outcome {n}: {d}" for d in _failure_differences(want["failed"], have)]
        elif isinstance(have, FailedEvent):
            found.append(f"outcome {n}: an event was expected, it failed: {_named(have)}")
        else:
            found += [f"outcome {n}: {d}" for d in _column_differences(want["columns"], have)]
    return found


def column_text(name: str, value: object) -> object:
    """A column's value as the vectors write it: times and decimals as text, the rest as it is."""
    match _TYPES[name]:
        case "timestamp" if isinstance(value, int):
            return time_text(value)
        case "decimal" if isinstance(value, Decimal):
            return str(value)
        case _:
            return value


def time_text(milliseconds: int) -> str:
    """`yyyy-MM-dd HH:mm:ss.SSS`, UTC, for the years 0 to 9999; a wrong value beyond them is named, not raised."""
    before_year_1 = milliseconds < -62_135_596_800_000
    try:
        moment = _EPOCH + (timedelta(milliseconds=milliseconds) + (_FOUR_CENTURIES if before_year_1 else timedelta()))
    except OverflowError:
        return f"{milliseconds} ms, no time of the years 0 to 9999"
    year = moment.year - (400 if before_year_1 else 0)
    return f"{year:04d}{moment:-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"


def _column_differences(want: Mapping[str, Any], event: Mapping[str, Any]) -> Iterable[str]:
    for name, value in want.items():
        have = column_text(name, event.get(name))
        if not _same_column(name, value, have):
            yield f"{name}: expected {value!r}, got {have!r}"
    for name, value in event.items():
        if name not in _TYPES:
            yield f"{name} is no column"
        elif value is None or value == "":
            yield f"{name}: an absent value must be left out, got {value!r}"


def _same_column(name: str, want: Any, have: Any) -> bool:
    if _TYPES[name] == "json":  # keys in order: data leaves as it came
        return json.dumps(want) == json.dumps(have)
    if isinstance(want, Mapping):
        return _matches(cast(Mapping[str, str], want), have)
    return type(want) is type(have) and want == have


def _failure_differences(want: Mapping[str, Any], have: Outcome) -> Iterable[str]:
    if not isinstance(have, FailedEvent):
        yield f"expected {want['kind']}, got the event {dict(have)!r}"
        return
    if have.kind != want["kind"]:
        yield f"expected {want['kind']}, got {_named(have)}"
    for rule in want["reasons"]:
        if not any(_fits(rule, reason) for reason in have.reasons):
            yield f"no reason {rule}; there are {[_reason(r) for r in have.reasons]}"
    for reason in have.reasons:
        if not any(_fits(rule, reason) for rule in want["reasons"]):
            yield f"unexpected reason {_reason(reason)}"


def _fits(rule: Mapping[str, str], reason: Reason) -> bool:
    return (
        reason.step == rule["step"]
        and rule.get("field", reason.field) == reason.field
        and rule.get("keyword", reason.keyword) == reason.keyword
        and rule.get("schema", reason.schema) == reason.schema
        and rule.get("message_has", "") in reason.message
    )


def _reason(reason: Reason) -> str:
    return f"{reason.step}/{reason.field}/{reason.keyword} {reason.message!r}"


def _named(outcome: Outcome) -> str:
    if isinstance(outcome, FailedEvent):
        return f"{outcome.kind} {[_reason(r) for r in outcome.reasons]}"
    return f"event {outcome.get('event')}"


# Query strings of trackers


def query_differences(expected: Mapping[str, Any], query: str) -> list[str]:
    """expected: parameter -> text, or JSON for parameters that carry JSON (base64 ones are compared decoded).

    The set of keys must be the same and each may come once. `{"number": text}` stands for that number in any notation.
    """
    if _QUERY.fullmatch(query) is None:
        return [f"not url-encoded: {query!r}"]
    found: list[str] = []
    have: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not equals:
            found.append(f"{name}: no value")
        name = _decoded(name)
        if name in have:
            found.append(f"{name}: twice")
        have[name] = _decoded(value)
    for name, want in expected.items():
        if name not in have:
            found.append(f"{name}: missing, expected {want!r}")
        elif not _same_parameter(name, want, have[name]):
            found.append(f"{name}: expected {want!r}, got {have[name]!r}")
    found += [f"{name}: unexpected, got {value!r}" for name, value in have.items() if name not in expected]
    return found


def _same_parameter(name: str, want: Any, have: str) -> bool:
    if isinstance(want, str):
        return want == have
    if want.keys() == {"number"}:
        return _NUMBER.fullmatch(have) is not None and Decimal(have) == Decimal(want["number"])
    try:
        text = _base64_text(have) if name in ("cx", "ue_px") else have
        return json.dumps(json.loads(text), sort_keys=True) == json.dumps(want, sort_keys=True)
    except ValueError:
        return False


def _base64_text(text: str) -> str:
    """Strict, unlike the server: a tracker sends the URL-safe alphabet, padded or not."""
    if re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", text) is None:
        raise ValueError("not URL-safe base64")
    try:
        bare = text.rstrip("=")
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "backslashreplace")


# Answers of the gateway


def answer_differences(expected: Mapping[str, Any], status: int, headers: Sequence[tuple[str, str]], body: bytes) -> list[str]:
    """expected: `status`; `headers`: name -> value, pattern or null (absent); `cookies`: all of them, null = none; `body…`.

    A header that is given must be there exactly once; headers that are not given are free.
    """
    found: list[str] = []
    if status != expected["status"]:
        found.append(f"status: expected {expected['status']}, got {status}")
    for name, want in expected.get("headers", {}).items():
        values = [value for key, value in headers if key.lower() == name.lower()]
        wants = [] if want is None else [want]
        if len(wants) != len(values) or not all(map(_same_text, wants, values)):
            found.append(f"header {name}: expected {want!r}, got {values!r}")
    if "body" in expected and body != expected["body"].encode():
        found.append(f"body: expected {expected['body']!r}, got {body!r}")
    if "body_bytes" in expected and len(body) != expected["body_bytes"]:
        found.append(f"body: expected {expected['body_bytes']} bytes, got {len(body)}")
    if "body_has" in expected and expected["body_has"].encode() not in body:
        found.append(f"body: expected to contain {expected['body_has']!r}, got {body!r}")
    if "cookies" in expected:
        found += _cookie_differences(expected["cookies"] or {}, [v for name, v in headers if name.lower() == "set-cookie"])
    if "body_starts" in expected and not body.startswith(expected["body_starts"].encode()):
        found.append(f"body: expected to start with {expected['body_starts']!r}, got {body[:40]!r}")
    return found


def _cookie_differences(expected: Mapping[str, Mapping[str, Any]], lines: Sequence[str]) -> Iterable[str]:
    """expected: name -> value and attributes; an attribute without a value is true. Order does not matter, completeness does."""
    have: dict[str, dict[str, Any]] = {}
    for line in lines:
        first, *attributes = line.split("; ")
        name, _, value = first.partition("=")
        if name in have:
            yield f"cookie {name}: set twice"
        have[name] = {"value": value}
        for attribute in attributes:
            key, equals, text = attribute.partition("=")
            have[name][key] = text if equals else True
    if expected != have:
        yield f"cookies: expected {dict(expected)!r}, got {have!r}"


def recorded_differences(expected: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]) -> list[str]:
    """expected: a subset of each recorded payload's fields as protocol.payloads writes them; null = absent.

    `headers` is compared by name: {"cookie": value, "x-secret": null}.
    """
    if len(expected) != len(recorded):
        return [f"{len(expected)} payloads expected, {len(recorded)} recorded"]
    found: list[str] = []
    for n, (want, have) in enumerate(zip(expected, recorded, strict=True)):
        for name, value in want.items():
            if name == "headers":
                for header, text in value.items():
                    values = [v for key, v in have.get("headers", ()) if key.lower() == header.lower()]
                    wants = [] if text is None else [text]
                    if len(values) != len(wants) or not all(map(_same_text, wants, values)):
                        found.append(f"payload {n}: header {header}: expected {text!r}, got {values!r}")
            elif not _same_text(value, have.get(name)):
                found.append(f"payload {n}: {name}: expected {value!r}, got {have.get(name)!r}")
    return found


def _same_text(want: Any, have: Any) -> bool:
    if isinstance(want, Mapping):
        return _matches(cast(Mapping[str, str], want), have)
    return bool(want == have)


def _matches(want: Mapping[str, str], have: Any) -> bool:
    return isinstance(have, str) and re.fullmatch(want["matches"], have) is not None
