"""Rows that are to go, in Redshift: what storage/removal.py does in SQLite, a set at a time where SQLite goes row by row.

Piece by piece, each within the caller's transaction; totals follow in the same. A piece removes a bounded number of events, with
their rows in the tables of entities; to find them is a scan of the few columns that tell, which costs the same for one as for
all. An event is meant by its id and the time it was received, as entities refer to it. Knows no clock and no files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from protocol import payloads
from protocol.persons import COLUMNS, ENTITY_COLUMNS
from protocol.seams import RawPayload
from protocol.tables import COLUMN_NAMES
from storage.redshift import failures
from storage.redshift.connection import Session
from storage.redshift.tables import Column, Table, quoted
from storage.rows import timestamp
from storage.targets import Erasure, Removed, Rule

_ROWS = 20_000  # events removed in one piece
_LOOKED = 2_000  # events whose SUPER columns are looked into in one piece
_FAILED_ROWS = 500
_IDS = 500
_OURS = "iglu:io.spoorway/"
_DEVICE = ("device",), ("device_id",)
_KEY = "event_id, collector_tstamp, event_fingerprint"
_TEMPORARY = "(event_id CHAR(36) ENCODE RAW DISTKEY, collector_tstamp TIMESTAMP ENCODE RAW"


class Place(NamedTuple):
    """Where the next piece begins. stage: known (ids the journal told of), columns, inside (of SUPER), failed. at: see there."""

    stage: str
    at: Any


class Found(NamedTuple):
    """A question for events, by their keys, and its values."""

    sql: str
    values: Sequence[object]


class Store(NamedTuple):
    """What is looked at. schema: its name. tables: of entities, by family. inside: the columns of `events` that hold entities."""

    db: Session
    schema: str
    tables: Mapping[str, Table]
    inside: Sequence[str]

    def place(self, table: str) -> str:
        return f"{quoted(self.schema)}.{quoted(table)}"


def erase(store: Store, erasure: Erasure, after: Place | None, dry: bool) -> tuple[Removed, Place | None]:
    """See Keeper.erase."""
    place = after or Place("known", 0)
    events = failed = 0
    following: Place | None
    if place.stage == "known":
        known = sorted(erasure.events)[place.at : place.at + _IDS]
        events = _by_key(store, erasure, _keys(known), dry)
        following = Place("known", place.at + _IDS) if len(known) == _IDS else Place("columns", None)
    elif place.stage == "columns":
        events = _remove(store, _theirs(store, erasure), erasure.until_ms, dry)
        done = dry or events < _ROWS
        look = erasure.who.device and store.inside
        following = place if not done else Place("inside", ("0001-01-01", "")) if look else Place("failed", "")
    elif place.stage == "inside":
        named, at = _look_inside(store, erasure, place.at)
        if dry:  # those that the first stage found count there
            named -= _keys(erasure.events)
        events = _by_key(store, erasure, named, dry)
        following = Place("failed", "") if at is None else Place("inside", at)
    else:
        failed, last = _erase_failed(store, erasure, place.at, dry)
        following = None if last is None else Place("failed", last)
    if dry:
        return Removed(events, failed), following
    _count(store, "erased", events, failed)
    return _told(store, erasure.id, events, failed), following


def expire(
    store: Store, rule: Rule, now_ms: int, after: Place | None, remember_ms: int, dry: bool
) -> tuple[Removed, Place | None]:
    """See Keeper.expire. remember_ms: how long an event that comes again is known."""
    place = after or Place("events", None)
    conditions = ["collector_tstamp < CAST(%s AS TIMESTAMP)"]
    values: list[object] = [timestamp(now_ms - rule.older_than_ms)]
    for name, wanted in (("app_id", rule.app_id), ("event_name", rule.event)):
        if wanted:
            conditions.append(f"{name} = %s")
            values.append(wanted)
    events = failed = 0
    following: Place | None
    if place.stage == "events":
        if not dry:
            store.db.run(f"DELETE FROM {store.place('spoorway_gone')} WHERE gone_ms < %s", now_ms - remember_ms)
        if rule.schema:
            conditions.append(
                "'iglu:' || event_vendor || '/' || event_name || '/' || event_format || '/' || event_version LIKE %s"
            )
            values.append(rule.schema.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%"))
        old = Found(f"SELECT {_KEY} FROM {store.place('events')} WHERE {' AND '.join(conditions)}", values)
        events = _remove(store, old, now_ms, dry)
        done = dry or events < _ROWS
        following = place if not done else None if rule.schema else Place("failed", "")
    else:
        rows = store.db.ask(
            f"SELECT failed_id, payload_id, replayed_tstamp IS NULL FROM {store.place('failed_events')}"
            f" WHERE {' AND '.join(conditions)} AND failed_id > %s ORDER BY failed_id LIMIT {_FAILED_ROWS}",
            *values,
            place.at,
        )
        failed = sum(waits for _, _, waits in rows)
        if not dry:
            failures.remove(store.db, store.schema, {failed_id: payload_id for failed_id, payload_id, _ in rows})
        following = Place("failed", rows[-1][0]) if len(rows) == _FAILED_ROWS else None
    if not dry:
        _count(store, "expired", events, failed)
    return Removed(events, failed), following


# Events -------------------------------------------------------------------------------------------------------------------


def _theirs(store: Store, erasure: Erasure) -> Found:
    """By the columns of `events`, and by a device's name in the tables of our entities; each once."""
    who, until = erasure.who, timestamp(erasure.until_ms)
    conditions = ["1 = 0"]
    values: list[object] = []
    for kind, names in COLUMNS.items():
        if wanted := sorted(getattr(who, kind)):
            conditions += [f"{name} IN ({_marks(wanted)})" for name in names]
            values += wanted * len(names)
    in_time = "e.collector_tstamp <= CAST(%s AS TIMESTAMP)"
    select = f"SELECT {', '.join(f'e.{name}' for name in _KEY.split(', '))} FROM {store.place('events')} AS e"
    parts = [f"{select} WHERE ({' OR '.join(conditions)}) AND {in_time}"]
    values.append(until)
    devices = sorted(who.device)
    for family, table in store.tables.items():
        for column in table.columns:
            if not devices or not family.startswith(_OURS) or column.path not in (*_DEVICE, ()):
                continue
            named, wanted = _naming(column, devices)
            parts.append(
                f"{select} JOIN {store.place(table.name)} AS t ON t.root_id = e.event_id AND t.root_tstamp = e.collector_tstamp"
                f" WHERE ({named}) AND {in_time}"
            )
            values += [*wanted, until]
    return Found(" UNION ".join(parts), values)


def _naming(column: Column, devices: Sequence[str]) -> tuple[str, list[str]]:
    """That a column of an entity of ours names one of the devices."""
    name = f"t.{quoted(column.name)}"
    if column.path:
        return f"{name} IN ({_marks(devices)})", list(devices)
    # All of the entity, of a schema that nobody knew.
    texts = [f'"{key}":{json.dumps(device, ensure_ascii=False)}' for (key,) in _DEVICE for device in devices]
    return " OR ".join([f"strpos({name}, %s) > 0"] * len(texts)), texts


def _look_inside(store: Store, erasure: Erasure, at: tuple[str, str]) -> tuple[set[tuple[str, str]], tuple[str, str] | None]:
    """Of the next events, those with a SUPER column that names the device; and the last one looked at, or None at the end."""
    time, event_id = at
    rows = store.db.ask(
        f"SELECT to_char(collector_tstamp, 'YYYY-MM-DD HH24:MI:SS.US'), trim(event_id), {', '.join(store.inside)}"
        f" FROM {store.place('events')} WHERE collector_tstamp >= CAST(%s AS TIMESTAMP)"
        " AND (collector_tstamp > CAST(%s AS TIMESTAMP) OR event_id > %s) AND collector_tstamp <= CAST(%s AS TIMESTAMP)"
        f" AND ({' OR '.join(f'{name} IS NOT NULL' for name in store.inside)})"
        f" ORDER BY collector_tstamp, event_id LIMIT {_LOOKED}",
        *(time, time, event_id, timestamp(erasure.until_ms)),
    )
    named = {
        (event_id, time)
        for time, event_id, *values in rows
        if erasure.who.in_entities(dict(zip(store.inside, map(_parsed, values), strict=True)))
    }
    return named, (rows[-1][0], rows[-1][1]) if len(rows) == _LOOKED else None


def _keys(events: Iterable[tuple[str, int]]) -> set[tuple[str, str]]:
    """Those that can be here. An id alone may be somebody else's who used it before; with the time of its payload it is not."""
    found: set[tuple[str, str]] = set()
    for event_id, received_ms in events:
        time = timestamp(received_ms)
        if event_id.isascii() and 0 < len(event_id) <= 36 and time is not None and not time.startswith("0000"):
            found.add((event_id, f"{time}000"))
    return found


def _by_key(store: Store, erasure: Erasure, keys: set[tuple[str, str]], dry: bool) -> int:
    if not keys:
        return 0
    store.db.run(f"CREATE TEMP TABLE spoorway_known {_TEMPORARY})")
    rows = ", ".join(["(%s, CAST(%s AS TIMESTAMP))"] * len(keys))
    store.db.run(f"INSERT INTO spoorway_known VALUES {rows}", *(value for key in sorted(keys) for value in key))
    question = (
        f"SELECT DISTINCT {', '.join(f'e.{name}' for name in _KEY.split(', '))} FROM {store.place('events')} AS e"
        " JOIN spoorway_known AS k ON k.event_id = e.event_id AND k.collector_tstamp = e.collector_tstamp"
    )
    found = Found(question, ())
    if dry:  # those that another stage finds as well count there
        theirs = _theirs(store, erasure)
        found = Found(f"{question} EXCEPT ({theirs.sql})", theirs.values)
    count = _remove(store, found, erasure.until_ms, dry)
    store.db.run("DROP TABLE spoorway_known")
    return count


def _remove(store: Store, found: Found, gone_ms: int, dry: bool) -> int:
    """As many of them as one piece may remove, and their rows of entities. How many; dry: how many there are."""
    db = store.db
    if dry:
        return _number(db, f"SELECT count(*) FROM ({found.sql}) AS found", found.values)
    db.run(f"CREATE TEMP TABLE spoorway_leaving {_TEMPORARY}, event_fingerprint VARCHAR(128) ENCODE RAW)")
    db.run(f"INSERT INTO spoorway_leaving SELECT {_KEY} FROM ({found.sql}) AS found LIMIT {_ROWS}", *found.values)
    if count := _number(db, "SELECT count(*) FROM spoorway_leaving"):
        db.run(
            f"DELETE FROM {store.place('spoorway_gone')} USING spoorway_leaving"
            " WHERE spoorway_gone.event_id = spoorway_leaving.event_id"
        )
        db.run(f"INSERT INTO {store.place('spoorway_gone')} SELECT event_id, event_fingerprint, {gone_ms} FROM spoorway_leaving")
        rows = [("events", "event_id", "collector_tstamp")]
        rows += [(table.name, "root_id", "root_tstamp") for table in store.tables.values()]
        for table, event_id, time in rows:
            db.run(
                f"DELETE FROM {store.place(table)} USING spoorway_leaving WHERE {quoted(table)}.{event_id} ="
                f" spoorway_leaving.event_id AND {quoted(table)}.{time} = spoorway_leaving.collector_tstamp"
            )
    db.run("DROP TABLE spoorway_leaving")
    return count


# Failed events ------------------------------------------------------------------------------------------------------------


def _erase_failed(store: Store, erasure: Erasure, at: str, dry: bool) -> tuple[int, str | None]:
    """(how many that waited are gone, the last row looked at or None at the end)."""
    rows = store.db.ask(
        "SELECT failed_id, payload_id, event_index, parameters, event, replayed_tstamp IS NULL,"
        " collector_tstamp IS NULL OR collector_tstamp <= CAST(%s AS TIMESTAMP)"
        f" FROM {store.place('failed_events')} WHERE failed_id > %s ORDER BY failed_id LIMIT {_FAILED_ROWS}",
        timestamp(erasure.until_ms),
        at,
    )
    known = _keys(erasure.events)
    cuts: dict[str, RawPayload | None] = {}
    unfit: dict[str, bool] = {}
    for payload_id, text in failures.payload_texts(store.db, store.schema, [row[1] for row in rows]).items():
        payload = payloads.from_json(text.encode())
        cuts[payload_id] = erasure.cut(payload)
        if payload.transport == failures.TRANSPORT and payload.body:  # all of an event that did not fit; the row may hold less
            line = dict(zip(COLUMN_NAMES, payload.body.decode().split("\t"), strict=True))
            event = {**line, **{name: _parsed(line[name] or None) for name in ENTITY_COLUMNS}}
            key = line["event_id"], f"{line['collector_tstamp']}000"
            unfit[payload_id] = key in known or erasure.who.in_columns(event)
    gone: dict[str, str] = {}
    failed = 0
    for failed_id, payload_id, index, parameters, event, waits, in_time in rows:
        cut = cuts.get(payload_id)
        theirs = failed_id in erasure.failed or (
            in_time
            and (
                erasure.who.in_parameters(json.loads(parameters))
                or erasure.who.in_columns(json.loads(event))
                or unfit.get(payload_id, False)
            )
        )
        if theirs or (cut is not None and (index in cut.erased or index is None)):
            failed += waits
            gone[failed_id] = payload_id
    if not dry:
        failures.remove(store.db, store.schema, gone)
        for payload_id, cut in cuts.items():
            if cut is not None:
                failures.replace_payload(store.db, store.schema, payload_id, cut)
    return failed, rows[-1][0] if len(rows) == _FAILED_ROWS else None


# Totals -------------------------------------------------------------------------------------------------------------------


def _count(store: Store, what: str, events: int, failed: int) -> None:
    if events or failed:
        store.db.run(
            f"UPDATE {store.place('spoorway_state')} SET stored = stored - {events}, failed = failed - {failed},"
            f" {what} = {what} + {events + failed}"
        )


def _told(store: Store, erasure_id: str, events: int, failed: int) -> Removed:
    """By this erasure until now."""
    table = store.place("spoorway_erasures")
    if not store.db.ask(f"SELECT 1 FROM {table} WHERE erasure_id = %s", erasure_id):
        store.db.run(f"INSERT INTO {table} VALUES (%s, 0, 0)", erasure_id)
    store.db.run(f"UPDATE {table} SET events = events + {events}, failed = failed + {failed} WHERE erasure_id = %s", erasure_id)
    ((all_events, all_failed),) = store.db.ask(f"SELECT events, failed FROM {table} WHERE erasure_id = %s", erasure_id)
    return Removed(all_events, all_failed)


def _number(db: Session, sql: str, values: Sequence[object] = ()) -> int:
    ((number,),) = db.ask(sql, *values)
    return int(number)


def _marks(values: Sequence[str]) -> str:
    return ", ".join(["%s"] * len(values))


def _parsed(value: Any) -> Any:
    """A SUPER as the driver hands it over: JSON, as text."""
    return json.loads(value) if isinstance(value, str) else value


__all__ = ["Place", "Store", "erase", "expire"]
