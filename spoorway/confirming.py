"""A question before what cannot be taken back, asked the same way by every command."""

from __future__ import annotations

import sys

from protocol.seams import ConfigurationError


def confirm(question: str, would: str, nothing: str) -> None:
    """Returns when somebody at the terminal says yes. would: what would happen, told where there is none; nothing: what did.

    Raises ConfigurationError otherwise.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{would}; say --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # Ctrl-D leaves us in the question's line
        print(file=sys.stderr)
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigurationError(nothing)
