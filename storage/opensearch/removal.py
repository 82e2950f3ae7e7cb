"""Documents that are to go: those of a person (`Keeper.erase`) and those that are too old (`Keeper.expire`), a piece at a time.

Looks, and removes nothing: what a piece found goes with a commit of the target. Only a payload that others failed in as well is
rewritten at once, for that counts nothing and may be done again. Knows no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple, cast

import orjson

from protocol import payloads
from protocol.persons import COLUMNS
from storage.failed import payload_text
from storage.opensearch.documents import iso
from storage.opensearch.store import Document, State, Store
from storage.targets import Erasure, Rule

_ROWS: Final = 2_000  # documents looked at in one piece
_FAILED_ROWS: Final = 200  # with their payloads
_IDS: Final = 500
_NAMES = ("device", "device_id")
_PERSONAL = tuple(name for names in COLUMNS.values() for name in names)
_SCHEMA = ("event_vendor", "event_name", "event_format", "event_version")


class Place(NamedTuple):
    """Where the next piece begins. stage: known (ids the journal told of), events or failed. at: the last one looked at."""

    stage: str
    at: Any


class Found(NamedTuple):
    """events: id -> fingerprint of those that are to go. failed: ids of failed events, waiting of which count. following: None at
    the end."""

    events: dict[str, str | None]
    failed: list[str]
    waiting: int
    following: Place | None


def theirs(store: Store, state: State, erasure: Erasure, after: Place | None, dry: bool) -> Found:
    """One piece of an erasure. dry: also payloads stay as they are."""
    place = after or Place("known", 0)
    following: Place | None
    if place.stage == "known":
        known = sorted(erasure.events)[place.at : place.at + _IDS]
        following = Place("known", place.at + _IDS) if len(known) == _IDS else Place("events", "")
        return Found(_known(store, state, erasure, known, dry), [], 0, following)
    if place.stage == "events":
        fields = _device_fields(store) if erasure.who.device else []
        conditions = [*state.committed, *_conditions(erasure, fields)]
        hits = _page(store, store.events, "event_id", conditions, place.at, _ROWS, [*_PERSONAL, *fields])
        events = {
            hit["_id"]: hit["_source"].get("event_fingerprint") for hit in hits if _is_theirs(hit["_source"], erasure, fields)
        }
        return Found(events, [], 0, Place("events", hits[-1]["_id"]) if len(hits) == _ROWS else Place("failed", ""))
    hits = _page(store, store.failed, "failed_id", state.committed, place.at, _FAILED_ROWS)
    going, cut = _failed(hits, erasure)
    if cut and not dry:
        store.change(cut)
    following = Place("failed", hits[-1]["_id"]) if len(hits) == _FAILED_ROWS else None
    return Found({}, [one["failed_id"] for one in going], _waiting(going), following)


def old(store: Store, state: State, rule: Rule, now_ms: int, after: Place | None) -> Found:
    """One piece of a rule's."""
    place = after or Place("events", "")
    conditions: list[Document] = [*state.committed, {"range": {"collector_tstamp": {"lt": iso(now_ms - rule.older_than_ms)}}}]
    conditions += [{"term": {name: value}} for name, value in (("app_id", rule.app_id), ("event_name", rule.event)) if value]
    if place.stage == "events":
        hits = _page(store, store.events, "event_id", conditions, place.at, _ROWS, _SCHEMA)
        events = {hit["_id"]: hit["_source"].get("event_fingerprint") for hit in hits if _fits(hit["_source"], rule)}
        if len(hits) == _ROWS:
            return Found(events, [], 0, Place("events", hits[-1]["_id"]))
        return Found(events, [], 0, None if rule.schema else Place("failed", ""))
    hits = _page(store, store.failed, "failed_id", conditions, place.at, _ROWS, ("failed_id", "replayed_tstamp"))
    going = [hit["_source"] for hit in hits]
    following = Place("failed", hits[-1]["_id"]) if len(hits) == _ROWS else None
    return Found({}, [one["failed_id"] for one in going], _waiting(going), following)


def _page(
    store: Store, index: str, key: str, conditions: Sequence[Document], after: str, rows: int, fields: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """The next so many by their ids. fields: beside the fingerprint; None = all."""
    more: dict[str, Any] = {} if fields is None else {"_source": ["event_fingerprint", *fields]}
    return store.search(index, conditions, rows, sort=[{key: "asc"}], after=[after] if after else (), **more)


def _known(store: Store, state: State, erasure: Erasure, known: Sequence[tuple[str, int]], dry: bool) -> dict[str, str | None]:
    """An id alone may be somebody else's who used it before; with the time of its payload it is not."""
    if not known:
        return {}
    times = {(event_id, iso(received_ms)) for event_id, received_ms in known}
    ids = list({event_id for event_id, _ in known})
    conditions = [*state.committed, {"ids": {"values": ids}}]
    fields = _device_fields(store) if dry and erasure.who.device else []
    if dry:  # those that the other stage finds as well count there
        conditions.append({"bool": {"must_not": {"bool": {"filter": _conditions(erasure, fields)}}}})
    hits = store.search(store.events, conditions, len(ids), _source=["collector_tstamp", "event_fingerprint"])
    found = [(hit["_id"], hit["_source"]) for hit in hits]
    return {key: row.get("event_fingerprint") for key, row in found if (key, row.get("collector_tstamp")) in times}


def _conditions(erasure: Erasure, fields: Iterable[str]) -> list[Document]:
    """Of events that name the person, and were received before the erasure. fields: of entities that may name a device."""
    wanted = {name: sorted(getattr(erasure.who, kind)) for kind, names in COLUMNS.items() for name in names}
    names: list[Document] = [{"terms": {name: values}} for name, values in wanted.items() if values]
    names += [{"terms": {f"{one}.{name}": sorted(erasure.who.device)}} for one in fields for name in _NAMES]
    until: list[Document] = [{"bool": {"must_not": {"exists": {"field": "collector_tstamp"}}}}]
    if moment := iso(erasure.until_ms):
        until.append({"range": {"collector_tstamp": {"lte": moment}}})
    return [{"bool": {"should": names or [{"match_none": {}}]}}, {"bool": {"should": until}}]


def _device_fields(store: Store) -> list[str]:
    """The fields of our own entities and events, those that some event has had."""
    place = f"/{store.events}/_mapping/field/contexts_io_spoorway_*,unstruct_event_io_spoorway_*"
    found = store.server.call("GET", place, passing=(404,))
    return sorted({name for index in _objects(list(found.values())) for name in index.get("mappings", ())})


def _is_theirs(row: Document, erasure: Erasure, fields: Sequence[str]) -> bool:
    """A device's name is compared with text in the search; here whether it is one. The other columns are compared whole there."""
    who = erasure.who
    if any(row.get(name) in getattr(who, kind) for kind, names in COLUMNS.items() for name in names):
        return True
    return any(one.get(name) in who.device for field in fields for one in _objects(row.get(field)) for name in _NAMES)


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    for one in cast(list[object], value) if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield cast(Mapping[str, Any], one)


def _failed(hits: Sequence[Mapping[str, Any]], erasure: Erasure) -> tuple[list[Document], dict[str, Document]]:
    """Those that go, and of others by id their payloads without the person."""
    until = iso(erasure.until_ms)
    going: list[Document] = []
    changed: dict[str, Document] = {}
    for hit in hits:
        row = hit["_source"]
        received = row["collector_tstamp"]
        cut = erasure.cut(payloads.from_fields(row["payload"])) if row.get("payload") else None
        theirs = row["failed_id"] in erasure.failed or (
            (received is None or until is None or received <= until)
            and (erasure.who.in_parameters(row["parameters"]) or erasure.who.in_columns(row["event"]))
        )
        if theirs or (cut is not None and (row["event_index"] is None or row["event_index"] in cut.erased)):
            going.append(row)
        elif cut is not None:
            changed[row["failed_id"]] = {"payload": orjson.loads(payload_text(cut))}
    return going, changed


def _waiting(going: Iterable[Document]) -> int:
    """Those that were solved are counted as stored already."""
    return sum(one.get("replayed_tstamp") is None for one in going)


def _fits(row: Document, rule: Rule) -> bool:
    if not rule.schema:
        return True
    parts = [row.get(name) for name in _SCHEMA]
    return None not in parts and fnmatchcase(f"iglu:{'/'.join(map(str, parts))}", rule.glob)


__all__ = ["Found", "Place", "old", "theirs"]
