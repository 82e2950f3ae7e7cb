"""The official Node tracker, run against a gateway: every row holds what was tracked, column by column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.peers import expectation, programs

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.peers.fixtures"]

UNSUPPORTED = {"mobile_screen_view"}
QUIRKS: dict[str, dict[str, Any]] = {"page_ping": {"pp_xoffset_min": None}}  # it leaves out numbers that are zero


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("base64", ["on", "off"])
def test_every_call_is_stored_as_it_was_tracked(spoorway_run: Any, npm_peers: Path, method: str, base64: str) -> None:
    run = programs.run_node(spoorway_run.url, method, base64)
    assert expectation.judge(spoorway_run, run, programs.TABLE, UNSUPPORTED, QUIRKS, created_with_true=False) == ""


@pytest.mark.parametrize("method", ["get", "post"])
def test_an_anonymous_visitor_leaves_no_address_and_no_id(spoorway_run: Any, npm_peers: Path, method: str) -> None:
    run = programs.run_node(spoorway_run.url, method, "off", anonymous=True)
    assert expectation.judge(spoorway_run, run, programs.TABLE, UNSUPPORTED, QUIRKS, created_with_true=False) == ""
