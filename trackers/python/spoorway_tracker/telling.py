"""What went wrong, told to the host: to its function, and to the logger `spoorway_tracker`. Neither can hurt it.

The root logger is never touched and no handler is installed: whoever wants these lines configures that logger as any other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

Told = Callable[[str, int, str], None]
"""(reason, how many events, details)"""


def teller(on_error: Told | None) -> Told:
    def tell(reason: str, count: int, details: str) -> None:
        if on_error is not None:
            with suppress(Exception):  # the host's own fault must not end the sending thread
                on_error(reason, count, details)
        if logging := sys.modules.get("logging"):  # who has not imported it has configured nothing
            logger = logging.getLogger("spoorway_tracker")
            if logger.hasHandlers():  # else Python would print it on stderr
                logger.warning("%s: %d events %s", reason, count, details)

    return tell
