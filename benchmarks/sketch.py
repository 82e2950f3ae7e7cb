"""The least that turns payloads of trackers into rows of 131 columns, in plain Python: the peer of `enrich` and `enrichments`.

Fast by leaving out: each parameter goes through one small function into a sparse row, schemas are compiled once, rows of one
shape share an INSERT. It believes what it reads. Of the rest it knows nothing: no look at a request before it is taken apart, no
repair of URLs, no failed events (it stops), no control characters, no duplicates but those an index refuses, no views, no cursor.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema_rs
import orjson

from benchmarks import mix
from protocol import schemas
from protocol.seams import Json, RawPayload
from protocol.tables import COLUMN_NAMES, COLUMNS, EVENT_CODES, EVENT_SCHEMAS, PARAMETERS
from protocol.wire import b64decode
from spoorway.loader import BATCH_BYTES, collect_seldom

_Row = dict[str, Any]
_Put = Callable[[str, _Row], None]
_Lookup = Callable[[str], Mapping[str, Json] | None]

_LONGEST = {column.name: column.max_length for column in COLUMNS}
_NOT_OF_THE_EVENT = {"eid", "nuid", "stm", "cv"}
_CAMPAIGN = {
    "utm_medium": "mkt_medium",
    "utm_source": "mkt_source",
    "utm_term": "mkt_term",
    "utm_content": "mkt_content",
    "utm_campaign": "mkt_campaign",
}
_CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"


# A parameter's text into the row ------------------------------------------------------------------------------------


def _text(column: str) -> _Put:
    longest = _LONGEST[column] or 1_000_000

    def put(text: str, row: _Row) -> None:
        if len(text) > longest:
            raise ValueError(column)
        row[column] = text

    return put


def _made_by(make: Callable[[str], Any]) -> Callable[[str], _Put]:
    def for_column(column: str) -> _Put:
        def put(text: str, row: _Row) -> None:
            row[column] = make(text)

        return put

    return for_column


def _dimensions(width: str, height: str) -> _Put:
    def put(text: str, row: _Row) -> None:
        across, _, down = text.partition("x")
        row[width], row[height] = int(across), int(down)

    return put


@lru_cache(maxsize=8_192)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _moment(ms: int) -> str:
    return f"{_second(ms // 1000)}.{ms % 1000:03d}"


_BY_CONVERSION: dict[str, Callable[..., _Put]] = {
    "text": _text,
    "ip_first": _text,
    "platform_code": _text,
    "uuid": _text,
    "int32": _made_by(int),
    "decimal": _made_by(float),
    "bool01": _made_by(int),
    "epoch_ms": _made_by(lambda text: _moment(int(text))),
    "event_code": _made_by(EVENT_CODES.__getitem__),
    "dimensions": _dimensions,
}
_PUTS: dict[str, _Put] = {
    name: _BY_CONVERSION[parameter.conversion](*parameter.columns)
    for name, parameter in PARAMETERS.items()
    if parameter.conversion in _BY_CONVERSION
}


# Events -------------------------------------------------------------------------------------------------------------


class Sketch:
    """lookup: URI -> schema document."""

    def __init__(self, lookup: _Lookup = schemas.bundled) -> None:
        self._lookup = lookup
        self._valid: dict[str, Callable[[Json], bool]] = {}

    def rows(self, payloads: Sequence[RawPayload], now_ms: int) -> list[_Row]:
        """Column -> SQL value, of every event. Raises ValueError, KeyError for one that is not as it should be."""
        made: list[_Row] = []
        stored = _moment(now_ms)
        for payload in payloads:
            shared: _Row = {
                "etl_tstamp": stored,
                "collector_tstamp": _moment(payload.received_ms),
                "v_collector": "sketch",
                "v_etl": "sketch",
                "user_ipaddress": _masked(payload.ip or "unknown"),
            }
            for name, value in payload.headers:
                if name == "User-Agent":
                    shared["useragent"] = value
            made += [self._row(sent, payload.received_ms, shared.copy()) for sent in orjson.loads(payload.body or b"")["data"]]
        return made

    def _row(self, sent: Mapping[str, str], received_ms: int, row: _Row) -> _Row:
        for name, text in sent.items():
            if name in _PUTS:
                _PUTS[name](text, row)
        waited = int(sent["stm"]) - int(sent["dtm"])
        row["derived_tstamp"] = row["true_tstamp"] if "ttm" in sent else _moment(received_ms - max(waited, 0))
        if "ue_pr" in sent or "ue_px" in sent:
            described = orjson.loads(sent["ue_pr"] if "ue_pr" in sent else _decoded(sent["ue_px"]))
            inner = described["data"]
            self._check(inner)
            row["unstruct_event"] = orjson.dumps(described).decode()
            _, row["event_vendor"], row["event_name"], row["event_format"], row["event_version"] = _named(inner["schema"])
        else:
            row["event_vendor"], row["event_name"] = EVENT_SCHEMAS[row["event"]]
            row["event_format"], row["event_version"] = "jsonschema", "1-0-0"
        if "co" in sent or "cx" in sent:
            entities = orjson.loads(sent["co"] if "co" in sent else _decoded(sent["cx"]))["data"]
            for entity in entities:
                self._check(entity)
            row["contexts"] = orjson.dumps({"schema": _CONTEXTS, "data": entities}).decode()
        if "url" in sent:
            query = _split_url(sent["url"], "page_", row)
            for name, value in parse_qsl(query):
                if name in _CAMPAIGN:
                    row[_CAMPAIGN[name]] = value
        if "refr" in sent:
            _split_url(sent["refr"], "refr_", row)
            row["refr_medium"] = "internal" if row["refr_urlhost"] == row.get("page_urlhost") else "unknown"
        told = "\x1f".join([f"{name}\x1f{sent[name]}" for name in sorted(sent) if name not in _NOT_OF_THE_EVENT])
        row["event_fingerprint"] = md5(told.encode(), usedforsecurity=False).hexdigest()
        return row

    def _check(self, described: dict[str, Any]) -> None:
        uri = described["schema"]
        valid = self._valid.get(uri)
        if valid is None:
            rules = {key: value for key, value in (self._lookup(uri) or {}).items() if key not in ("$schema", "self")}
            valid = self._valid[uri] = jsonschema_rs.Draft4Validator(rules).is_valid
        if not valid(described["data"]):
            raise ValueError(uri)


def _decoded(text: str) -> bytes:
    return b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))


@lru_cache(maxsize=1_024)
def _named(uri: str) -> list[str]:
    return uri.replace(":", "/").split("/")


@lru_cache(maxsize=1_024)
def _masked(ip: str) -> str:
    return ip.rpartition(".")[0] + ".x"


def _split_url(text: str, prefix: str, row: _Row) -> str:
    parts = urlsplit(text)
    row[prefix + "urlscheme"], row[prefix + "urlhost"], row[prefix + "urlpath"] = parts.scheme, parts.hostname, parts.path
    row[prefix + "urlport"] = parts.port or (443 if parts.scheme == "https" else 80)
    if parts.query:
        row[prefix + "urlquery"] = parts.query
    if parts.fragment:
        row[prefix + "urlfragment"] = parts.fragment
    return parts.query


# Rows ---------------------------------------------------------------------------------------------------------------


def store(db: sqlite3.Connection, rows: Sequence[_Row]) -> None:
    """One transaction."""
    shapes: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for row in rows:
        shapes.setdefault(tuple(row), []).append(tuple(row.values()))
    db.execute("BEGIN")
    for names, values in shapes.items():
        db.executemany(_insert(names), values)
    db.execute("COMMIT")


@lru_cache(maxsize=1_024)
def _insert(names: tuple[str, ...]) -> str:
    return f"INSERT OR IGNORE INTO events ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"CREATE TABLE events ({', '.join(COLUMN_NAMES)})")
    db.execute("CREATE UNIQUE INDEX once ON events (event_id, event_fingerprint)")
    db.execute("CREATE INDEX by_time ON events (collector_tstamp)")
    return db


def _batches(payloads: Sequence[RawPayload]) -> Iterator[list[RawPayload]]:
    """As many bytes as the loader takes at a time."""
    batch: list[RawPayload] = []
    size = 0
    for payload in payloads:
        batch.append(payload)
        size += len(payload.body or b"")
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def load(folder: str, events: float) -> dict[str, Any]:
    """In a process of its own: at least so many events from memory into an empty file; every one must arrive."""
    return loaded(Path(folder) / "sketch.db", list(mix.payloads(int(events))), Sketch())


def loaded(path: Path, payloads: Sequence[RawPayload], sketch: Sketch) -> dict[str, Any]:
    """path: a file that is not there. The payloads' first millisecond counts as now."""
    path.unlink(missing_ok=True)
    with closing(opened(path)) as db:
        collect_seldom()
        made, enrich_s = 0, 0.0
        began, processor = time.perf_counter(), time.process_time()
        for batch in _batches(payloads):
            started = time.perf_counter()
            rows = sketch.rows(batch, payloads[0].received_ms)
            enrich_s += time.perf_counter() - started
            store(db, rows)
            made += len(rows)
        seconds, processor_s = time.perf_counter() - began, time.process_time() - processor
        (stored,) = db.execute("SELECT count(*) FROM events").fetchone()
    if stored != made:
        raise RuntimeError(f"{made} events made, {stored} stored")
    return {"events": made, "seconds": seconds, "processor_s": processor_s, "enrich_s": enrich_s, "store_s": seconds - enrich_s}
