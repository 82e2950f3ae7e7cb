"""What holds of every enrichment that looks something up: it never raises, changes nothing else, and adds only what is valid."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enrich import pages
from enrich.enrichments import Enrichment, RawEvent, bots, client_hints, cross_navigation, geo_ip, referer, user_agent
from enrich.lengths import LIMITS, Lengths
from enrich.validators import Validators
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, Event, RawPayload
from spoorway.world import World

VALIDATORS = Validators(bundled)
NOBODY = World()

# What each may fill, besides derived_contexts; nothing else is its business.
OWN = {
    "referer": {"refr_medium", "refr_source", "refr_term"},
    "user_agent": {
        *("br_family", "br_name", "br_version", "os_family", "os_name", "os_manufacturer", "dvce_type", "dvce_ismobile"),
    },
    "client_hints": set[str](),
    "bots": set[str](),
    "cross_navigation": set[str](),
    "geo_ip": set[str](),
}


@cache
def plugin(name: str) -> Enrichment:
    module: Any = {
        "referer": referer,
        "user_agent": user_agent,
        "client_hints": client_hints,
        "bots": bots,
        "cross_navigation": cross_navigation,
        "geo_ip": geo_ip,
    }[name]
    made: Enrichment = module.Plugin(module.Config(), NOBODY)
    return made


def raw(headers: tuple[tuple[str, str], ...] = ()) -> RawEvent:
    return RawEvent(RawPayload("0" * 32, 0, "http", "/i", headers=headers), 0, {})


def looked_up(name: str, event: Event, headers: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """What the enrichment adds, after all that must hold of it was checked."""
    before = copy.deepcopy(event)
    found = plugin(name)(event, raw(headers))
    assert isinstance(found, dict)
    assert event == before
    assert found.keys() <= OWN[name] | {"derived_contexts"}
    assert all(value is not None and value != "" for value in found.values())
    assert Lengths(LIMITS)(found) == []
    for entity in found.get("derived_contexts", ()):
        assert not VALIDATORS.reasons(entity["schema"], entity["data"], "derived_contexts"), entity
    assert plugin(name)(before, raw(headers)) == found  # from what was kept
    return dict(found)


# The lists are read, and rules compiled, at the first look-up.
slow_at_first = settings(deadline=None)

ANY = st.text(max_size=200) | st.text(alphabet="abc.:/?&=;%_-{}\t\x00é😀", max_size=80)
HOSTS = st.sampled_from(
    ["www.google.com", "google.co.uk", "t.co", "x.com", "chatgpt.com", "a.b.example", "com.google.android.gm", "."]
)
AGENTS = st.sampled_from(
    ["Mozilla/5.0 (Windows NT 10.0)", "Googlebot/2.1", "Chrome/1.2.3.4", "Android 14; Mobile", "xBot/", "iPad"]
)


@slow_at_first
@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("refr_urlhost", "page_urlhost", "refr_urlpath", "refr_urlquery"), ANY | HOSTS)
    ),
    ANY,
)
def test_any_referrer_is_looked_up(event: dict[str, str], scheme: str) -> None:
    for name in ("https", scheme):
        looked_up("referer", cast(Event, {**event, "refr_urlscheme": name}))


@slow_at_first
@given(HOSTS | ANY, ANY, st.sampled_from(["q", "p", "text", "query"]), ANY)
def test_any_referrer_that_parses_is_classified(host: str, path: str, name: str, words: str) -> None:
    event = cast(Event, {"page_referrer": f"https://{host}/{path}?{name}={words}"})
    if pages.referrer(event) or "refr_urlhost" not in event:
        return
    found = looked_up("referer", event)
    assert found["refr_medium"] in {"search", "social", "email", "paid", "chatbot", "unknown", "internal"}
    assert ("refr_source" in found) == (found["refr_medium"] not in {"unknown", "internal"})
    assert "refr_term" not in found or found["refr_medium"] == "search"


@slow_at_first
@given(ANY | st.lists(AGENTS | ANY, max_size=20).map(" ".join))
@example("Mozilla/5.0 (compatible; " + "y" * 90 + "bot/9)")
@example("Dalvik/2.1.0 (Linux; U; Android 5.1; \x00\t Build/LMY47D)")
def test_any_user_agent_is_read(agent: str) -> None:
    looked_up("user_agent", {"useragent": agent})
    looked_up("bots", {"useragent": agent})


@slow_at_first
@given(st.lists(st.tuples(st.just("Sec-CH-UA"), ANY | st.text('" \\;v=,Ch1.', max_size=60)), max_size=2), ANY)
@example([("Sec-CH-UA", '"' + "a" * 5_000 + '";v="1", "b";v="2"')], '"x"')
@example([("Sec-CH-UA", '"a";v="' + "1" * 200 + '"')], '"' + "m" * 5_000 + '"')
def test_any_client_hints_are_read(brands: list[tuple[str, str]], other: str) -> None:
    rest = tuple((f"Sec-CH-UA{name}", other) for name in ("-Platform", "-Arch", "-Model", "-Full-Version", "-Platform-Version"))
    looked_up("client_hints", {}, (*brands, ("Sec-CH-UA-Mobile", "?1"), *rest))
    looked_up("client_hints", {}, (*brands, ("Sec-CH-UA-Mobile", other), *rest))


@slow_at_first
@given(st.lists(ANY | st.text("abcdefABC019-_", max_size=60), min_size=1, max_size=8), st.integers(-(2**63), 2**63), ANY)
@example(["", "", "", "YQ" * 4_000], 0, "a" * 129)
@example(["a", "1"], -62_167_219_200_000, "a")
def test_any_decorated_link_is_read(parts: list[str], clicked_ms: int, user: str) -> None:
    event = Event(refr_domain_userid=user, refr_dvce_tstamp=clicked_ms, page_urlquery="_sp=" + ".".join(parts))
    if user:
        looked_up("cross_navigation", event)


@slow_at_first
@given(ANY | st.ip_addresses().map(str))
def test_any_address_is_looked_up_in_nothing(ip: str) -> None:
    assert looked_up("geo_ip", {"user_ipaddress": ip}) == {}


# A list of one's own


def changing(tmp_path: Path, first: bytes) -> tuple[Path, World, Callable[[], None]]:
    """A file, a world that watches it, and what makes the world look again."""
    moment = [0.0]

    def later() -> None:
        moment[0] += 3_600

    path = tmp_path / "list.json"
    path.write_bytes(first)
    return path, World(lambda: moment[0]), later


def referers(domain: str, **more: object) -> bytes:
    return json.dumps({"media": {"press": {"The Times": {"domains": [domain], **more}}}}).encode()


def test_list_of_referrers_is_read_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path, world, later = changing(tmp_path, referers("times.example"))
    step = referer.Plugin(referer.Config(database=str(path)), world)

    def medium(host: str) -> object:
        found = step({"refr_urlscheme": "https", "refr_urlhost": host}, raw())
        return found["refr_medium"] if isinstance(found, dict) and "refr_medium" in found else None

    assert (medium("www.times.example"), medium("www.google.com")) == ("press", "unknown")
    path.write_bytes(referers("courier.example"))
    later()
    assert (medium("times.example"), medium("courier.example")) == ("unknown", "press")
    path.write_bytes(b'{"media": {"press": ')
    later()
    assert medium("courier.example") == "press"


def test_list_of_robots_is_read_again(tmp_path: Path) -> None:
    def rules(text: str) -> bytes:
        return json.dumps({"date": "2026-01-01", "rules": [{"text": text}]}).encode()

    path, world, later = changing(tmp_path, rules("Snail"))
    step = bots.Plugin(bots.Config(database=str(path)), world)

    def labelled(agent: str) -> bool:
        return bool(step({"useragent": agent}, raw()))

    assert (labelled("Snail/1"), labelled("Slug/1"), labelled("Googlebot/2.1")) == (True, False, False)
    path.write_bytes(rules("Slug/"))
    later()
    assert (labelled("Snail/1"), labelled("Slug/1")) == (False, True)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"media": []}',
        b'{"media": {"a": {"b": {}}}}',
        b'{"media": {"a": {"b": 1}}}',
        referers("x", parameters=5),
        b"\xff",
    ],
)
def test_broken_list_of_referrers_stops_the_start(tmp_path: Path, text: bytes) -> None:
    path, world, _ = changing(tmp_path, text)
    with pytest.raises(ConfigurationError, match=r"list\.json"):
        referer.Plugin(referer.Config(database=str(path)), world)


def test_name_that_fits_no_column_stops_the_start(tmp_path: Path) -> None:
    path, world, _ = changing(tmp_path, json.dumps({"media": {"m" * 26: {"x": {"domains": []}}}}).encode())
    with pytest.raises(ConfigurationError, match="does not fit into refr_medium"):
        referer.Plugin(referer.Config(database=str(path)), world)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'{"date": "x", "rules": [{}]}',
        b'{"date": "x", "rules": [{"pattern": "("}]}',
        b'{"date": "x", "rules": [{"text": ""}]}',
    ],
)
def test_broken_list_of_robots_stops_the_start(tmp_path: Path, text: bytes) -> None:
    path, world, _ = changing(tmp_path, text)
    with pytest.raises(ConfigurationError, match=r"list\.json"):
        bots.Plugin(bots.Config(database=str(path)), world)


# Options


def medium(config: referer.Config, host: str, page: str = "www.shop.example") -> object:
    found = referer.Plugin(config, NOBODY)({"refr_urlscheme": "https", "refr_urlhost": host, "page_urlhost": page}, raw())
    assert isinstance(found, dict)
    return found.get("refr_medium")


def test_internal_domains_are_yours() -> None:
    config = referer.Config(internal_domains=("Shop.example", "*.pages.example"))
    inside = ("shop.example", "SHOP.EXAMPLE", "a.pages.example", "a.b.pages.example", "www.shop.example")
    outside = ("pages.example", "evilpages.example", "blog.shop.example", "notshop.example")
    assert {medium(config, host) for host in inside} == {"internal"}
    assert {medium(config, host) for host in outside} == {"unknown"}


def labels(config: bots.Config, **event: Any) -> list[Any]:
    found = bots.Plugin(config, NOBODY)(cast(Event, event), raw())
    assert isinstance(found, dict)
    return [entity["data"] for entity in found.get("derived_contexts", ())]


def test_ignored_rule_does_not_fire() -> None:
    agent = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
    assert [label["rule"] for label in labels(bots.Config(), useragent=agent)] == ["GoogleImageProxy"]
    assert labels(bots.Config(ignore=("GoogleImageProxy",)), useragent=agent) == []


def test_longest_rule_that_fires_is_the_one_named() -> None:
    rules = [{"text": "Snail"}, {"pattern": "Snail-[A-Z]"}, {"text": "Snail-Deluxe"}, {"text": "Nail"}]
    first = bots.read(json.dumps({"date": "2026-01-01", "rules": rules}).encode()).first
    fired = [rule and rule.text for rule in map(first, ("Snail-Deluxe", "Snail-X", "Snail/1", "Slug"))]
    assert fired == ["Snail-Deluxe", "Snail-[A-Z]", "Snail", None]


def test_network_of_robots_is_a_label_of_its_own() -> None:
    def asn(likely: object) -> list[Any]:
        data = {"number": 64_496, "organization": "Example Cloud", "likelyBot": likely}
        return [{"schema": "iglu:com.snowplowanalytics.snowplow/asn/jsonschema/1-0-1", "data": data}]

    assert labels(bots.Config(), derived_contexts=asn(True)) == [
        {"source": "network", "rule": "asn", "kind": "Example Cloud", "listDate": None}
    ]
    assert labels(bots.Config(), derived_contexts=asn(False)) == labels(bots.Config(), derived_contexts=asn("true")) == []


def test_platforms_say_who_is_looked_at() -> None:
    assert labels(bots.Config(), platform="mob", useragent="okhttp/4.9") == []
    assert [label["kind"] for label in labels(bots.Config(platforms=("mob",)), platform="mob", useragent="okhttp/4.9")] == [
        "http-library"
    ]


@pytest.mark.parametrize(
    ("module", "config", "package", "extra"),
    [(geo_ip, geo_ip.Config(city=("x",)), "maxminddb", "geo"), (user_agent, user_agent.Config(), "ua_parser", "ua")],
)
def test_missing_package_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: Any, config: Any, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"needs the package {package}; install spoorway\[{extra}\]"):
        module.Plugin(config, NOBODY)


def test_geo_ip_without_a_file_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    assert geo_ip.Plugin(geo_ip.Config(), NOBODY)({"user_ipaddress": "192.0.2.1"}, raw()) == {}


def test_columns_of_the_user_agent_may_be_left_alone() -> None:
    step = user_agent.Plugin(user_agent.Config(columns=False), NOBODY)
    found = step({"useragent": "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X)"}, raw())
    assert isinstance(found, dict) and found.keys() == {"derived_contexts"}


# The lists that come along

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
IOS = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
BROWSERS = (
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {IOS} Version/17.6 Safari/605.1.15",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) {IOS} CriOS/131.0 Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (Linux; Android 14; SM-S921B) {WEBKIT} SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {IOS} Mobile/15E148 Instagram 334.0.4.32.98 (iPhone14,5; iOS 17_5)",
    f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/130.0.0.0 Safari/537.36 OPR/115.0.0.0",
    f"Mozilla/5.0 (Linux; Android 13; CUBOT X30) {WEBKIT} Chrome/120.0.0.0 Mobile Safari/537.36",
)


@pytest.mark.parametrize("agent", BROWSERS, ids=range(len(BROWSERS)))
def test_people_are_no_robots(agent: str) -> None:
    assert labels(bots.Config(), useragent=agent) == []


@pytest.mark.parametrize("name", ["referers.json", "bots.json"])
def test_list_says_its_date_and_its_licence(name: str) -> None:
    document = json.loads((Path(bots.__file__).parents[1] / "data" / name).read_text("utf-8"))
    assert len(document["date"]) == 10 and document["licence"]


def test_every_domain_of_the_list_is_found_as_what_it_is() -> None:
    document = json.loads((Path(referer.__file__).parents[1] / "data" / "referers.json").read_text("utf-8"))
    step = referer.Plugin(referer.Config(), NOBODY)
    seen: set[str] = set()
    for kind, sources in document["media"].items():
        for source, facts in sources.items():
            for domain in facts["domains"]:
                assert domain not in seen
                seen.add(domain)
                host, slash, path = domain.replace("{}", "xy").partition("/")
                event = Event(refr_urlscheme="https", refr_urlhost=f"www.{host}", refr_urlpath=slash + path)
                expected = {"refr_medium": kind} | ({} if kind == "unknown" else {"refr_source": source})
                assert step(event, raw()) == expected, domain
    assert len(seen) > 900
