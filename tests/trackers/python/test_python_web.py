"""The WSGI middleware with apps as the standard allows them: those that answer at once, and those that do when they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from spoorway_tracker import Tracker, current_subject
from spoorway_tracker.integrations.wsgi import Middleware
from tests.trackers.python.answering import Answering

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
COOKIE = "_sp_id.1=duid.1.2.3.4.sid"
HTML = [("Content-Type", "text/html")]


@pytest.fixture
def tracker(answering: Answering) -> Iterator[Tracker]:
    with Tracker(answering.url, "app", folder=None, background=False) as made:
        yield made


def asked(app: App, path: str = "/ducks") -> bytes:
    """One request through the standard's own checker on both sides of nothing but the middleware."""
    environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_COOKIE": COOKIE, "QUERY_STRING": "", "SCRIPT_NAME": ""}
    setup_testing_defaults(environ)
    body = validator(app)(environ, lambda status, headers, error=None: lambda data: None)
    try:
        return b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]


def sent(tracker: Tracker, answering: Answering) -> list[tuple[str, Any]]:
    """(kind, what) of every event; all of them must be the visitor's."""
    assert tracker.flush(5)
    events = [event for one in answering.asked for event in one.events]
    assert {(event["duid"], event["sid"], event["vid"]) for event in events} <= {("duid", "sid", "2")}
    told: list[tuple[str, Any]] = []
    for event in events:
        data = json.loads(event["ue_pr"])["data"]["data"] if event["e"] == "ue" else {}
        told.append((event["e"], data.get("variable") or data.get("message") or event.get("url") or event.get("se_ac")))
        assert "timing" not in data or data["label"] == "200"
    return told


def test_app_that_is_a_generator_is_tracked_under_its_visitor(tracker: Tracker, answering: Answering) -> None:
    closed: list[bool] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        try:
            start_response("200 OK", HTML)
            yield b"<h1>"
            tracker.track_structured("duck", "seen")
            yield b""
            yield b"duck"
        finally:
            closed.append(True)

    assert asked(validator(Middleware(app, tracker))) == b"<h1>duck"
    assert closed == [True] and current_subject.get() is None
    assert sent(tracker, answering) == [("se", "seen"), ("pv", "http://127.0.0.1/ducks"), ("ue", "GET /ducks")]


def test_error_in_a_generator_is_told_and_raised(tracker: Tracker, answering: Answering) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", HTML)
        yield b"<h1>"
        raise RuntimeError("no ducks")

    with pytest.raises(RuntimeError, match="no ducks"):
        asked(Middleware(app, tracker))
    assert sent(tracker, answering) == [("ue", "no ducks")]


def test_body_that_was_answered_at_once_is_handed_on_as_it_is(tracker: Tracker, answering: Answering) -> None:
    """So that a server may send a file by itself."""
    body = [b"duck"]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["spoorway.route"] = "/<duck>"
        start_response("200 OK", [("Content-Type", "image/png")])
        return body

    assert Middleware(app, tracker)({"HTTP_COOKIE": COOKIE, "HTTP_HOST": "x", "wsgi.url_scheme": "http"}, lambda *_: None) is body
    assert [kind for kind, _ in sent(tracker, answering)] == ["ue"]  # a picture is no page
    assert json.loads(answering.asked[0].events[0]["ue_pr"])["data"]["data"]["variable"] == "GET /<duck>"


def test_path_that_is_skipped_is_not_tracked(tracker: Tracker, answering: Answering) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", HTML)
        return [b"ok"]

    skipping = Middleware(app, tracker, skip=lambda path: path == "/health")
    assert asked(skipping, "/health") == b"ok" and sent(tracker, answering) == []
    assert asked(skipping) == b"ok" and len(sent(tracker, answering)) == 2
