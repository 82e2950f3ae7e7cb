"""The indices of the OpenSearch target, and the one document that makes commits of what is in them. Knows no clock.

A commit is done when the document `state` says its number. What it creates lies there before, under that number; what it changes
or deletes in documents of earlier commits is named in it (`Todo`) and done afterwards, by whoever comes next if need be. Doing it
again, or very late, does no harm: only documents of earlier commits are touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import orjson

from protocol.seams import Cursor, Json, PermanentError, Position, Reason, TransientError
from storage.opensearch.documents import COMMIT, failed_mappings, gone_mappings, template_of
from storage.opensearch.server import Config, Server, trouble, why
from storage.rows import json_text
from storage.targets import Counts

_ASK = 5_000  # ids of one question
_VOID = 200  # numbers that are remembered as void
_DOCUMENT: dict[str, Json] = {"dynamic": False}  # of the state: kept, not searched

Document = Mapping[str, Any]


class Late(TransientError):
    """Somebody else wrote the state since it was read."""


@dataclass(frozen=True, slots=True)
class Todo:
    """What commit `commit` does to documents of earlier ones. events, failed: ids of those that go.

    changed: of failed events, by id, the fields that are others now. remembered: documents of NAME-gone, by id.
    """

    commit: int = 0
    events: Sequence[str] = ()
    failed: Sequence[str] = ()
    changed: Mapping[str, Document] = field(default_factory=dict[str, Document])
    remembered: Mapping[str, Document] = field(default_factory=dict[str, Document])


@dataclass(frozen=True, slots=True)
class State:
    """What the document says. version: of the document, as If-Match; None = there is none yet.

    commit: number of the last commit. void: earlier numbers under which nothing was committed, although somebody may have written
    documents. wiped: everything up to there is to be deleted before anything else. removed: (events, failed events) by erasure.
    """

    version: tuple[int, int] | None = None
    commit: int = 0
    cursor: Cursor = field(default_factory=dict[str, Position])
    totals: Counts = field(default_factory=Counts)
    mark: str = ""
    counted: Counts = field(default_factory=Counts)
    wiped: bool = False
    void: tuple[int, ...] = ()
    removed: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    todo: Todo | None = None

    @property
    def committed(self) -> list[Document]:
        """Conditions of a search, for documents that were committed."""
        return [{"range": {COMMIT: {"lte": self.commit}}}, {"bool": {"must_not": {"terms": {COMMIT: self.void}}}}]


class Store:
    """One thread at a time. Every call raises TransientError, PermanentError."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigurationError."""
        self._config = config
        self.server = Server(config)
        self.events, self.failed, self.gone, self._state = (
            f"{config.name}-{part}" for part in ("events", "failed", "gone", "state")
        )
        self._prepared = False

    # The document of the state --------------------------------------------------------------------------------------

    def read(self) -> State:
        found = self.server.call("GET", f"/{self._state}/_doc/state", passing=(404,))
        if not found.get("found"):
            return State()
        said = found["_source"]
        return State(
            (int(found["_seq_no"]), int(found["_primary_term"])),
            said["commit"],
            {lane: Position(*position) for lane, position in said["cursor"].items()},
            Counts(**said["totals"]),
            said["mark"],
            Counts(**said["counted"]),
            said["wiped"],
            tuple(said.get("void", ())),
            said.get("removed", {}),
            Todo(**todo) if (todo := said.get("todo")) else None,
        )

    def write(self, state: State) -> State:
        """Replaces the version that was read, and no other. Raises Late when it is another by now."""
        said = asdict(replace(state, version=None, cursor={})) | {"cursor": {lane: [*at] for lane, at in state.cursor.items()}}
        condition = "op_type=create"
        if state.version is not None:
            condition = f"if_seq_no={state.version[0]}&if_primary_term={state.version[1]}"
        answer = self.server.call("PUT", f"/{self._state}/_doc/state?{condition}", orjson.dumps(said), passing=(409,))
        if "_seq_no" not in answer:
            raise Late(f"{self.server.url}/{self.events}: another loader committed at the same time; this one tries again")
        return replace(state, version=(int(answer["_seq_no"]), int(answer["_primary_term"])))

    def put_in_order(self, state: State) -> State:
        """Nobody else commits after this, there is nothing in the store that was not committed, and nothing is left to do."""
        if not self._prepared:
            self._prepare()
        # A version and a number of our own: who read the one before can commit no more, and what comes late from them is void.
        number = state.commit + 1
        state = self.write(replace(state, commit=number, void=(*state.void, number)[-_VOID:]))
        if state.wiped:
            self.server.call("DELETE", f"/_data_stream/{self.events}", passing=(404,))
            for index in (self.failed, self.gone):
                self.server.call("DELETE", f"/{index}", passing=(404,))
            self._prepare()
        self.refresh(f"{self.events},{self.failed}")
        # By now what is not searchable was not committed, and what was not committed is searchable, or void.
        left = {"bool": {"should": [{"range": {COMMIT: {"gt": number}}}, {"terms": {COMMIT: state.void}}]}}
        self.delete(f"{self.events},{self.failed}", left)
        if state.wiped:
            return self.write(replace(state, wiped=False))
        return self.settle(state)

    def settle(self, state: State) -> State:
        """Does what the last commit left to do, if anything, and writes that it is done."""
        todo = state.todo
        if todo is None:
            return state
        if todo.remembered:
            lines = ((_line("index", key), body) for key, body in todo.remembered.items())
            self._all_done(self.bulk(self.gone, lines))
        earlier = {"range": {COMMIT: {"lt": todo.commit}}}
        for index, ids in ((self.events, todo.events), (self.failed, todo.failed)):
            if ids:
                self.refresh(index)  # what was stored a moment ago is found as well
                self.delete(index, {"bool": {"filter": [{"ids": {"values": ids}}, earlier]}})
        if todo.changed:
            self.change(todo.changed, todo.commit)
        return self.write(replace(state, todo=None))

    # Documents ------------------------------------------------------------------------------------------------------

    def create(self, index: str, documents: Iterator[tuple[str, Document]]) -> dict[str, Reason]:
        """Makes them durable, except those that it returns with the reason why the store refuses them for ever."""
        refused: dict[str, Reason] = {}
        for told in self.bulk(index, ((_line("create", key), body) for key, body in documents)):
            status = int(told["status"])
            error: dict[str, Any] = told.get("error") or {}
            if status == 400:  # about the document; all else is about the store
                refused[told["_id"]] = Reason("opensearch", "", why(error)[:1_000], keyword=str(error.get("type", "")))
            elif status >= 300:  # 409: a document of an attempt that was given up came late
                raise trouble(status, error)(f"{self.server.url}: {index}: status {status}: {why(error)}")
        return refused

    def change(self, changed: Mapping[str, Document], commit: int = 0) -> None:
        """Of failed events, by id, the fields that are others now. commit: only in documents of earlier ones; 0 = in all.

        Those that are gone are no mistake. Raises TransientError, also when one was changed by somebody else meanwhile.
        """
        lines: list[tuple[bytes, Document]] = []
        for key, found in self.get(self.failed, changed).items():
            source = found["_source"]
            if commit and source[COMMIT] >= commit:
                continue
            seen = {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
            lines.append((_line("index", key, **seen), {**source, **changed[key], **({COMMIT: commit} if commit else {})}))
        self._all_done(self.bulk(self.failed, lines))
        if lines:
            self.refresh(self.failed)

    def bulk(self, index: str, lines: Iterable[tuple[bytes, Document]]) -> Iterator[dict[str, Any]]:
        """lines: an action and its document. What became of those that were not done, as the store tells it."""
        together: list[bytes] = []
        size = 0
        for action, body in lines:
            line = action + b"\n" + json_text(body).encode() + b"\n"
            if together and size + len(line) > self._config.bulk_bytes:
                yield from self._bulk(index, b"".join(together))
                together, size = [], 0
            together.append(line)
            size += len(line)
        if together:
            yield from self._bulk(index, b"".join(together))

    def _bulk(self, index: str, body: bytes) -> Iterator[dict[str, Any]]:
        answer = self.server.call("POST", f"/{index}/_bulk", body, "application/x-ndjson")
        if answer.get("errors"):
            for item in answer["items"]:
                (told,) = item.values()
                if int(told["status"]) >= 300:
                    yield told

    def _all_done(self, left: Iterator[dict[str, Any]]) -> None:
        for told in left:
            status = int(told["status"])
            raise trouble(status, told.get("error") or {})(f"{self.server.url}: status {status}: {why(told.get('error') or {})}")

    def get(self, index: str, ids: Iterable[str], fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """The documents that there are now, searchable or not, by id. fields: of each; None = all. Not of a data stream."""
        found: dict[str, dict[str, Any]] = {}
        rest = iter(ids)
        source = "" if fields is None else f"?_source={','.join(fields) or 'false'}"
        while asked := list(islice(rest, _ASK)):
            answer = self.server.call("POST", f"/{index}/_mget{source}", orjson.dumps({"ids": asked}), passing=(404,))
            found.update((told["_id"], told) for told in answer.get("docs", ()) if told.get("found"))
        return found

    def search(
        self,
        index: str,
        conditions: Sequence[Document],
        size: int,
        *,
        sort: Sequence[str | Document] = (),
        after: Sequence[Any] = (),
        **more: Any,
    ) -> list[dict[str, Any]]:
        """Those that are searchable. after: what the last one found was sorted by. An index that is not there has none."""
        question = {"size": size, "query": {"bool": {"filter": conditions}}, "sort": sort or ["_doc"], **more}
        if after:
            question["search_after"] = after
        place = f"/{index}/_search?allow_partial_search_results=false"
        answer = self.server.call("POST", place, orjson.dumps(question), passing=(404,))
        found: list[dict[str, Any]] = answer.get("hits", {}).get("hits", [])
        return found

    def delete(self, index: str, query: Document) -> None:
        """All that match and are searchable, so that nobody finds them afterwards."""
        place = f"/{index}/_delete_by_query?refresh=true"
        found = self.server.call("POST", place, orjson.dumps({"query": query}))
        if found.get("failures") or found.get("timed_out") or found.get("version_conflicts"):
            raise TransientError(f"{self.server.url}: {index}: not everything that is to go could be deleted")

    def refresh(self, index: str) -> None:
        """What is there can be searched. An index that is not there is no mistake."""
        found = self.server.call("POST", f"/{index}/_refresh", passing=(404,))
        if found.get("_shards", {}).get("failed"):
            raise TransientError(f"{self.server.url}: some shards do not answer")

    # Indices --------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """What is there already stays as it is, but for the template, which new indices of the stream follow."""
        info = self.server.call("GET", "/").get("version", {})
        flat = "flat_object" if info.get("distribution") == "opensearch" else "flattened"
        settings: dict[str, Json] = {
            "number_of_shards": self._config.shards,
            "number_of_replicas": self._config.replicas,
            "index.translog.durability": "request",  # an answer means on disk
        }
        template = template_of(self.events, flat, settings)
        self.server.call("PUT", f"/_index_template/{self.events}", orjson.dumps(template))
        self._make(f"/_data_stream/{self.events}", None)
        self._make(f"/{self.failed}", {"settings": settings, "mappings": failed_mappings()})
        self._make(f"/{self.gone}", {"settings": settings, "mappings": gone_mappings()})
        self._make(f"/{self._state}", {"settings": {**settings, "number_of_shards": 1}, "mappings": _DOCUMENT})
        self._prepared = True

    def _make(self, place: str, body: Document | None) -> None:
        answer = self.server.call("PUT", place, None if body is None else orjson.dumps(body), passing=(400,))
        error: dict[str, Any] = answer.get("error") or {}
        if error and error.get("type") != "resource_already_exists_exception":
            raise PermanentError(f"{self.server.url}{place}: {why(error)}")


def _line(action: str, key: str, **more: Any) -> bytes:
    return orjson.dumps({action: {"_id": key, **more}})


__all__ = ["Document", "Late", "State", "Store", "Todo"]
