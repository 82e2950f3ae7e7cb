"""Every case of protocol/vectors/tracker, given to every tracker that has an adapter in tests/conformance/adapters.

A runtime that is not installed skips its tracker, unless SPOORWAY_REQUIRE_RUNTIMES=1: then it fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from protocol.wire import write_query
from tests.conformance import comparer, vectors

ADAPTERS = Path(__file__).parent / "adapters"
CASES = list(vectors.cases("tracker"))
LONGEST_S = 120

GIVEN = {
    "now_ms": "1768471200000",
    "sent_ms": "1768471202000",
    "event_id": "c6ef3124-b53a-4b13-a233-0088f79dcbcb",
    "app_id": "shop",
    "platform": "srv",
    "namespace": "sp1",
    "base64": "0",
}
"""What every case is given unless it says otherwise."""

ALWAYS = {"eid": "event_id", "dtm": "now_ms", "stm": "sent_ms", "aid": "app_id", "p": "platform", "tna": "namespace"}
"""Parameter -> what it repeats of `given`, in every answer."""


class Adapter(NamedTuple):
    """One tracker. unsupported: files of cases -> why not; differences: case ids -> why the answer is meant to differ."""

    name: str
    command: list[str]
    probe: list[str]
    tracker_version: str
    unsupported: dict[str, str]
    differences: dict[str, str]


def _adapter(file: Path) -> Adapter:
    facts: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    facts |= {
        name: [part.format(python=sys.executable, here=file.parent, root=vectors.FOLDER.parents[1]) for part in facts[name]]
        for name in ("command", "probe")
    }
    return Adapter(name=file.stem, **facts)


ALL = [_adapter(file) for file in sorted(ADAPTERS.glob("*.toml"))]


def line_of(case: vectors.Case) -> str:
    """A case as an adapter reads it: one flat, url-encoded line."""
    given = {**GIVEN, **case.fields.get("given", {})}
    flat = (
        {"id": case.id} | {f"given.{k}": v for k, v in given.items()} | {f"call.{k}": v for k, v in case.fields["call"].items()}
    )
    return write_query(flat)


def expected_parameters(case: vectors.Case, tracker_version: str) -> dict[str, Any]:
    """What the case asks for, completed by what every answer repeats of `given`. None = must be absent."""
    given = {**GIVEN, **case.fields.get("given", {})}
    always = {name: given[source] for name, source in ALWAYS.items()} | {"tv": tracker_version}
    return {name: value for name, value in {**always, **case.fields["expect"]}.items() if value is not None}


def differences(case: vectors.Case, answer: str, tracker_version: str) -> list[str]:
    refused = answer.startswith("!")
    if case.fields["expect"] == {"refused": True}:
        return [] if refused else [f"must be refused, got {answer!r}"]
    if refused:
        return [f"must not be refused, got {answer!r}"]
    return comparer.query_differences(expected_parameters(case, tracker_version), answer)


@cache
def missing_runtime(*command: str) -> str:
    """Why the probe of a tracker's runtime fails here; "" when it does not."""
    try:
        probe = subprocess.run(command, capture_output=True, timeout=LONGEST_S, check=False)
    except OSError as error:
        return str(error)
    return "" if probe.returncode == 0 else probe.stderr.decode("utf-8", "replace")[-300:]


def require(adapter: Adapter, required: bool) -> None:
    if why := missing_runtime(*adapter.probe):
        (pytest.fail if required else pytest.skip)(f"{adapter.name} cannot run here: {why}")


@cache
def _answers(name: str) -> dict[str, str]:
    """All answers of a tracker, by case id, from one run of its adapter."""
    adapter = next(a for a in ALL if a.name == name)
    cases = [case for case in CASES if case.file not in adapter.unsupported]
    lines = "".join(line_of(case) + "\n" for case in cases)
    run = subprocess.run(adapter.command, input=lines.encode(), capture_output=True, timeout=LONGEST_S, check=False)
    answers = run.stdout.decode().split("\n")
    assert run.returncode == 0, run.stderr.decode("utf-8", "replace")[-2000:]
    assert answers.pop() == "" and len(answers) == len(cases), f"{len(cases)} cases, {len(answers)} answers"
    return {case.id: answer for case, answer in zip(cases, answers, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
@pytest.mark.parametrize("adapter", ALL, ids=[adapter.name for adapter in ALL])
def test_call_becomes_the_expected_parameters(adapter: Adapter, case: vectors.Case) -> None:
    require(adapter, os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1")
    if case.file in adapter.unsupported:
        pytest.skip(adapter.unsupported[case.file])
    found = differences(case, _answers(adapter.name)[case.id], adapter.tracker_version)
    if case.id in adapter.differences:
        assert found, f"no longer different: {adapter.differences[case.id]}"
    else:
        assert found == [], case.fields["why"]


@pytest.mark.parametrize("adapter", ALL, ids=[adapter.name for adapter in ALL])
def test_adapter_excuses_only_what_exists(adapter: Adapter) -> None:
    assert adapter.unsupported.keys() <= {case.file for case in CASES}
    assert adapter.differences.keys() <= {case.id for case in CASES}
    assert all(adapter.unsupported.values()) and all(adapter.differences.values())


def test_missing_runtime_fails_where_runtimes_are_required() -> None:
    absent = ALL[0]._replace(name="absent", probe=["/nonexistent/interpreter"])
    broken = ALL[0]._replace(name="broken", probe=[sys.executable, "-c", "raise SystemExit('no module')"])
    for adapter in (absent, broken):
        with pytest.raises(pytest.fail.Exception, match="cannot run here"):
            require(adapter, required=True)
        with pytest.raises(pytest.skip.Exception, match="cannot run here"):
            require(adapter, required=False)
