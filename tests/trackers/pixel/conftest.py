"""The running product for the pixel's tests, as the end-to-end tests have it."""

from tests.end_to_end.conftest import spoorway_run, start
from tests.peers.fixtures import chromium

__all__ = ["chromium", "spoorway_run", "start"]
