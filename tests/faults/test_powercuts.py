"""A few hundred power cuts on every run (`make powercuts` looks at many more), and the proof that the model would notice."""

from __future__ import annotations

import pytest

from tests.faults.powercuts import Violation, explore


@pytest.mark.parametrize("seed", [1, 9, 27])  # 9 finds a recovery that unlinks before it syncs, 27 such a sealing
def test_every_acknowledged_payload_survives_a_power_cut_once(seed: int) -> None:
    assert explore(100, seed, per_workload=25) >= 100


@pytest.mark.parametrize(
    ("lie", "seed"),
    [
        ("sync_data", 1),  # nothing is synced
        ("sync_folder", 1),  # no name is synced
        ("sync_sealed", 1),  # a sealed segment takes the plain one's place before it is on the medium
        ("sync_folder_after_rename", 27),  # the plain segment goes before the sealed one's name is on the medium
        ("sync_recovered", 14),  # after a kill, what only the cache holds is published
    ],
)
def test_a_sync_that_is_left_out_is_noticed(lie: str, seed: int) -> None:
    with pytest.raises(Violation):
        explore(1_000, seed, frozenset({lie}), per_workload=25)
