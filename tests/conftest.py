"""Which tests may run beside each other: those of one file one after the other, and those with serial ports all of them.

A terminal's number is given out anew as soon as it is free, and a gateway that waits for a board to come back would take
another test's for its own.
"""

from __future__ import annotations

import pytest

_WITH_PORTS = {"test_serial_transport", "test_serial_ports", "test_serial_kills", "test_simulate", "test_demo"}
_PORT_FOLDERS = {"arduino", "micropython"}


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        ports = item.path.stem in _WITH_PORTS or item.path.stem.startswith("test_flash") or item.path.parent.name in _PORT_FOLDERS
        item.add_marker(pytest.mark.xdist_group("serial ports" if ports else str(item.path)))
