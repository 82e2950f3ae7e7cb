"""How the contract of targets treats the OpenSearch target: in a real server, a name of its own for each test."""

from __future__ import annotations

import random
import uuid
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled
from protocol.seams import TransientError
from storage.opensearch.server import Server
from storage.targets import Batch, opensearch
from tests.peers.opensearch_server import OpenSearchServer


class Refusing:
    """A server of which one call that changes something, counted from here, fails: before it is done, or its answer is lost."""

    def __init__(self, server: Server) -> None:
        self.server, self.url = server, server.url
        self.fail_at, self.done, self.calls = 0, False, 0

    def call(self, method: str, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        if method != "GET":
            self.calls += 1
        failing = method != "GET" and self.calls == self.fail_at
        if failing and not self.done:
            raise TransientError(f"{path}: told to fail")
        answer = self.server.call(method, path, *arguments, **options)
        if failing:
            raise TransientError(f"{path}: told to fail after it was done")
        return answer

    def close(self) -> None:
        self.server.close()


def in_opensearch(folder: Path, request: pytest.FixtureRequest) -> SearchBench:
    """The server is the fixture of this folder."""
    return SearchBench(request.getfixturevalue("opensearch_server"))


class SearchBench:
    def __init__(self, server: OpenSearchServer, **options: Any) -> None:
        self.server = server
        self.config = opensearch.Config(server.url, f"t-{uuid.uuid4().hex}", replicas=0, **options)
        self.target: opensearch.Plugin | None = None

    def open(self) -> opensearch.Plugin:
        if self.target:
            self.target.close()
        self.target = opensearch.Plugin(self.config, bundled)
        return self.target

    def another(self) -> opensearch.Plugin:
        return opensearch.Plugin(self.config, bundled)

    def hits(self, part: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        index = f"{self.config.name}-{part}"
        self.server.call("POST", f"/{index}/_refresh")
        question = {"size": 10_000, "query": query or {"match_all": {}}}
        return list(self.server.call("POST", f"/{index}/_search", question)["hits"]["hits"])

    def ids(self) -> list[str]:
        return [hit["_id"] for hit in self.hits("events")]

    def failed_ids(self) -> list[str]:
        return [hit["_id"] for hit in self.hits("failed", {"bool": {"must_not": {"exists": {"field": "replayed_tstamp"}}}})]

    def event(self, event_id: str) -> dict[str, Any]:
        (hit,) = self.hits("events", {"ids": {"values": [event_id]}})
        assert hit["_source"]["event_id"] == event_id
        entities = [hit["_source"].get(name) for name in ("schemas", "contexts_com_snowplowanalytics_snowplow_duplicate_1")]
        return {**hit["_source"], "derived_contexts": str(entities)}

    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        assert self.target
        server = self.target._store.server
        refusing = Refusing(server)  # type: ignore[arg-type]
        if moment == "after":
            self.target.commit(batch)
            raise TransientError("the answer was lost")
        refusing.fail_at, refusing.done = (1, False) if moment == "before" else (chance.randrange(1, 8), chance.random() < 0.5)
        self.target._store.server = refusing  # type: ignore[assignment]
        try:
            self.target.commit(batch)
        finally:
            self.target._store.server = server
