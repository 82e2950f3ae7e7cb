"""One file per enrichment; file name = name in the configuration, which lists them in the order they run.

An enrichment is a pure function of the event so far: it returns only the columns to add or replace, or a Reason why it
could not. What the Reason does is the instance's `on_error`: the event fails with that reason among its others ("fail"),
goes on without it ("skip"), or goes on with an entity that says so ("flag"). It never raises for a value it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from protocol.seams import Event, RawPayload, Reason, SelfDescribing


@dataclass(slots=True)
class RawEvent:
    """One event as the tracker sent it, before any conversion. index: 0-based place in its payload.

    Never changed once made; Final says so, as in RawPayload and for its reason.
    """

    payload: Final[RawPayload]
    index: Final[int]
    parameters: Final[Mapping[str, str]]


class Enrichment(Protocol):
    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        """The columns to add or replace; entities under derived_contexts join those there are, unless they are Replacing.

        Nobody changes an event's values or an answer afterwards, so that many events may be given the same ones.
        """
        ...


class Replacing(list[SelfDescribing]):
    """Derived entities that take the place of all there were so far."""


OnError = Literal["fail", "skip", "flag"]
"""A file whose enrichment must not be left out says so: `ON_ERROR = ("fail",)`."""


class Step(NamedTuple):
    """One instance of an enrichment. name: the configuration's, and the `step` of its Reasons."""

    name: str
    enrichment: Enrichment
    on_error: OnError = "fail"


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Unanswered(Exception):
    """What was asked outside gave no answer that can be used. The message says why, for a Reason."""


class WebRequest(NamedTuple):
    """body: None = GET, else POST."""

    url: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


class WebAnswer(NamedTuple):
    """Of any status; redirects were followed where that is allowed."""

    status: int
    body: bytes


class Remembered(NamedTuple, Generic[T]):
    """How values are written down. merge: both together, the same in any order and however often."""

    write: Callable[[T], bytes]
    read: Callable[[bytes], T]
    merge: Callable[[T, T], T]


class Memory(Protocol[T]):
    """Values by key. What was put may be found merged with what other processes put; the last second may be lost."""

    def get(self, key: str) -> T | None: ...

    def put(self, key: str, value: T) -> None:
        """value: never changed afterwards."""
        ...


class World(Protocol):
    """What an enrichment may be handed when it is built: the input and output it must not do itself.

    The wiring implements it (spoorway/world.py); tests hand in their own. Call order: `Plugin(config, world)` once, then calls.
    """

    def watch(self, path: str, build: Callable[[bytes], T]) -> Callable[[], T]:
        """A getter of what `build` makes of the file's bytes, made anew when the file changes; the last good one is kept.

        Raises ConfigurationError when the file cannot be read, or `build` raises ValueError, the first time.
        """
        ...

    def now_ms(self) -> int:
        """The wiring's clock: for the age of caches, never for a column."""
        ...

    def cached(self, size: int, ttl_s: float, ask: Callable[[K], T]) -> Callable[[K], T]:
        """`ask` that remembers `size` answers for `ttl_s`, and Unanswered for a tenth of it, 10 s at most.

        Where there is no new answer an old one stands in for it. 0 of either = nothing is remembered.
        """
        ...

    def web(self, timeout_s: float, most_bytes: int, per_second: float) -> Callable[[WebRequest], WebAnswer]:
        """Asks http and https URLs. Raises Unanswered: no answer in time, too large, a redirect elsewhere, a resting service.

        timeout_s: for all of a request. per_second: more requests than that wait for their turn; 0 = no limit. A service
        that failed several times in a row is left alone for a while.
        """
        ...

    def database(
        self, address: str, query: str, values: int, timeout_s: float, most_rows: int
    ) -> Callable[[tuple[object, ...]], list[dict[str, object]]]:
        """The query's rows for its values, by column name. address: a SQLite file, or postgresql://…; only ever read.

        values: how many the query takes.

        Raises ConfigurationError: no such file, a query that is wrong or writes (of PostgreSQL only once it is asked);
        later Unanswered: no answer in time, more than most_rows.
        """
        ...

    def memory(self, name: str, remembered: Remembered[T], most: int) -> Memory[T]:
        """A small memory that outlives the process where there is a data folder.

        most: keys; beyond that those go that were not put for longest.
        """
        ...

    def apart(self, module: str, setup: bytes, timeout_s: float) -> Callable[[bytes], bytes]:
        """`module.Program(setup)` in a process of its own, called with one message at a time.

        Raises ValueError when Program does; later Unanswered: no answer in time, and then that process is ended.
        """
        ...


DEFAULT = ("referer", "campaign", "event_fingerprint", "anon_ip", "device_time", "email_agent")
"""What runs, in this order, where the configuration names no enrichments."""


def defaults(world: World) -> list[Step]:
    """The default enrichments with their default options."""
    plugins = [(name, import_module(f"{__name__}.{name}")) for name in DEFAULT]
    return [Step(name, plugin.Plugin(plugin.Config(), world)) for name, plugin in plugins]
