"""Failed events in Redshift: rows cut to what a VARCHAR holds, payloads whole, in as many parts as they need.

Every function works inside the caller's transaction. Failed events are few beside events, and looked up by their ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from protocol import payloads
from protocol.seams import Event, FailedEvent, Json, RawPayload, Reason
from storage.failed import FailedRow, payload_text, to_json, to_row, waits_for
from storage.redshift import ddl
from storage.redshift.connection import Session
from storage.redshift.holding import LONGEST_VARCHAR, holder, parts
from storage.redshift.loading import NULL
from storage.redshift.tables import Column, quoted
from storage.rows import json_text, timestamp, to_tsv
from storage.targets import Waiting

_ASK = 500
TRANSPORT = "redshift"  # of a payload that is an event which Redshift cannot hold
_PART_CHARACTERS = LONGEST_VARCHAR // 4
_SHORTER = 1_000  # characters of a value where all of them are too long
_TIMES = ("collector_tstamp", "failed_tstamp", "replayed_tstamp")
_SELECT = ", ".join(
    f"to_char(f.{name}, 'YYYY-MM-DD HH24:MI:SS.MS')" if name in _TIMES else f"f.{name}" for name in FailedRow._fields
)

Write = Callable[[str, Sequence[Column], Sequence[str]], None]


def unfit(event: Event, reasons: Sequence[Reason]) -> FailedEvent:
    """An event that Redshift cannot hold. Its payload is not at hand any more: the event itself is kept, as a line of TSV."""
    received = event.get("collector_tstamp", 0)
    identity = (event.get("event_id", ""), event.get("event_fingerprint"))
    payload = RawPayload(_derived(identity), received, TRANSPORT, "/redshift/event", body=to_tsv(event).encode())
    # The id that trying this payload again will fail with, so that it stays instead of being taken for solved.
    failed_id = payloads.derived_id(payload.id, "payload", "failed")
    return FailedEvent(failed_id, "schema_violations", tuple(reasons), payload, event.get("etl_tstamp", received), event=event)


def _derived(identity: tuple[str, str | None]) -> str:
    return payloads.derived_id("redshift", *identity).replace("-", "")


def keep(db: Session, schema: str, failed: Sequence[FailedEvent], write: Write) -> int:
    """Stores those that are new, with their payloads; how many. write: loads lines into a table."""
    ids = list({to_row(one).failed_id: one for one in failed})
    known = _among(db, f"{quoted(schema)}.failed_events", "failed_id", ids)
    known |= _among(db, f"{quoted(schema)}.dropped_events", "failed_id", ids)
    fresh: dict[str, tuple[FailedRow, RawPayload]] = {}
    for one in failed:
        row = to_row(one)
        if row.failed_id not in known and row.failed_id not in fresh:
            fresh[row.failed_id] = (row, one.payload)
    if not fresh:
        return 0
    write("failed_events", ddl.FAILED, [_line(row) for row, _ in fresh.values()])
    new = {row.payload_id: payload for row, payload in fresh.values()}
    there = _among(db, f"{quoted(schema)}.failed_payloads", "payload_id", list(new))
    pieces = [line for payload_id, payload in new.items() if payload_id not in there for line in _parts(payload_id, payload)]
    if pieces:
        write("failed_payloads", ddl.PAYLOADS, pieces)
    return len(fresh)


def find(db: Session, schema: str, kind: str | None, since_ms: int | None, limit: int, replayed: bool) -> list[dict[str, Json]]:
    """As FailedStore.list_failed."""
    where, values = _where(kind, since_ms, replayed)
    rows = db.ask(
        f"SELECT {_SELECT} FROM {quoted(schema)}.failed_events AS f{where}"
        f" ORDER BY f.failed_tstamp DESC, f.failed_id LIMIT {int(limit)}",
        *values,
    )
    return [to_json(FailedRow(*row)) for row in rows]


def ids(db: Session, schema: str, kind: str | None, since_ms: int | None, limit: int) -> list[str]:
    """As FailedStore.failed_ids."""
    where, values = _where(kind, since_ms, False)
    rows = db.ask(
        f"SELECT f.failed_id FROM {quoted(schema)}.failed_events AS f{where}"
        f" ORDER BY f.failed_tstamp DESC, f.failed_id LIMIT {int(limit)}",
        *values,
    )
    return [failed_id for (failed_id,) in rows]


def show(db: Session, schema: str, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
    """As FailedStore.show_failed."""
    rows = db.ask(f"SELECT {_SELECT} FROM {quoted(schema)}.failed_events AS f WHERE f.failed_id = %s", failed_id)
    if not rows:
        return None
    row = FailedRow(*rows[0])
    found = db.ask(f"SELECT payload FROM {quoted(schema)}.failed_payloads WHERE payload_id = %s ORDER BY part", row.payload_id)
    text = "".join(part for (part,) in found)
    return to_json(row), payloads.from_json(text.encode()) if text else None


def waiting(db: Session, schema: str, after: tuple[str, str] | None, rows: int) -> tuple[list[Waiting], tuple[str, str] | None]:
    """As WaitingStore.waiting."""
    payload_id, failed_id = after or ("", "")
    found = db.ask(
        "SELECT payload_id, failed_id, event_index, reasons, replayed_tstamp IS NULL"
        f" FROM {quoted(schema)}.failed_events WHERE payload_id > %s OR (payload_id = %s AND failed_id > %s)"
        f" ORDER BY payload_id, failed_id LIMIT {int(rows)}",
        payload_id,
        payload_id,
        failed_id,
    )
    waits = [
        Waiting(failed_id, payload_id, index, unknown)
        for payload_id, failed_id, index, reasons, unsolved in found
        if unsolved and (unknown := waits_for(reasons))
    ]
    return waits, (found[-1][0], found[-1][1]) if len(found) == rows else None


def payloads_of(db: Session, schema: str, ids: Collection[str]) -> dict[str, str]:
    """Of those that wait among these: the ids of their payloads."""
    found: dict[str, str] = {}
    for marks, some in _pieces(ids):
        rows = db.ask(
            f"SELECT failed_id, payload_id FROM {quoted(schema)}.failed_events WHERE failed_id IN ({marks})"
            " AND replayed_tstamp IS NULL",
            *some,
        )
        found.update((failed_id, payload_id) for failed_id, payload_id in rows)
    return found


def fail_again(db: Session, schema: str, failed: FailedEvent) -> None:
    """It stays, with its new reasons."""
    row = _fitted(to_row(failed))
    db.run(
        f"UPDATE {quoted(schema)}.failed_events SET kind = %s, reasons = %s, first_reason = %s,"
        " failed_tstamp = CAST(%s AS TIMESTAMP) WHERE failed_id = %s",
        row.kind,
        row.reasons,
        row.first_reason,
        row.failed_tstamp,
        row.failed_id,
    )


def solved(db: Session, schema: str, waiting: Mapping[str, str], replayed_ms: int) -> None:
    """waiting: of failed events, and of their payloads, the ids."""
    for marks, some in _pieces(waiting):
        db.run(
            f"UPDATE {quoted(schema)}.failed_events SET replayed_tstamp = CAST(%s AS TIMESTAMP) WHERE failed_id IN ({marks})",
            timestamp(replayed_ms),
            *some,
        )
    _forget_payloads(db, schema, waiting.values())


def drop(db: Session, schema: str, waiting: Mapping[str, str], dropped_ms: int) -> None:
    """Their rows and payloads go, their ids are kept. waiting: as above."""
    for marks, some in _pieces(waiting):
        db.run(
            f"INSERT INTO {quoted(schema)}.dropped_events SELECT failed_id, kind, collector_tstamp, CAST(%s AS TIMESTAMP)"
            f" FROM {quoted(schema)}.failed_events WHERE failed_id IN ({marks})",
            timestamp(dropped_ms),
            *some,
        )
        db.run(f"DELETE FROM {quoted(schema)}.failed_events WHERE failed_id IN ({marks})", *some)
    _forget_payloads(db, schema, waiting.values())


def remove(db: Session, schema: str, gone: Mapping[str, str]) -> None:
    """Nothing of them is kept, solved or not. gone: of failed events, and of their payloads, the ids."""
    for marks, some in _pieces(gone):
        db.run(f"DELETE FROM {quoted(schema)}.failed_events WHERE failed_id IN ({marks})", *some)
    _forget_payloads(db, schema, gone.values())


def payload_texts(db: Session, schema: str, ids: Iterable[str]) -> dict[str, str]:
    """Of those that are kept, by id."""
    found: dict[str, str] = {}
    for marks, some in _pieces(ids):
        for payload_id, part in db.ask(
            f"SELECT payload_id, payload FROM {quoted(schema)}.failed_payloads WHERE payload_id IN ({marks})"
            " ORDER BY payload_id, part",
            *some,
        ):
            found[payload_id] = found.get(payload_id, "") + part
    return found


def replace_payload(db: Session, schema: str, payload_id: str, payload: RawPayload) -> None:
    """When it is kept still."""
    table = f"{quoted(schema)}.failed_payloads"
    if db.ask(f"SELECT 1 FROM {table} WHERE payload_id = %s LIMIT 1", payload_id):
        db.run(f"DELETE FROM {table} WHERE payload_id = %s", payload_id)
        for line in _parts(payload_id, payload):
            _, part, text = line.split("\t")
            db.run(f"INSERT INTO {table} VALUES (%s, {int(part)}, %s)", payload_id, text)


def _forget_payloads(db: Session, schema: str, ids: Iterable[str]) -> None:
    """Those that no failed event needs any more."""
    for marks, some in _pieces(ids):
        db.run(
            f"DELETE FROM {quoted(schema)}.failed_payloads WHERE payload_id IN ({marks}) AND payload_id NOT IN"
            f" (SELECT payload_id FROM {quoted(schema)}.failed_events WHERE replayed_tstamp IS NULL)",
            *some,
        )


def _pieces(ids: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """So many at a time as one statement should name, and their placeholders."""
    rest = iter(dict.fromkeys(ids))
    while some := list(islice(rest, _ASK)):
        yield ", ".join(["%s"] * len(some)), some


def _among(db: Session, table: str, column: str, ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for marks, some in _pieces(ids):
        rows = db.ask(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IN ({marks})", *some)
        found.update(row[0] for row in rows)
    return found


def _where(kind: str | None, since_ms: int | None, replayed: bool) -> tuple[str, list[Any]]:
    conditions: list[tuple[str, Any]] = []
    if kind is not None:
        conditions.append(("f.kind = %s", kind))
    if since_ms is not None:
        conditions.append(("f.failed_tstamp >= CAST(%s AS TIMESTAMP)", timestamp(since_ms)))
    texts = [text for text, _ in conditions] + ([] if replayed else ["f.replayed_tstamp IS NULL"])
    return (" WHERE " + " AND ".join(texts) if texts else ""), [value for _, value in conditions]


def _line(row: FailedRow) -> str:
    return "\t".join(NULL if value is None else str(value) for value in _fitted(row))


def _fitted(row: FailedRow) -> FailedRow:
    """Each text as long as its column allows; JSON stays JSON. Whoever wants all of it finds it in the payload."""
    values: dict[str, Any] = row._asdict()
    for column in ddl.FAILED:
        name = parts(column.kind)[0]
        if values[column.name] is not None and name == "varchar" and column.name not in ("reasons", "parameters", "event"):
            values[column.name] = holder(column.kind, True)(values[column.name])
    values["reasons"] = _shorter(values["reasons"], [])
    values["parameters"], values["event"] = (_shorter(values[name], {}) for name in ("parameters", "event"))
    for name in _TIMES:
        if str(values[name]).startswith("0000"):  # a year that Redshift does not have
            values[name] = None
    return FailedRow(**values)


def _shorter(text: str, empty: Json) -> str:
    """The text itself; else with each value cut; else as many of its items as fit."""
    if len(text) * 4 <= LONGEST_VARCHAR or len(text.encode()) <= LONGEST_VARCHAR:
        return text
    value = cast(list[Json] | dict[str, Json], _cut(json.loads(text)))
    while len((text := json_text(value)).encode()) > LONGEST_VARCHAR and value:
        half = len(value) // 2
        value = value[:half] if isinstance(value, list) else dict(islice(value.items(), half))
    return text if len(text.encode()) <= LONGEST_VARCHAR else json_text(empty)


def _cut(value: Json) -> Json:
    if isinstance(value, str):
        return value if len(value) <= _SHORTER else value[: _SHORTER - 1] + "…"
    if isinstance(value, list):
        return [_cut(one) for one in value]
    if isinstance(value, dict):
        return {key: _cut(one) for key, one in value.items()}
    return value


def _parts(payload_id: str, payload: RawPayload) -> Iterator[str]:
    text = payload_text(payload)
    for number, start in enumerate(range(0, len(text), _PART_CHARACTERS)):
        yield "\t".join((payload_id, str(number), text[start : start + _PART_CHARACTERS]))
