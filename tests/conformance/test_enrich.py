"""Every case of protocol/vectors/enrich, run through the real pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest

from enrich.enrichments import Step, defaults
from enrich.pipeline import Options, Pipeline
from enrich.webhooks import WebhookMapping
from protocol.schemas import bundled
from spoorway.webhooks import bundled as bundled_mappings
from spoorway.world import World
from tests.conformance import comparer, vectors

CASES = list(vectors.cases("enrich"))
EVERY = Options().lenient
MAPPINGS = tuple(bundled_mappings())
_schemas: dict[str, Any] = {}


def _bundled(uri: str) -> Any:
    if uri not in _schemas:
        _schemas[uri] = bundled(uri)
    return _schemas[uri]


_pipelines: dict[tuple[frozenset[str], tuple[str, ...] | None], Pipeline] = {}


def _pipeline(fields: Mapping[str, Any]) -> Pipeline:
    lenient = frozenset(fields["lenient"]) if "lenient" in fields else EVERY
    names = tuple(fields["enrichments"]) if "enrichments" in fields else None
    if "schemas" in fields or "mappings" in fields:
        extra: Mapping[str, Any] = fields.get("schemas", {})
        own = tuple(WebhookMapping(document, "case") for document in fields.get("mappings", ()))
        options = Options(lenient=lenient, webhooks=(*MAPPINGS, *own))
        return Pipeline(options, lambda uri: extra.get(uri) or _bundled(uri), _enrichments(names))
    if (lenient, names) not in _pipelines:
        _pipelines[lenient, names] = Pipeline(Options(lenient=lenient, webhooks=MAPPINGS), _bundled, _enrichments(names))
    return _pipelines[lenient, names]


def _enrichments(names: tuple[str, ...] | None) -> Any:
    if names is None:
        return defaults(World())
    modules = [(name, import_module(f"enrich.enrichments.{name}")) for name in names]
    return [Step(name, module.Plugin(module.Config(), World())) for name, module in modules]


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_payload_becomes_the_expected_outcomes(case: vectors.Case) -> None:
    payload = vectors.raw_payload(case)
    outcomes = list(_pipeline(case.fields).outcomes(payload, vectors.now_ms(payload)))
    assert comparer.outcome_differences(case.fields["expect"], outcomes) == [], case.fields["why"]
