"""The running product, as in tests/end_to_end."""

from tests.end_to_end.conftest import spoorway_run, start

__all__ = ["spoorway_run", "start"]
