"""Pytest fixtures: a test server for the run, and for each test a namespace of it.

Imported by every pytest run where Spoorway is installed, so it imports next to nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from spoorway.micro.client import Micro


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "spoorway_micro_schemas", "folders with schemas, VENDOR/NAME/jsonschema/VERSION, for spoorway_micro", "paths", []
    )
    parser.addini("spoorway_micro_arguments", "more arguments of `spoorway micro` for spoorway_micro", "args", [])


@pytest.fixture(scope="session")
def spoorway_micro_server(pytestconfig: pytest.Config) -> Iterator[Micro]:
    """The test server of this run, started when the first test asks for it."""
    from spoorway.micro.client import running

    schemas = [argument for folder in pytestconfig.getini("spoorway_micro_schemas") for argument in ("--schemas", str(folder))]
    with running(*schemas, *pytestconfig.getini("spoorway_micro_arguments")) as micro:
        yield micro


@pytest.fixture
def spoorway_micro(spoorway_micro_server: Micro) -> Iterator[Micro]:
    """A namespace of the test server for this test alone; point a tracker at its `url`."""
    micro = spoorway_micro_server.namespace(uuid.uuid4().hex)
    yield micro
    micro.reset()
