"""Rules of retention: how they are written, and when they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol.seams import ConfigurationError, TransientError
from spoorway.config import load
from spoorway.files import read_json
from spoorway.retention import Expiry, Options, request_file, result_file, rules_of
from storage.targets import Removed, Rule

DAY = 86_400_000
NOW = 1_700_000_000_000


class Store:
    """Three pieces for each rule; two events in each."""

    def __init__(self) -> None:
        self.asked: list[tuple[Rule, int, Any]] = []
        self.fails = False

    def expire(self, rule: Rule, now_ms: int, after: Any, *, dry: bool = False) -> tuple[Removed, Any]:
        if self.fails:
            raise TransientError("busy")
        self.asked.append((rule, now_ms, after))
        return Removed(2, 1), (after or 0) + 1 if (after or 0) < 2 else None


@pytest.mark.parametrize(("text", "ms"), [("1h", 3_600_000), ("90d", 90 * DAY), ("6w", 42 * DAY), ("2y", 730 * DAY)])
def test_an_age_is_a_number_and_a_unit(text: str, ms: int) -> None:
    assert Options(text, app_id="shop").rule() == Rule(ms, "shop")


@pytest.mark.parametrize("text", ["", "90", "0d", "d", "1m", "-1d", "1 d", "1.5d", "90days"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match='expected an age such as "90d"'):
        Options(text)


def test_rules_come_from_the_configuration_by_name_and_target(tmp_path: Path) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text('[storage.retention.a]\nolder_than = "1d"\n[storage.retention.b]\nolder_than = "2d"\ntarget = "other"\n')
    rules = load(file, {}, {}).rules
    assert rules_of(rules, "sqlite") == {"a": Rule(DAY)}
    assert rules_of(rules, "other") == {"a": Rule(DAY), "b": Rule(2 * DAY)}
    file.write_text('[storage.retention.a]\nolder = "1d"\n')
    with pytest.raises(ConfigurationError, match=r"storage\.retention\.a: unknown name 'older'; did you mean older_than"):
        load(file, {}, {})
    file.write_text("[storage.retention.a]\n")
    with pytest.raises(ConfigurationError, match=r"storage\.retention\.a: .*older_than"):
        load(file, {}, {})


def test_rules_are_kept_once_a_day_piece_by_piece_also_across_restarts(tmp_path: Path) -> None:
    store, rules = Store(), {"a": Rule(DAY), "b": Rule(2 * DAY)}
    expiry = Expiry(tmp_path, "sqlite", store, rules)
    assert [expiry.step(NOW + n) for n in range(8)] == [True] * 6 + [False] * 2
    assert [after for _, _, after in store.asked] == [None, 1, 2] * 2
    assert {now_ms for _, now_ms, _ in store.asked} == {NOW}
    assert read_json(result_file(tmp_path, "sqlite")) == {
        "ran_ms": NOW,
        "removed": {"a": {"events": 6, "failed": 3}, "b": {"events": 6, "failed": 3}},
    }
    expiry = Expiry(tmp_path, "sqlite", store, rules)
    assert not expiry.step(NOW + DAY - 1)
    assert expiry.step(NOW + DAY)


def test_a_clock_that_was_set_back_does_not_stop_it(tmp_path: Path) -> None:
    expiry = Expiry(tmp_path, "sqlite", Store(), {"a": Rule(DAY)})
    while expiry.step(NOW):
        pass
    assert expiry.step(NOW - 30 * DAY)


def test_it_is_done_at_once_when_asked(tmp_path: Path) -> None:
    expiry = Expiry(tmp_path, "sqlite", Store(), {"a": Rule(DAY)})
    while expiry.step(NOW):
        pass
    request_file(tmp_path, "sqlite").touch()
    assert [expiry.step(NOW + 1) for _ in range(4)] == [True, True, True, False]
    assert not request_file(tmp_path, "sqlite").exists()


def test_a_piece_that_failed_is_done_again(tmp_path: Path) -> None:
    store = Store()
    expiry = Expiry(tmp_path, "sqlite", store, {"a": Rule(DAY)})
    assert expiry.step(NOW)
    store.fails = True
    with pytest.raises(TransientError):
        expiry.step(NOW)
    store.fails = False
    while expiry.step(NOW):
        pass
    assert [after for _, _, after in store.asked] == [None, 1, 2]


@pytest.mark.parametrize("rules", [{}, {"a": Rule(DAY)}], ids=["no_rules", "no_way"])
def test_a_target_that_cannot_or_need_not_is_left_alone(tmp_path: Path, rules: dict[str, Rule]) -> None:
    expiry = Expiry(tmp_path, "relay", Store() if not rules else object(), rules)
    assert not expiry.step(NOW)
