"""Looking a schema up: which place counts, how often files are looked at, and what is told of changes."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from enrich.pipeline import Options, Pipeline
from protocol.iglu import SchemaKey, parse
from protocol.seams import FailedEvent, RawPayload
from spoorway.registry import layout
from spoorway.registry.cache import Cache, Cached
from spoorway.registry.lookup import LOOK_EVERY_S, Lookup

READING = "iglu:com.acme/reading/jsonschema/1-0-0"
KEY = parse(READING)
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
BUNDLED = "iglu:com.snowplowanalytics.snowplow/screen_view/jsonschema/1-0-0"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def put(folder: Path, document: Any, key: SchemaKey = KEY) -> Path:
    place = layout.place(folder, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_suffix(".new")  # a file of its own, so that it is another inode whatever the clock's grain
    fresh.write_text(document if isinstance(document, str) else json.dumps(document))
    fresh.replace(place)
    return place


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_bundle_then_folders_then_cache(tmp_path: Path, clock: Clock) -> None:
    first, second, cache = tmp_path / "a", tmp_path / "b", Cache(tmp_path / "c")
    for name in ("one", "two", "three"):
        key = KEY._replace(name=name)
        cache.put(key, Cached({"from": "cache"}, "http://r", None, 0))
        if name != "three":
            put(second, {"from": "second"}, key)
    put(first, {"from": "first"}, KEY._replace(name="one"))
    put(first, {"from": "first"}, parse(BUNDLED))
    look = Lookup([first, second], cache, clock)
    found = [look(KEY._replace(name=name).uri) for name in ("one", "two", "three", "four")]
    assert found == [{"from": "first"}, {"from": "second"}, {"from": "cache"}, None]
    assert (look(BUNDLED) or {})["self"]
    assert look.source(BUNDLED) == "bundled"
    assert look.source(KEY._replace(name="one").uri) == str(layout.place(first, KEY._replace(name="one")))
    assert look.source(READING) is None
    every = look.every()
    assert [every[KEY._replace(name=name)] for name in ("one", "two", "three")] == [str(first), str(second), "http://r"]


@pytest.mark.parametrize("uri", ["", "x", "iglu:../a/b/1-0-0", "iglu:./a/b/1-0-0", "iglu:a/b/c/1-0", "iglu:a/../c/1-0-0"])
def test_what_is_no_uri_is_unknown_and_not_waited_for(tmp_path: Path, uri: str) -> None:
    look = Lookup([tmp_path])
    assert look(uri) is None
    assert look.unknown() == []


def test_unknown_stays_unknown_for_a_moment_without_a_look(tmp_path: Path, clock: Clock) -> None:
    look = Lookup([tmp_path], None, clock)
    assert look(READING) is None
    put(tmp_path, {"n": 1})
    assert look(READING) is None  # so the folder was not looked at: this is asked at each event
    clock.now += LOOK_EVERY_S
    assert look(READING) == {"n": 1}


def test_what_appeared_or_changed_is_told_once(tmp_path: Path, clock: Clock) -> None:
    look = Lookup([tmp_path], None, clock)
    look(READING)
    assert look.changes(0) == (0, frozenset())
    put(tmp_path, {"n": 1})
    look.look()
    mark, changed = look.changes(0)
    assert changed == {READING}
    assert look.changes(mark) == (mark, frozenset())
    assert look.unknown() == []
    put(tmp_path, {"n": 2})
    look.look()
    assert look.changes(mark)[1] == {READING}
    assert look(READING) == {"n": 2}
    mark, _ = look.changes(0)
    put(tmp_path, {"n": 2})  # touched, not changed
    look.look()
    assert look.changes(mark)[1] == set()


def test_what_is_known_at_first_sight_is_no_change(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path, {"n": 1})
    look = Lookup([tmp_path], None, clock)
    assert look(READING) == {"n": 1}
    look.look()
    assert look.changes(0) == (0, frozenset())


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": NaN}', '{"a": "\\ud800"}', "", None])
def test_file_that_is_damaged_or_gone_leaves_what_was_read(
    tmp_path: Path, clock: Clock, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    place = put(tmp_path, {"n": 1})
    look = Lookup([tmp_path], None, clock)
    look(READING)
    if damage is None:
        place.unlink()
    else:
        put(tmp_path, damage)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            look.look()
    assert look(READING) == {"n": 1}
    assert len(caplog.records) == (damage is not None)  # said once
    put(tmp_path, {"n": 2})
    look.look()
    assert look(READING) == {"n": 2}


def test_damaged_file_does_not_hide_the_next_folder(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "a", "{")
    look = Lookup([tmp_path / "a", tmp_path / "b"], None, clock)
    assert look(READING) is None
    put(tmp_path / "b", {"n": 1})
    look.look()
    assert look(READING) == {"n": 1}


def test_damaged_cache_counts_as_empty(tmp_path: Path, clock: Clock) -> None:
    cache = Cache(tmp_path)
    for text in ("{", "[]", '{"document": 3, "registry": "r", "checked_ms": 1}', '{"document": {}}'):
        put(tmp_path, text)
        assert cache.get(KEY) is None
        assert Lookup([], cache, clock)(READING) is None
    assert cache.put(KEY, Cached({"n": 1}, "r", "e", 5))
    assert cache.get(KEY) == Cached({"n": 1}, "r", "e", 5)


def test_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not Cache(tmp_path / "file").put(KEY, Cached({}, "r", None, 0))


def test_hostile_names_are_bounded_and_the_newest_stay(tmp_path: Path, clock: Clock) -> None:
    look = Lookup([tmp_path], None, clock)
    for number in range(5_000):
        look(f"iglu:com.acme/n{number}/jsonschema/1-0-0")
    look(READING)
    assert len(look.unknown()) == 1_000
    assert look.unknown()[-1] == KEY


def test_many_threads_may_ask(tmp_path: Path) -> None:
    now = Clock()
    look = Lookup([tmp_path], None, now)
    found: list[Any] = []
    ready = threading.Barrier(5)

    def ask() -> None:
        ready.wait()
        for number in range(300):
            look(f"iglu:com.acme/n{number}/jsonschema/1-0-0")
            now.now += 0.5
            if number == 150:
                put(tmp_path, {"n": 1}, KEY._replace(name=f"t{threading.get_ident()}"))
            look.look() if number % 50 == 0 else None
        found.append(look(KEY._replace(name=f"t{threading.get_ident()}").uri))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait()
    for thread in threads:
        thread.join()
    assert found == [{"n": 1}] * 4


def test_document_says_that_a_newer_one_supersedes_it(tmp_path: Path, clock: Clock) -> None:
    look = Lookup([tmp_path / "a", tmp_path / "b"], None, clock)
    put(tmp_path / "a", {"type": "object"})
    assert look(READING) == {"type": "object"}
    mark, _ = look.changes(0)
    put(tmp_path / "a", {"$supersedes": ["1-0-0"]}, KEY._replace(addition=2))
    put(tmp_path / "b", {"$supersedes": ["1-0-0", "1-0-2"]}, KEY._replace(addition=10))
    put(tmp_path / "b", {"$supersedes": ["1-0-1"]}, KEY._replace(addition=11))
    put(tmp_path / "b", {"$supersedes": ["1-0-0"]}, KEY._replace(name="other", addition=12))
    clock.now += LOOK_EVERY_S
    assert look(READING) == {"type": "object", "$supersededBy": "1-0-10"}
    assert look.changes(mark)[1] == {READING}
    assert look(KEY._replace(addition=10).uri) == {"$supersedes": ["1-0-0", "1-0-2"]}
    assert look.source(READING) == str(layout.place(tmp_path / "a", KEY))


def test_older_schema_supersedes_nothing_and_its_own_word_counts(tmp_path: Path, clock: Clock) -> None:
    look = Lookup([tmp_path], None, clock)
    newest = KEY._replace(addition=3)
    put(tmp_path, {"$supersedes": ["1-0-3"]})
    put(tmp_path, {"$supersededBy": "1-0-4"}, newest)
    put(tmp_path, {"$supersedes": ["1-0-3"]}, KEY._replace(addition=5))
    assert look(newest.uri) == {"$supersededBy": "1-0-4"}
    assert look(READING) == {"$supersedes": ["1-0-3"]}


def test_superseding_schema_that_cannot_be_read_is_passed_over(tmp_path: Path, clock: Clock) -> None:
    look = Lookup([tmp_path], None, clock)
    put(tmp_path, {"type": "object"})
    put(tmp_path, "{", KEY._replace(addition=1))
    put(tmp_path, {"$supersedes": "1-0-0"}, KEY._replace(addition=2))
    assert look(READING) == {"type": "object"}


def test_event_is_written_down_with_the_version_that_supersedes(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path, {"type": "object", "required": ["a"]})
    put(tmp_path, {"type": "object", "$supersedes": ["1-0-0"]}, KEY._replace(addition=1))
    pipeline = Pipeline(Options(), Lookup([tmp_path], None, clock), [])
    described = json.dumps({"schema": UNSTRUCT, "data": {"schema": READING, "data": {}}})
    payload = RawPayload("0" * 32, 0, "http", "/i", query="e=ue&p=srv&tv=t&ue_pr=" + quote(described))
    (event,) = pipeline.outcomes(payload, 0)
    assert not isinstance(event, FailedEvent)
    assert event["unstruct_event"] == {"schema": KEY._replace(addition=1).uri, "data": {}}
    assert [one["data"] for one in event["derived_contexts"]] == [{"originalSchema": READING, "validatedWith": "1-0-1"}]
