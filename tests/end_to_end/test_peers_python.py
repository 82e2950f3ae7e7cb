"""The official Python tracker, run against a gateway: every row holds what was tracked, column by column."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peers import expectation, programs

pytestmark = pytest.mark.slow

UNSUPPORTED = {"form_focus", "social_interaction"}


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("base64", ["on", "off"])
def test_every_call_is_stored_as_it_was_tracked(spoorway_run: Any, method: str, base64: str) -> None:
    run = programs.run_python(spoorway_run.url, method, base64)
    assert expectation.judge(spoorway_run, run, programs.TABLE, UNSUPPORTED) == ""


def test_an_anonymous_visitor_leaves_no_address_and_no_id(spoorway_run: Any) -> None:
    run = programs.run_python(spoorway_run.url, "post", "on", anonymous=True)
    assert expectation.judge(spoorway_run, run, programs.TABLE, UNSUPPORTED) == ""
