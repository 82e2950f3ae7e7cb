"""The capacity plan: what it counts is what it shows, from figures that the benchmarks stand for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.figures import pick
from protocol.seams import ConfigurationError
from spoorway.cli import main
from spoorway.simulate.planning import LOGS, STORES, Assumptions, assumptions, formulas, measured, plan, remarks

ROOT = Path(__file__).parents[2]


def test_the_figures_are_those_of_the_benchmarks() -> None:
    """A third apart at most: a measurement that was made again moves by less, one that was mistaken by more."""
    newest, used = pick(ROOT / "benchmarks" / "results"), measured()
    assert newest.keys() == used.keys()
    for name, figure in newest.items():
        assert used[name]["value"] == pytest.approx(figure["value"], rel=1 / 3), name
        assert used[name]["unit"] == figure["unit"]


def test_a_plan_by_hand() -> None:
    figures = {name: figure["value"] for name, figure in measured().items()}
    found = plan(100_000, Assumptions())
    gateway_us = figures["request_us"] / 10 + figures["event_us"]
    worker_us = figures["read_us"] + figures["enrich_us"] + figures["loop_us"] + figures["s3_us"]
    assert found["gateway_cores"] == pytest.approx(gateway_us / 10)
    assert found["gateways"] == math.ceil(gateway_us / 10 / 0.6) + 1
    assert found["worker_cores"] == pytest.approx(worker_us / 10)
    assert found["workers"] == math.ceil(worker_us / 10 / 0.6) + 1
    # An hour of everything on the disks of all gateways but one.
    assert found["overflow"] * (found["gateways"] - 1) == pytest.approx(100_000 * figures["raw_bytes"] * 3600 / 2**30)
    assert found["cost"] == pytest.approx(found["node_cost"] + found["log_cost"] + found["store_cost"])


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("store", STORES)
def test_more_events_never_take_less(log: str, store: str) -> None:
    plans = [plan(rate, Assumptions(), log, store) for rate in (1, 1_000, 30_000, 100_000, 1_000_000)]  # type: ignore[arg-type]
    for name, *_ in formulas(log, store):  # type: ignore[arg-type]
        values = [found[name] for found in plans]
        if name not in ("overflow", "cost_million"):  # shares: of a disk, of the whole
            assert values == sorted(values), name
        assert all(math.isfinite(value) and value > 0 for value in values), name


def test_a_process_may_always_be_gone() -> None:
    assert {(found["gateways"], found["workers"]) for found in [plan(1, Assumptions(spare=1))]} == {(3, 3)}


def test_a_rate_for_one_machine_and_one_for_no_postgres_are_said_to_be_so() -> None:
    rates = (1_000, 100_000, 10_000_000)
    said = [remarks(rate, plan(rate, Assumptions(), "kafka", "postgres"), Assumptions()) for rate in rates]
    assert "one machine" in said[0][0]
    assert said[1] == []
    assert "no usual PostgreSQL" in said[2][0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"node_hours": "1"}, "did you mean node_hour"),
        ({"node_hour": "dear"}, "expected a number"),
        ({"utilisation": "0"}, "above 0"),
        ({"utilisation": "60"}, "a share of 1"),
        ({"spare": "-1"}, "above 0"),
        ({"node_hour": "inf"}, "above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),
)
def test_an_assumption_that_cannot_be_is_answered(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        assumptions(given)


def test_the_command_tells_plan_formulas_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "website", "--devices", "50000", "--plan", "--assume", "node_hour=1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (found,) = told["plans"]
    assert found == {"rate": 12_500, **plan(12_500, Assumptions(node_hour=1))}
    assert told["formulas"]["gateways"]["unit"] == "processes"
    assert told["assumptions"]["node_hour"] == 1
    assert told["measured"]["enrich_us"]["measured"].startswith("benchmarks/results/enrich.json, 20")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("simulate", "Say a profile, or --plan"),
        ("simulate website --devices 10001", "with --plan there may be more"),
        ("simulate --plan --assume node_hour", "expected NAME=VALUE"),
    ],
)
def test_the_command_says_what_is_missing(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 1
    assert message in capsys.readouterr().err


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "capacity.md").read_text("utf-8")
    assert main(["simulate", "--plan"]) == 0
    printed = capsys.readouterr().out
    shown = {line.strip() for line in page.splitlines()}
    assert [
        line for line in printed[: printed.index("\nmeasured:")].splitlines() if line.strip() not in shown | {"formulas:"}
    ] == []
    for name in Assumptions.__dataclass_fields__:
        assert f"`{name}`" in page, name
    for name, figure in measured().items():
        assert f"| `{name}` | {figure['value']:g} {figure['unit']} |" in page, name
