"""The running product for the Python tracker's tests, and a server that answers as it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import spoorway_run, start
from tests.trackers.python.answering import Answering

__all__ = ["spoorway_run", "start"]

SOURCES = Path(__file__).parents[3] / "trackers/python"


@pytest.fixture
def answering() -> Iterator[Answering]:
    with Answering() as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """For programs of the tests: they import the tracker of this checkout and keep their queues in the test's folder."""
    return {
        **os.environ,
        "PYTHONPATH": str(SOURCES),
        "PYTHONWARNINGS": "error",
        "SPOORWAY_TRACKER_FOLDER": str(tmp_path / "queues"),
    }
