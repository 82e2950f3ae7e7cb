"""What an enrichment that cannot do its work costs the event: on_error, and the rim that catches a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enrich.enrichments import Enrichment, OnError, RawEvent, Replacing, Step
from enrich.pipeline import Options, Pipeline
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, Event, FailedEvent, Outcome, RawPayload, Reason, SelfDescribing
from spoorway import building
from spoorway.config import load

FLAG = "iglu:io.spoorway/enrichment_flag/jsonschema/1-0-0"
COOKIE = "iglu:org.ietf/http_cookie/jsonschema/1-0-0"


def outcome(*steps: Step) -> Outcome:
    payload = RawPayload("0" * 32, 1_700_000_000_000, "http", "/i", "e=pv&p=web&url=http%3A%2F%2Fa.b%2F")
    (found,) = Pipeline(Options(), bundled, steps).outcomes(payload, 1_700_000_000_001)
    return found


def stored(*steps: Step) -> dict[str, Any]:
    found = outcome(*steps)
    assert isinstance(found, dict), found
    return dict(found)


def refuses(event: Event, raw: RawEvent) -> Reason:
    return Reason("whatever", "page_url", "no such page")


def breaks(event: Event, raw: RawEvent) -> Event:
    raise KeyError("gone")


def works(event: Event, raw: RawEvent) -> Event:
    return {"mkt_medium": "after"}


def cookie(name: Any) -> Enrichment:
    entity: SelfDescribing = {"schema": COOKIE, "data": {"name": name, "value": "x"}}
    return lambda event, raw: {"derived_contexts": [entity]}


def test_fail_names_the_instance_and_the_others_run_on() -> None:
    found = outcome(Step("mine", refuses), Step("yours", breaks), Step("later", works))
    assert isinstance(found, FailedEvent)
    assert [(r.step, r.message) for r in found.reasons] == [("mine", "no such page"), ("yours", "KeyError: 'gone'")]
    assert found.event.get("mkt_medium") == "after"


@pytest.mark.parametrize("enrichment", [refuses, breaks, cookie(7), lambda event, raw: {"mkt_medium": "x" * 256}])
def test_skip_stores_the_event_as_if_the_enrichment_were_not_there(enrichment: Enrichment) -> None:
    assert stored(Step("mine", enrichment, "skip"), Step("later", works)) == stored(Step("later", works))


@pytest.mark.parametrize(
    ("enrichment", "message"),
    [
        (refuses, "page_url: no such page"),
        (breaks, "KeyError: 'gone'"),
        (lambda event, raw: {"mkt_medium": "x" * 256}, "mkt_medium: longer than 255 UTF-16 code units: 256"),
    ],
)
def test_flag_stores_the_event_and_says_why(enrichment: Enrichment, message: str) -> None:
    event = stored(Step("mine", enrichment, "flag"), Step("later", works))
    assert event["mkt_medium"] == "after"
    assert event["derived_contexts"] == [{"schema": FLAG, "data": {"enrichment": "mine", "message": message}}]


def test_flag_of_the_longest_message_and_name_is_valid() -> None:
    def shouts(event: Event, raw: RawEvent) -> Event:
        raise ValueError("\ud800é" * 5_000)

    event = stored(Step("n" * 5_000, shouts, "flag"))
    assert len(event["derived_contexts"][0]["data"]["message"]) == 1_000
    event["derived_contexts"][0]["data"]["message"].encode()


def test_invalid_entity_is_told_from_the_others() -> None:
    event = stored(Step("good", cookie("a")), Step("bad", cookie(7), "flag"), Step("better", cookie("b")))
    assert [e["schema"] for e in event["derived_contexts"]] == [COOKIE, FLAG, COOKIE]
    failed = outcome(Step("bad", cookie(7)), Step("good", cookie("a")))
    assert isinstance(failed, FailedEvent)
    assert [r.step for r in failed.reasons] == ["derived_contexts"]


def test_entities_join_those_there_are_unless_they_replace_them() -> None:
    only: SelfDescribing = {"schema": COOKIE, "data": {"name": "only", "value": None}}
    both = stored(Step("a", cookie("a")), Step("b", cookie("b")))
    assert [e["data"]["name"] for e in both["derived_contexts"]] == ["b", "a"]
    one = stored(Step("a", cookie("a")), Step("b", lambda event, raw: {"derived_contexts": Replacing([only])}))
    assert one["derived_contexts"] == [only]


@pytest.mark.parametrize("text", ["", 'on_error = "fail"', 'on_error = "skip"', 'on_error = "flag"'])
def test_configuration_says_it_for_each_of_several_instances(tmp_path: Path, text: str) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(f'[enrich.enrichments.one]\nuse = "campaign"\n{text}\n[enrich.enrichments.two]\nuse = "campaign"\n')
    expected: OnError = text[12:16] or "fail"  # type: ignore[assignment]
    settings = load(file, {}, {})
    assert [(i.name, i.use, i.on_error) for i in settings.enrichments()] == [
        ("one", "campaign", expected),
        ("two", "campaign", "fail"),
    ]
    building.pipeline(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[enrich.enrichments.campaign]\non_error = "warn"', "campaign.on_error: expected one of fail, skip, flag, not 'warn'"),
        ('[enrich.enrichments.pii]\non_error = "skip"', "pii.on_error: pii allows fail only, not 'skip'"),
        ('[storage.targets.sqlite]\non_error = "skip"', "unknown name 'on_error'"),
    ],
)
def test_wrong_on_error_is_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        settings = load(file, {}, {})
        settings.enrichments(), settings.targets()
