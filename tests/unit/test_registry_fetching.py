"""Which registry is asked what and when: order, back-off, rates, refreshing. Answers are scripted, clocks are ours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.iglu import SchemaKey, parse
from spoorway.registry.cache import Cache, Cached
from spoorway.registry.fetching import Fetching
from spoorway.registry.lookup import Lookup
from spoorway.registry.options import Remote, Resolver
from spoorway.registry.remote import Answer, Down, Refused

READING = "iglu:com.acme/reading/jsonschema/1-0-0"
KEY = parse(READING)
DOCUMENT: Any = {"n": 1}
Reply = Answer | Exception


class World:
    """A lookup, its registries and one clock. asked: (registry's host, schema's name, etag) in order."""

    def __init__(self, folder: Path, remotes: dict[str, Remote], options: Resolver) -> None:
        self.now = 1_000_000.0
        self.asked: list[tuple[str, str, str | None]] = []
        self.replies: dict[str, Reply | Callable[[SchemaKey], Reply]] = {}
        self.cache = Cache(folder)
        self.lookup = Lookup([], self.cache, lambda: self.now)
        self.fetching = Fetching(
            self.lookup, self.cache, remotes, options, self.fetch, lambda: int(self.now * 1000), lambda: self.now
        )

    def fetch(self, remote: Remote, key: SchemaKey, etag: str | None) -> Answer:
        host = remote.url.removeprefix("http://")
        self.asked.append((host, key.name, etag))
        reply = self.replies.get(host, Answer("missing"))
        if callable(reply):
            reply = reply(key)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def round(self, after_s: float = 0) -> list[str]:
        """Who was asked in it."""
        self.now += after_s
        self.asked.clear()
        self.fetching.round()
        return [host for host, _, _ in self.asked]


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    def make(options: Resolver | None = None, **remotes: dict[str, Any]) -> World:
        made = {name: Remote(f"http://{name}", **given) for name, given in remotes.items()}
        return World(tmp_path / "cache", made, options or Resolver())

    return make


def test_nobody_is_asked_for_what_nobody_wants(world: Any) -> None:
    assert world(a={}).round() == []


def test_document_is_kept_told_and_asked_for_once(world: Any) -> None:
    w = world(a={})
    w.replies["a"] = Answer("found", DOCUMENT, "e")
    assert w.lookup(READING) is None
    assert w.round() == ["a"]
    assert w.lookup(READING) == DOCUMENT
    assert w.lookup.changes(0)[1] == {READING}
    assert w.cache.get(KEY) == Cached(DOCUMENT, "http://a", "e", 1_000_000_000)
    assert w.round(10_000) == []


@pytest.mark.parametrize(
    ("remotes", "order"),
    [
        ({"a": {}, "b": {}}, ["a", "b"]),
        ({"a": {"priority": 2}, "b": {"priority": 1}}, ["b", "a"]),
        ({"a": {"priority": -5}, "b": {"vendor_prefixes": ["com.acme"], "priority": 9}}, ["b", "a"]),
        ({"a": {"vendor_prefixes": ["com.ac"]}, "b": {"vendor_prefixes": ["org"]}}, ["a", "b"]),
        ({"a": {"vendor_prefixes": ["org"], "exclusive": True}, "b": {}}, ["b"]),
        ({"a": {"vendor_prefixes": ["com.acme"], "exclusive": True}, "b": {}}, ["a", "b"]),
    ],
)
def test_order_is_by_vendor_then_priority(world: Any, remotes: Any, order: list[str]) -> None:
    w = world(**remotes)
    w.lookup(READING)
    assert w.round() == order


def test_missing_everywhere_is_asked_for_later_and_later(world: Any) -> None:
    w = world(Resolver(retry_s=10, longest_retry_s=30), a={}, b={})
    w.lookup(READING)
    rounds = [w.round(), w.round(9.9), w.round(0.1), w.round(19.9), w.round(0.1), w.round(29.9), w.round(0.1), w.round(30)]
    assert [len(asked) for asked in rounds] == [2, 0, 2, 0, 2, 0, 2, 2]
    w.lookup("iglu:com.acme/other/jsonschema/1-0-0")
    assert w.round() == ["a", "b"]  # another schema does not wait for it


@pytest.mark.parametrize("trouble", [Down("status 500"), Refused("too much")])
def test_trouble_of_one_registry_leaves_the_others(world: Any, trouble: Exception) -> None:
    w = world(a={}, b={})
    w.replies = {"a": trouble, "b": Answer("found", DOCUMENT)}
    w.lookup(READING)
    assert w.round() == ["a", "b"]
    assert w.lookup(READING) == DOCUMENT


def test_registry_in_trouble_is_left_alone_longer_and_longer_for_all_schemas(world: Any) -> None:
    w = world(a={})
    w.replies["a"] = Down("refused")
    for name in ("x", "y", "z"):
        w.lookup(f"iglu:com.acme/{name}/jsonschema/1-0-0")
    assert [len(w.round(after)) for after in (0, 0.9, 0.1, 1.9, 0.1, 3.9, 0.1)] == [1, 0, 1, 0, 1, 0, 1]
    for _ in range(12):
        w.round(300)
    assert len(w.round(299)) == 0
    w.replies["a"] = Answer("missing")
    assert len(w.round(1)) == 3  # it answers again: all that wait are asked at once
    w.replies["a"] = Down("refused")
    w.lookup("iglu:com.acme/new/jsonschema/1-0-0")
    assert w.round() == ["a"]
    assert w.round(1) == ["a"]  # the first pause is short again


def test_schema_is_not_given_up_while_a_registry_was_not_asked(world: Any) -> None:
    w = world(Resolver(retry_s=600), a={}, b={})
    w.replies["b"] = Down("refused")
    w.lookup(READING)
    w.round()
    w.replies["b"] = Answer("found", DOCUMENT)
    w.round(1)
    assert w.lookup(READING) == DOCUMENT


def test_rate_is_limited(world: Any) -> None:
    w = world(a={"max_per_minute": 60})
    for number in range(100):
        w.lookup(f"iglu:com.acme/n{number}/jsonschema/1-0-0")
    assert len(w.round()) == 21
    assert len(w.round(5)) == 5
    assert len(w.round(60)) == 21


def test_old_document_is_asked_for_again_and_serves_meanwhile(world: Any) -> None:
    w = world(Resolver(refresh_s=100, retry_s=10), a={})
    w.replies["a"] = Answer("found", DOCUMENT, "one")
    w.lookup(READING)
    w.round()
    mark, _ = w.lookup.changes(0)
    assert w.round(99) == []
    w.replies["a"] = Down("refused")
    w.round(2)
    assert w.asked == [("a", "reading", "one")]
    assert w.lookup(READING) == DOCUMENT
    w.replies["a"] = Answer("missing")
    assert w.round(1) == ["a"]
    assert w.lookup(READING) == DOCUMENT
    assert w.round(9) == []
    w.replies["a"] = Answer("same")
    assert w.round(1) == ["a"]
    assert w.cache.get(KEY) == Cached(DOCUMENT, "http://a", "one", int(w.now * 1000))
    assert w.round(99) == []
    w.replies["a"] = Answer("found", {"n": 2}, "two")
    assert w.round(2) == ["a"]
    assert w.lookup(READING) == {"n": 2}
    assert w.lookup.changes(mark)[1] == {READING}


def test_etag_of_one_registry_is_not_shown_to_another(world: Any) -> None:
    w = world(Resolver(refresh_s=100), b={})
    w.cache.put(KEY, Cached(DOCUMENT, "http://a", "one", 0))
    w.lookup(READING)
    w.round()
    assert w.asked == [("b", "reading", None)]


def test_clock_that_jumped_back_does_not_keep_a_document_for_ever(world: Any) -> None:
    w = world(Resolver(refresh_s=100), a={})
    w.cache.put(KEY, Cached(DOCUMENT, "http://a", None, int(w.now * 1000) + 10**12))
    w.lookup(READING)
    assert w.round() == ["a"]


def test_full_disk_is_no_reason_to_ask_at_each_round(world: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    w = world(a={})
    w.replies["a"] = Answer("found", DOCUMENT)
    w.lookup(READING)
    assert [w.round(), w.round(1)] == [["a"], []]
    assert w.lookup(READING) is None


def test_fault_does_not_end_the_thread(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    w = world(a={})
    stop = threading.Event()
    tried = threading.Event()

    def broken(key: SchemaKey) -> Reply:
        if caplog.records:
            tried.set()
        raise ZeroDivisionError

    w.replies["a"] = broken
    w.lookup(READING)
    thread = threading.Thread(target=w.fetching.run, args=(stop,))
    thread.start()
    assert tried.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
