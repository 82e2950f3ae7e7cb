"""What many events share is looked at once: nothing wrong slips through by that, and nobody's change reaches another event."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest

from enrich.enrichments import Enrichment, RawEvent, Step, pii, script_python, user_agent
from enrich.lengths import LIMITS, Lengths
from enrich.pipeline import Options, Pipeline
from enrich.selfdescribing import SelfDescribingStep
from enrich.validators import Validators
from protocol import schemas
from protocol.seams import Event, FailedEvent, Json, Outcome, RawPayload, SelfDescribing
from spoorway.world import World
from storage.rows import column, timestamp

URI = "iglu:com.acme/thing/jsonschema/1-0-0"


def outcomes(pipeline: Pipeline, count: int) -> Iterator[Outcome]:
    for number in range(count):
        payload = RawPayload(
            f"{number:032x}", 1, "http", "/i", "e=pv&p=web", headers=(("User-Agent", "Mozilla/5.0 (X11; Linux)"),)
        )
        yield from pipeline.outcomes(payload, 2)


def gives(entity: SelfDescribing) -> Step:
    """One object for all events."""
    answer: Event = {"derived_contexts": [entity]}

    def given(event: Event, raw: RawEvent) -> Event:
        return answer

    return Step("given", given)


def asking(documents: dict[str, str]) -> Pipeline:
    """documents: URI -> the type of what it describes."""

    def lookup(uri: str) -> dict[str, Json] | None:
        return {"type": documents[uri]} if uri in documents else schemas.bundled(uri)

    return Pipeline(Options(), lookup, [gives({"schema": URI, "data": {"id": 7}})])


def test_entity_that_is_wrong_fails_every_event_it_is_given_to() -> None:
    found = list(outcomes(asking({URI: "array"}), 3))
    assert [type(one) for one in found] == [FailedEvent] * 3


def test_entity_is_asked_again_when_its_schema_is_another() -> None:
    documents = {URI: "object"}
    pipeline = asking(documents)
    assert not any(isinstance(one, FailedEvent) for one in outcomes(pipeline, 3))
    documents[URI] = "array"
    pipeline.forget_schemas([URI])
    assert all(isinstance(one, FailedEvent) for one in outcomes(pipeline, 3))


def test_entities_of_one_event_only_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enrich.selfdescribing._MOST_KNOWN", 5)
    asked: list[Json] = []

    def takes(self: Validators, uri: str, data: Json) -> bool:
        asked.append(data)
        return True

    monkeypatch.setattr(Validators, "takes", takes)
    step = SelfDescribingStep(Validators(schemas.bundled))
    ones: list[SelfDescribing] = [{"schema": URI, "data": number} for number in range(12)]
    assert all(step.sure_of_ours([one]) for one in ones)
    assert step.sure_of_ours([*ones[-2:], ones[0]])
    assert asked == [*range(12), 0]


@pytest.mark.parametrize(
    "line",
    [
        'event["derived_contexts"][0]["data"]["osFamily"] = "CP/M"',
        'event["derived_contexts"][0]["schema"] = "iglu:com.acme/thing/jsonschema/1-0-0"',
        'event["derived_contexts"].clear()',
    ],
)
def test_script_cannot_change_what_other_events_are_given(tmp_path: Path, line: str) -> None:
    file, world = tmp_path / "script.py", World()
    file.write_text(f"def enrich(event, parameters):\n    {line}\n")
    plugins: list[tuple[str, Enrichment]] = [
        ("user_agent", user_agent.Plugin(user_agent.Config(), world)),
        ("script_python", script_python.Plugin(script_python.Config(str(file)), world)),
    ]
    steps = [Step(name, plugin) for name, plugin in plugins]
    expected = deepcopy([one["derived_contexts"] for one in events(steps[:1], 2)])
    assert [one["derived_contexts"] for one in events(steps, 2)] == expected
    assert expected[0] == expected[1] != []


def test_hashing_one_event_leaves_what_the_next_is_given() -> None:
    world, place = World(), "derived_contexts iglu:com.snowplowanalytics.snowplow/ua_parser_context/jsonschema/1-*-* $.osFamily"
    plugins: list[tuple[str, Enrichment]] = [
        ("user_agent", user_agent.Plugin(user_agent.Config(), world)),
        ("pii", pii.Plugin(pii.Config(json=(place,), salt="pepper123"), world)),
    ]
    hashed = [one["derived_contexts"][0]["data"]["osFamily"] for one in events([Step(*each) for each in plugins], 3)]
    (plain,) = [one["derived_contexts"][0]["data"]["osFamily"] for one in events([Step(*plugins[0])], 1)]
    assert plain == "Linux"
    assert len(hashed[0]) == 64
    assert hashed == hashed[:1] * 3


def events(steps: list[Step], count: int) -> list[dict[str, Any]]:
    return [cast(dict[str, Any], one) for one in outcomes(Pipeline(Options(), schemas.bundled, steps), count)]


@pytest.mark.parametrize("character", ["x", "%", "\u00fc", "\U0001f600"], ids=ascii)
def test_longest_text_of_each_column_fits_and_no_longer_one(character: str) -> None:
    """One look at all columns must tell what a look at each would. The last character takes two code units."""
    units = 2 if character > "\uffff" else 1
    check = Lengths(LIMITS)
    full = {name: character * (limit // units) for name, limit in LIMITS.items()}
    assert check(cast(Event, full)) == []
    for name, text in full.items():
        (found,) = check(cast(Event, {**full, name: text + character}))
        assert found.field == name


@pytest.mark.parametrize(("limit", "fits"), [(-1, False), (0, False), (4, True), (1 << 31, True), (1 << 70, True)])
def test_limit_may_be_any_number(limit: int, fits: bool) -> None:
    assert (Lengths({**LIMITS, "app_id": limit})({"app_id": "shop", "platform": "web"}) == []) == fits


@pytest.mark.parametrize("step_ms", [0, 1, 450, 1_000])
def test_times_of_a_column_are_each_ones_own_however_many_are_the_same(step_ms: int) -> None:
    times = [1_700_000_000_000 + place // 3 * step_ms for place in range(40)] + [999, -1]
    assert list(column("derived_tstamp", times)) == [timestamp(ms) for ms in times]


def test_raw_event_reaches_an_enrichment_that_is_a_function() -> None:
    def tells(event: Event, raw: RawEvent) -> Event:
        return {"mkt_medium": raw.parameters["e"]}

    (found,) = outcomes(Pipeline(Options(), schemas.bundled, [Step("tells", tells)]), 1)
    assert isinstance(found, dict)
    assert found.get("mkt_medium") == "pv"
