"""Servers that take long to start: one for all the files of a process, each test with a name of its own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers.opensearch_server import OpenSearchServer


@pytest.fixture(scope="session")
def opensearch_server() -> Iterator[OpenSearchServer]:
    with OpenSearchServer() as server:
        yield server
