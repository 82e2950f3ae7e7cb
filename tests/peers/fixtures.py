"""The fixtures that peer tests share: `pytest_plugins = ["tests.peers.fixtures"]`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers import programs


@pytest.fixture(scope="session")
def npm_peers() -> Path:
    """The official trackers from npm, installed once into tests/peers/node_modules; the value is that folder."""
    return programs.install()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a real Chromium."""
    if not Path(programs.CHROMIUM).is_file():
        programs.missing("chromium")
    return programs.CHROMIUM
