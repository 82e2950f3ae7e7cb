"""Web look-ups: what is asked, what becomes of the answer, and every way a service can misbehave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.enrichments import Unanswered, WebRequest
from enrich.enrichments.http_lookup import Config, Plugin
from protocol.seams import ConfigurationError, Decimal, Event, Reason
from spoorway.fetching import Web
from spoorway.world import World
from tests.unit.enrichment_world import Service, Stopwatch, raw, service

THING = "iglu:com.acme/thing/jsonschema/1-0-0"
DEVICE = "contexts iglu:com.acme/device/jsonschema/1-*-* $.id"
EVENT: Event = {
    "user_id": "ann@example.com/?#&ä",
    "se_value": Decimal("1.50"),
    "contexts": [{"schema": "iglu:com.acme/device/jsonschema/1-2-0", "data": {"id": 17}}],
}


@pytest.fixture(name="site")
def _site() -> Iterator[Service]:
    with service() as found:
        yield found


def plugin(site: Service, url: str, world: World | None = None, **options: Any) -> Plugin:
    given = {"inputs": {"user": "user_id"} if "{{user}}" in url else {}, "schema": THING, "timeout_s": 0.3, **options}
    return Plugin(Config(url=site.url + url, **given), world or World())


def failure(answer: Event | Reason) -> str:
    assert isinstance(answer, Reason), answer
    return answer.message


def entity(answer: Event | Reason) -> Any:
    assert isinstance(answer, dict), answer
    (found,) = answer["derived_contexts"]
    assert found["schema"] == THING
    return found["data"]


def test_values_are_encoded_into_path_and_query(site: Service) -> None:
    made = plugin(
        site,
        "/users/{{user}}/x?device={{device}}&value={{ value }}",
        inputs={"user": "user_id", "device": DEVICE, "value": "se_value"},
        path="$.found[0]",
        columns={"mkt_source": "$.query.device"},
    )
    answer = made(EVENT, raw())
    encoded = "/users/ann%40example.com%2F%3F%23%26%C3%A4/x?device=17&value=1.50"
    assert site.paths == [encoded]
    assert entity(answer) == {"path": encoded, "query": {"device": "17", "value": "1.50"}, "body": ""}
    assert isinstance(answer, dict) and answer["mkt_source"] == "17"


def test_post_carries_values_as_json(site: Service) -> None:
    made = plugin(
        site,
        "/x",
        body='{"who": {{user}}, "device": {{device}}}',
        inputs={"user": "user_id", "device": DEVICE},
        path="$.found[0].body",
    )
    quote: Event = {**EVENT, "user_id": '", "admin": true, "x": "'}
    assert json.loads(entity(made(quote, raw()))) == {"who": '", "admin": true, "x": "', "device": 17}
    (method, _, _, headers) = site.asked[0]
    assert (method, headers["Content-Type"]) == ("POST", "application/json")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"token": "t"}, "Bearer t"),
        ({"username": "u", "password": "p"}, "Basic dTpw"),
        ({"headers": {"Authorization": "Key k"}}, "Key k"),
    ],
)
def test_service_is_told_who_asks(site: Service, options: dict[str, Any], expected: str) -> None:
    plugin(site, "/x", **options)({}, raw())
    assert site.asked[0][3]["Authorization"] == expected


def test_nothing_is_asked_without_the_value(site: Service) -> None:
    assert plugin(site, "/{{user}}")({"app_id": "x"}, raw()) == {}
    assert site.asked == []


@pytest.mark.parametrize("value", [".", ".."])
def test_value_cannot_climb_up(site: Service, value: str) -> None:
    made = plugin(site, "/a/b/{{user}}/c")
    assert "no part of a URL" in failure(made({"user_id": value}, raw()))
    assert site.asked == []


@settings(max_examples=150, deadline=None)
@given(value=st.text())
def test_any_value_keeps_host_and_path(value: str) -> None:
    asked: list[str] = []

    class Recorder(World):
        def web(self, timeout_s: float, most_bytes: int, per_second: float) -> Any:
            def ask(request: WebRequest) -> Any:
                asked.append(request.url)
                raise Unanswered("recorded")

            return ask

    config = Config(url="http://h:1/a/{{user}}/c?q={{user}}", inputs={"user": "user_id"}, schema=THING, cache_size=0)
    answer = Plugin(config, Recorder())({"user_id": value}, raw())
    assert isinstance(answer, Reason)
    if asked:
        parts = urlsplit(asked[0])
        assert (parts.netloc, parts.path.count("/"), parts.fragment) == ("h:1", 3, "")
        assert asked[0].isascii() and asked[0].isprintable() and " " not in asked[0]
        assert unquote(parts.path.split("/")[2]) == value.encode("utf-8", "replace").decode()
    else:
        assert value in (".", "..") or len(value) > 300


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/status?code=500", "status 500"),
        ("/status?code=404", "status 404"),
        ("/hang", "no answer from 127.0.0.1 within 0.3 s"),
        ("/drop", "no answer from 127.0.0.1 within 0.3 s"),
        ("/header-drop", "no answer from 127.0.0.1 within 0.3 s"),
        ("/huge", "larger than 100000 bytes"),
        ("/endless", "larger than 100000 bytes"),
        ("/gzip", "compressed"),
        ("/rubbish", "BadStatusLine"),
        ("/half", "IncompleteRead"),
        ("/text?t=", "not JSON"),
        ("/text?t=%7B", "not JSON"),
        ("/text?t=" + "%5B" * 1000 + "%5D" * 1000, "not JSON"),
        ("/to?url=http://example.com/", "a redirect to 'example.com' is not followed"),
        ("/to?url=//example.com/", "a redirect to 'example.com' is not followed"),
        ("/to?url=https://127.0.0.1/", "a redirect to '127.0.0.1' is not followed"),
        ("/to?url=file:///etc/passwd", "is not followed"),
        ("/to?url=http://localhost:1/", "a redirect to 'localhost:1' is not followed"),
        ("/circle", "more than 3 redirects"),
        ("/to?url=", "more than 3 redirects"),
    ],
)
def test_service_that_misbehaves_is_a_reason_in_time(site: Service, url: str, expected: str) -> None:
    made = plugin(site, url)
    with Stopwatch() as watch:
        message = failure(made(EVENT, raw()))
    assert expected in message
    assert watch.seconds < 10  # none of them would end by itself


def test_service_that_is_not_there_is_a_reason() -> None:
    with service() as gone:
        pass
    assert "ConnectionRefusedError" in failure(plugin(gone, "/x")(EVENT, raw()))


def test_redirect_on_the_same_host_is_followed_for_get_only(site: Service) -> None:
    assert entity(plugin(site, "/to?url=/there", path="$.found[0].path")(EVENT, raw())) == "/there"
    assert "is not followed" in failure(plugin(site, "/to?url=/there", body="{}")(EVENT, raw()))


@pytest.mark.parametrize("url", ["/status?code=404", "/status?code=204"])
def test_status_may_mean_that_nothing_is_known(site: Service, url: str) -> None:
    assert plugin(site, url, nothing_status=(404,))(EVENT, raw()) == {}


def test_path_that_leads_nowhere_adds_nothing(site: Service) -> None:
    assert plugin(site, "/x", path="$.nowhere")(EVENT, raw()) == {}


def test_answer_of_the_wrong_type_is_a_reason(site: Service) -> None:
    made = plugin(site, "/text?t={{user}}", schema="", columns={"geo_latitude": "$.lat"})
    assert failure(made({"user_id": '{"lat": "north"}'}, raw())) == "geo_latitude: expected a decimal number"
    assert made({"user_id": '{"lat": 52.5}'}, raw()) == {"geo_latitude": 52.5}


def test_same_question_is_asked_once_until_it_is_old(site: Service) -> None:
    now = [0.0]
    made = plugin(site, "/{{user}}", World(lambda: now[0]), cache_ttl_s=60, cache_size=2)
    for user in ("a", "b", "a", "b"):
        made({"user_id": user}, raw())
    assert site.paths == ["/a", "/b"]
    now[0] = 61
    made({"user_id": "a"}, raw())
    assert site.paths == ["/a", "/b", "/a"]
    made({"user_id": "c"}, raw())  # pushes out the one not used for longest
    made({"user_id": "a"}, raw())
    assert site.paths == ["/a", "/b", "/a", "/c"]


def test_remembered_answer_is_not_changed_by_what_an_event_does_to_it(site: Service) -> None:
    made = plugin(site, "/x")
    first = made(EVENT, raw())
    assert isinstance(first, dict)
    first["app_id"] = "changed"
    assert "app_id" not in made(EVENT, raw())  # type: ignore[operator]


def test_connection_is_kept_and_a_closed_one_is_made_anew(site: Service) -> None:
    web = Web(0.5, 1_000, 0)
    for path in ("/x", "/close", "/close", "/x", "/x"):
        assert web(WebRequest(site.url + path)).status == 200
    assert len({headers["Host"] for *_, headers in site.asked}) == 1


def test_service_that_keeps_failing_is_left_alone_for_a_while(site: Service) -> None:
    now = [0.0]
    web = Web(0.5, 1_000, 0, clock=lambda: now[0])
    for _ in range(5):
        assert web(WebRequest(f"{site.url}/status?code=503")).status == 503
    with pytest.raises(Unanswered, match="failed 5 times in a row"):
        web(WebRequest(f"{site.url}/x"))
    assert len(site.asked) == 5
    now[0] = 11
    assert web(WebRequest(f"{site.url}/x")).status == 200
    assert web(WebRequest(f"{site.url}/x")).status == 200


def test_more_questions_than_allowed_wait_for_their_turn(site: Service) -> None:
    slept: list[float] = []
    web = Web(0.5, 1_000, 4, clock=lambda: 0.0, sleep=slept.append)
    for _ in range(3):
        web(WebRequest(f"{site.url}/x"))
    assert slept == [0.25, 0.5]


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "//h/x", "http:///x"])
def test_only_http_is_asked(url: str) -> None:
    with pytest.raises(Unanswered):
        Web(0.5, 1_000, 0)(WebRequest(url))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"url": ""}, "expected http://"),
        ({"url": "ftp://h/"}, "expected http://"),
        ({"url": "http://u:p@h/"}, "without user and password"),
        ({"url": "http://{{user}}/", "inputs": {"user": "user_id"}}, "must not choose the host"),
        ({"url": "http://h{{user}}.example/", "inputs": {"user": "user_id"}}, "must not choose the host"),
        ({"url": "http://h/ x"}, "without spaces"),
        ({"url": "http://h/\n"}, "without spaces|expected http"),
        ({"url": "http://h/{{x}}"}, "x: in inputs or in"),
        ({"url": "http://h/", "inputs": {"x": "user_id"}}, "x: in inputs or in"),
        ({"url": "http://h/{{x}}", "inputs": {"x": "no_column"}}, "neither a column nor"),
        ({"url": "http://h/{{x}}", "inputs": {"x": "contexts foo $.x"}}, "is no schema such as"),
        ({"url": "http://h/", "body": "{"}, "no JSON once"),
        ({"url": "http://h/", "headers": {"a b": "x"}}, "is no header"),
        ({"url": "http://h/", "headers": {"a": "x\r\nb: y"}}, "is no header"),
        ({"url": "http://h/", "schema": "acme"}, "is no schema"),
        ({"url": "http://h/", "schema": ""}, "say what becomes"),
        ({"url": "http://h/", "path": "found"}, "a path begins with"),
        ({"url": "http://h/", "columns": {"event_id": "$"}}, "cannot be filled"),
    ],
)
def test_mistake_is_found_at_the_start(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Plugin(Config(**{"schema": THING, **options}), World())
