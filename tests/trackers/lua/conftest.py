"""The running product for the Lua tracker's tests, as the end-to-end tests have it."""

from tests.end_to_end.conftest import spoorway_run, start

__all__ = ["spoorway_run", "start"]
