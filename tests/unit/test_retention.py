"""Rules of retention: how they are written, and when they are kept."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from protocol.seams import ConfigurationError, TransientError
from spoorway.cli import main
from spoorway.config import load
from spoorway.files import Claim, read_json
from spoorway.retention import Expiry, Options, ask, kept, request_file, result_file, rules_of
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
        "rules": {"a": asdict(Rule(DAY)), "b": asdict(Rule(2 * DAY))},
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


@pytest.mark.parametrize("known", [{}, {"a": Rule(2 * DAY)}, {"b": Rule(DAY)}], ids=["none", "older", "others"])
def test_who_knows_other_rules_than_those_asked_for_removes_nothing_and_says_so(tmp_path: Path, known: dict[str, Rule]) -> None:
    store, wanted = Store(), {"a": Rule(DAY)}
    expiry = Expiry(tmp_path, "sqlite", store, known)
    while expiry.step(NOW):
        pass
    before = len(store.asked)
    ask(tmp_path, "sqlite", wanted)
    assert not expiry.step(NOW + 1)
    assert not request_file(tmp_path, "sqlite").exists()
    assert len(store.asked) == before
    assert kept(tmp_path, "sqlite", wanted) is None
    assert not known or not Expiry(tmp_path, "sqlite", store, known).step(NOW + 2)  # its own were kept
    again = Expiry(tmp_path, "sqlite", store, wanted)  # after a restart with the new configuration
    assert [again.step(NOW + 3) for _ in range(4)] == [True] * 3 + [False]
    assert kept(tmp_path, "sqlite", wanted) == {"a": {"events": 6, "failed": 3}}


def test_the_rules_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    rules = {"a": Rule(DAY, "shop")}
    expiry = Expiry(tmp_path, "sqlite", Store(), rules)
    while expiry.step(NOW):
        pass
    ask(tmp_path, "sqlite", rules)
    assert [expiry.step(NOW + 1) for _ in range(4)] == [True] * 3 + [False]


def test_the_command_says_that_the_loading_process_knows_no_such_rules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "spoorway.toml"
    config.write_text('[storage.retention.old]\nolder_than = "1d"\n')
    claim, known = Claim(tmp_path, "sqlite"), Expiry(tmp_path, "sqlite", Store(), {})
    done = threading.Event()

    def loading() -> None:
        while not done.wait(0.01):
            known.step(NOW)

    thread = threading.Thread(target=loading, name="loading")
    thread.start()
    try:
        assert main(["retain", "--config", str(config), "--data", str(tmp_path)]) == 1
    finally:
        done.set()
        thread.join()
        claim.release()
    said = capsys.readouterr().err
    assert (
        said.startswith("spoorway: target sqlite: the process that loads it knows other rules, or none") and "restart it" in said
    )
    assert main(["retain", "--config", str(config), "--data", str(tmp_path)]) == 0


def test_the_command_makes_no_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "spoorway.toml"
    config.write_text('[storage.retention.old]\nolder_than = "1d"\n')
    for more in ([], ["--dry-run"]):
        assert main(["retain", "--config", str(config), "--data", str(tmp_path / "typo"), *more]) == 1
        assert capsys.readouterr().err.startswith(f"spoorway: there is no {tmp_path / 'typo'} yet")
    assert not (tmp_path / "typo").exists()
