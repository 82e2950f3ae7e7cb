"""Asks a test server what it has seen, and starts one: for tests in Python. Standard library only.

with running() as micro:
    track(micro.url)
    [event] = micro.expect_good(1, event_type="page_view")
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast
from urllib.parse import quote, urlencode

Found = dict[str, Any]  # a GoodEvent or a BadEvent, see docs/micro.md

_STOP_S = 10
_MARGIN_S = 30  # beyond what the server was told to wait


class Micro:
    """One namespace of a test server. url: what a tracker is given as its collector's address."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def namespace(self, name: str) -> Micro:
        """The same server with events of its own: sent to, and asked for at, that namespace's url."""
        return Micro(f"{self.url}/ns/{quote(name, safe='')}")

    def all(self, *, wait: int = 0, timeout_s: float = 5, **columns: object) -> dict[str, int]:
        """How many there are: total, good, bad. The arguments are those of `good`."""
        return cast("dict[str, int]", self._ask("all", {}, wait, timeout_s, columns))

    def good(
        self,
        *,
        event_type: str | None = None,
        schema: str | None = None,
        contexts: Sequence[str] | None = None,
        limit: int | None = None,
        wait: int = 0,
        timeout_s: float = 5,
        **columns: object,
    ) -> list[Found]:
        """Events that are valid, newest first. wait: answer once there are so many, or after timeout_s with what there is.

        event_type: page_view, page_ping, struct, unstruct, transaction or transaction_item. schema, contexts: Iglu URIs; the
        event has all of contexts. columns: values the event has there, such as event_id="…" or app_id="shop".
        """
        body = {"event_type": event_type, "schema": schema, "contexts": contexts and list(contexts), "limit": limit}
        return cast("list[Found]", self._ask("good", body, wait, timeout_s, columns))

    def bad(
        self,
        *,
        vendor: str | None = None,
        version: str | None = None,
        limit: int | None = None,
        wait: int = 0,
        timeout_s: float = 5,
        **columns: object,
    ) -> list[Found]:
        """Events that failed, newest first. vendor, version: of the path they came by."""
        return cast(
            "list[Found]", self._ask("bad", {"vendor": vendor, "version": version, "limit": limit}, wait, timeout_s, columns)
        )

    def expect_good(self, count: int, *, timeout_s: float = 5, **filters: Any) -> list[Found]:
        """Exactly so many events that `good` finds with these filters; waits for them. Raises AssertionError."""
        found = self.good(wait=count, timeout_s=timeout_s, **filters)
        if len(found) != count:
            raise AssertionError(f"{len(found)} good events where {count} were expected, of {self.all()}{self._why()}")
        return found

    def expect_no_bad(self) -> None:
        """Raises AssertionError that says what is wrong with each."""
        if why := self._why():
            raise AssertionError(f"no bad event was expected{why}")

    def reset(self) -> None:
        """Forgets this namespace's events."""
        self._ask("reset", {}, 0, 0, {})

    def _why(self) -> str:
        return "".join(f"\n  bad: {event['errors'][0]}" for event in reversed(self.bad()))

    def _ask(
        self, what: Literal["all", "good", "bad", "reset"], body: Found, wait: int, timeout_s: float, columns: dict[str, object]
    ) -> Any:
        query: dict[str, object] = {name: _text(value) for name, value in columns.items()}
        if wait:
            query |= {"wait": wait, "timeout_ms": round(timeout_s * 1000)}
        url = f"{self.url}/micro/{what}?{urlencode(query)}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s + _MARGIN_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{error.code} from {url}: {error.read().decode()}") from None


@contextmanager
def running(*arguments: str) -> Generator[Micro]:
    """A test server of one's own, on a port the system chooses, that ends with the block. arguments: of `spoorway micro`.

    Raises RuntimeError when it does not start; it has said why on standard error.
    """
    command = [
        sys.executable,
        "-m",
        "spoorway",
        "micro",
        "--http",
        "127.0.0.1:0",
        "--json",
        "--quiet",
        "--with-parent",
        *arguments,
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"spoorway micro ended with code {process.wait()}: {' '.join(command)}")
            yield Micro(json.loads(line)["url"])
        finally:
            process.stdin.close()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _text(value: object) -> str:
    """As the server writes a column's value: true, 12.5."""
    return value if isinstance(value, str) else json.dumps(value)
