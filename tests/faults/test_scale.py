"""The store with 200,000 events: everything adds up; `make scale` measures ten million."""

from pathlib import Path

import pytest

from benchmarks.scale import run


@pytest.mark.slow
def test_two_hundred_thousand_events_are_loaded_asked_erased_and_expired(tmp_path: Path) -> None:
    figures = run(tmp_path, 200_000)
    assert figures["erased"] > 10
    assert 1_900 < figures["expired"] <= 2_000
    # A piece of an erasure looks at a tenth of this store: no commit waits for the whole of it.
    assert figures["erasing, slowest piece s"] < figures["erasing one person, s"]
