"""Keeps events in OpenSearch, or Elasticsearch, as documents of a data stream; docs/opensearch.md describes it.

A store without transactions: documents carry the number of their commit, and a commit is done when the one document that holds
the cursor and the counts says that number. What a failed attempt left is deleted before the next one begins. That document
is replaced only as the version that was read, so of two commits at the same time one comes to nothing and is tried again:
several loaders take turns, and are no faster than one. Knows no clock.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from itertools import islice
from typing import Any

import orjson

from protocol.seams import ConfigurationError, Cursor, FailedEvent, Json, PermanentError, Position, Reason, TransientError
from storage.duplicates import identity, sort_out
from storage.marks import mark_of
from storage.opensearch.documents import COMMIT, document, failed_document, failed_mappings, template_of, unfit
from storage.opensearch.server import Config, Server, trouble, why
from storage.rows import clean, json_text
from storage.targets import Batch, Counts, SchemaLookup

_ASK = 5_000  # ids of one question
_RECENT = 20_000  # ids remembered instead of asking the store to make them searchable
_DOCUMENT = {"dynamic": False}  # of the cursor: kept, not searched


@dataclass(frozen=True, slots=True)
class _State:
    """What the document of the cursor says. version: of the document, as If-Match; None = there is none yet.

    commit: number of the last commit. wiped: everything up to there is to be deleted before anything else.
    """

    version: tuple[int, int] | None = None
    commit: int = 0
    cursor: Cursor = field(default_factory=dict[str, Position])
    totals: Counts = field(default_factory=Counts)
    mark: str = ""
    counted: Counts = field(default_factory=Counts)
    wiped: bool = False


class Plugin:
    def __init__(self, config: Config, schemas: SchemaLookup) -> None:
        """The store is not asked before `cursor`. schemas: of no use, a document names its fields. Raises ConfigurationError."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,99}", config.name):
            raise ConfigurationError(f"opensearch: name: {config.name!r}; expected small letters, digits, - _ and .")
        if config.bulk_bytes < 1 or config.shards < 1 or config.replicas < 0:
            raise ConfigurationError("opensearch: bulk_bytes and shards must be at least 1, replicas at least 0")
        self._config = config
        self._server = Server(config)
        self._events, self._failed, self._state_index = (f"{config.name}-{part}" for part in ("events", "failed", "state"))
        self._lock = threading.Lock()
        self._last: _State | None = None  # of our last commit; None: what failed since may have left something
        self._recent: dict[str, str | None] = {}  # stored, and perhaps not searchable yet
        self._prepared = False

    # Target ---------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        with self._lock:
            return dict(self._read().cursor)

    def totals(self) -> Counts:
        with self._lock:
            return self._read().totals

    def commit(self, batch: Batch) -> Counts:
        mark = mark_of(batch)
        with self._lock:
            last, self._last = self._last, None  # whatever happens now, it must be put in order
            state = self._read()  # each time, so that a loader that was overtaken writes nothing
            if state.mark != mark:
                moved = batch.moved(state.cursor)
                if last is None or last.version != state.version:
                    state = self._put_in_order(state)
                self._last = state = self._add(state, batch, {**state.cursor, **moved}, mark)
            # Otherwise this very batch was committed before; only the caller did not hear of it.
            return state.counted

    def close(self) -> None:
        with self._lock:
            self._server.close()

    def wipe(self) -> None:
        """Begin again: every document is deleted, no cursor, all totals 0."""
        with self._lock:
            self._last = None
            state = self._read()
            self._last = self._put_in_order(self._write(_State(state.version, state.commit, wiped=True)))

    # Within the lock ------------------------------------------------------------------------------------------------

    def _add(self, state: _State, batch: Batch, cursor: Cursor, mark: str) -> _State:
        number = state.commit + 1
        new, duplicates = sort_out(batch.events, self._stored)
        documents = [(identity(event)[0], event) for event in new]
        refused = self._create(self._events, ((key, {**document(event), COMMIT: number}) for key, event in documents))
        stored = [event for key, event in documents if key not in refused]
        offered = [*batch.failed, *(unfit(event, refused[key]) for key, event in documents if key in refused)]
        fresh = self._fresh(offered)
        failed = ((key, {**failed_document(one), COMMIT: number}) for key, one in fresh.items())
        if strange := self._create(self._failed, failed):
            raise PermanentError(f"{self._failed}: a failed event is refused: {next(iter(strange.values())).message}")
        known = duplicates + len(offered) - len(fresh)
        counts = Counts(batch.payloads, len(stored), len(fresh), known, erased=batch.erased)
        totals = Counts(*(had + came for had, came in zip(astuple(state.totals), astuple(counts), strict=True)))
        done = self._write(_State(state.version, number, cursor, totals, mark, counts))
        self._recent.update(map(identity, stored))
        if len(self._recent) > _RECENT:
            self._refresh()
        return done

    def _put_in_order(self, state: _State) -> _State:
        """Nobody else commits after this, and there is nothing in the store that was not committed."""
        if not self._prepared:
            self._prepare()
        state = self._write(state)  # a version of our own: who read the one before can commit no more
        if state.wiped:
            self._server.call("DELETE", f"/_data_stream/{self._events}", passing=(404,))
            self._server.call("DELETE", f"/{self._failed}", passing=(404,))
            self._prepare()
        self._refresh()
        # By now what is not searchable was not committed, and what was not committed is searchable.
        question = orjson.dumps({"query": {"range": {COMMIT: {"gt": state.commit}}}})
        found = self._server.call("POST", f"/{self._events},{self._failed}/_delete_by_query?refresh=true", question)
        if found.get("failures") or found.get("timed_out") or found.get("version_conflicts"):
            raise TransientError(f"{self._server.url}: what an attempt left could not be deleted")
        return self._write(replace(state, wiped=False)) if state.wiped else state

    def _refresh(self) -> None:
        found = self._server.call("POST", f"/{self._events},{self._failed}/_refresh")
        if found.get("_shards", {}).get("failed"):
            raise TransientError(f"{self._server.url}: some shards do not answer")
        self._recent.clear()

    def _stored(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        found = {key: self._recent[key] for key in ids if key in self._recent}
        rest = iter([key for key in dict.fromkeys(ids) if key not in found])
        while asked := list(islice(rest, _ASK)):
            question = {"size": _ASK, "query": {"ids": {"values": asked}}, "_source": ["event_fingerprint"]}
            place = f"/{self._events}/_search?allow_partial_search_results=false"
            for hit in self._server.call("POST", place, orjson.dumps(question))["hits"]["hits"]:
                found[hit["_id"]] = hit.get("_source", {}).get("event_fingerprint")
        return found

    def _fresh(self, offered: Sequence[FailedEvent]) -> dict[str, FailedEvent]:
        """Those that are new, each once, by their ids."""
        first = {clean(one.id): one for one in reversed(offered)}
        ids = iter(list(first))
        while asked := list(islice(ids, _ASK)):
            found = self._server.call("POST", f"/{self._failed}/_mget?_source=false", orjson.dumps({"ids": asked}))
            for told in found["docs"]:
                if told.get("found"):
                    del first[told["_id"]]
        return dict(reversed(first.items()))

    def _create(self, index: str, documents: Iterator[tuple[str, Mapping[str, Any]]]) -> dict[str, Reason]:
        """Makes them durable, except those that it returns with the reason why the store refuses them for ever."""
        refused: dict[str, Reason] = {}
        lines: list[bytes] = []
        size = 0
        for key, one in documents:
            line = orjson.dumps({"create": {"_id": key}}) + b"\n" + json_text(one).encode() + b"\n"
            if lines and size + len(line) > self._config.bulk_bytes:
                refused |= self._bulk(index, b"".join(lines))
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        return refused | (self._bulk(index, b"".join(lines)) if lines else {})

    def _bulk(self, index: str, body: bytes) -> dict[str, Reason]:
        answer = self._server.call("POST", f"/{index}/_bulk", body, "application/x-ndjson")
        if not answer.get("errors"):
            return {}
        refused: dict[str, Reason] = {}
        for item in answer["items"]:
            told = item["create"]
            status = int(told["status"])
            error: dict[str, Any] = told.get("error") or {}
            if status == 400:  # about the document; all else is about the store
                refused[told["_id"]] = Reason("opensearch", "", why(error)[:1_000], keyword=str(error.get("type", "")))
            elif status >= 300:  # 409: a document of an attempt that was given up came late
                raise trouble(status, error)(f"{self._server.url}: {index}: status {status}: {why(error)}")
        return refused

    # The document of the cursor -------------------------------------------------------------------------------------

    def _read(self) -> _State:
        found = self._server.call("GET", f"/{self._state_index}/_doc/state", passing=(404,))
        if not found.get("found"):
            return _State()
        said = found["_source"]
        return _State(
            (int(found["_seq_no"]), int(found["_primary_term"])),
            said["commit"],
            {lane: Position(*position) for lane, position in said["cursor"].items()},
            Counts(**said["totals"]),
            said["mark"],
            Counts(**said["counted"]),
            said["wiped"],
        )

    def _write(self, state: _State) -> _State:
        """Replaces the version that was read, and no other. Raises TransientError when it is another by now."""
        said = asdict(replace(state, version=None, cursor={})) | {"cursor": {lane: [*at] for lane, at in state.cursor.items()}}
        condition = "op_type=create"
        if state.version is not None:
            condition = f"if_seq_no={state.version[0]}&if_primary_term={state.version[1]}"
        place = f"/{self._state_index}/_doc/state?{condition}"
        answer = self._server.call("PUT", place, orjson.dumps(said), passing=(409,))
        if "_seq_no" not in answer:
            raise TransientError(
                f"{self._server.url}/{self._events}: another loader committed at the same time; this one tries again"
            )
        return replace(state, version=(int(answer["_seq_no"]), int(answer["_primary_term"])))

    # Indices --------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """What is there already stays as it is, but for the template, which new indices of the stream follow."""
        info = self._server.call("GET", "/").get("version", {})
        flat = "flat_object" if info.get("distribution") == "opensearch" else "flattened"
        settings: dict[str, Json] = {
            "number_of_shards": self._config.shards,
            "number_of_replicas": self._config.replicas,
            "index.translog.durability": "request",  # an answer means on disk
        }
        template = template_of(self._events, flat, settings)
        self._server.call("PUT", f"/_index_template/{self._events}", orjson.dumps(template))
        self._make(f"/_data_stream/{self._events}", None)
        self._make(f"/{self._failed}", {"settings": settings, "mappings": failed_mappings()})
        self._make(f"/{self._state_index}", {"settings": {**settings, "number_of_shards": 1}, "mappings": _DOCUMENT})
        self._prepared = True

    def _make(self, place: str, body: Mapping[str, Any] | None) -> None:
        answer = self._server.call("PUT", place, None if body is None else orjson.dumps(body), passing=(400,))
        error: dict[str, Any] = answer.get("error") or {}
        if error and error.get("type") != "resource_already_exists_exception":
            raise PermanentError(f"{self._server.url}{place}: {why(error)}")


__all__ = ["Config", "Plugin"]
