"""What a board has accepted outlasts the failure of its power at any program and any erase of its flash."""

from __future__ import annotations

import pytest
from tests.end_to_end.conftest import Running
from tests.trackers.micropython import boards
from tests.trackers.micropython.cuts import cut

pytestmark = pytest.mark.slow


def test_nothing_accepted_is_lost_and_nothing_stored_twice(spoorway_run: Running) -> None:
    boards.require_interpreter()
    found = cut(spoorway_run, cuts=150, seed=7)
    assert found.accepted > 500 and found.copies > 50  # or the lives were too quiet to show anything
    assert (found.cuts, found.lost, found.twice, found.drained, found.odd) == (150, 0, 0, True, [])
    assert found.boots > 100  # the number of the start came through each of them


def test_planted_faults_are_found(spoorway_run: Running) -> None:
    boards.require_interpreter()
    for fault in ("hasty", "late"):
        assert cut(spoorway_run, cuts=60, seed=3, fault=fault).lost, fault
