"""Which tests may run beside each other: those of one file one after the other, and so those with serial ports, and those with
a store that takes half a minute of processor to start.

A terminal's number is given out anew as soon as it is free, and a gateway that waits for a board to come back would take
another test's for its own.

How long an example takes says how busy the machine is, not whether it is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

_WITH_PORTS = {"test_serial_transport", "test_serial_ports", "test_serial_kills", "test_simulate", "test_demo"}
_PORT_FOLDERS = {"arduino", "micropython"}
_WITH_OPENSEARCH = {"test_target_contract", "test_keeping_contract", "test_opensearch", "test_opensearch_solving"}


class _Groups(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        ports = file.stem in _WITH_PORTS or file.stem.startswith("test_flash") or file.parent.name in _PORT_FOLDERS
        if file.stem in _WITH_OPENSEARCH:
            return "opensearch"
        return "serial ports" if ports else str(file)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--redshift-dsn", help="run test_redshift_target.py on a real cluster, see there")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Groups:
    return _Groups(config, log)
