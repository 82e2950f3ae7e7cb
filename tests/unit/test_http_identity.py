"""Who a request says it is: network user id, cookies, anonymity, client address."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway.http.client_address import ClientAddresses, parse_address
from gateway.http.identity import NIL_UUID
from gateway.transports.http import Config, Cookie, Plugin
from protocol.seams import ConfigurationError
from tests.unit.http_site import UUID, Site, served, site

EXPIRES = "Expires=Wed, 13 Nov 2024 22:13:20 GMT"  # 365 days after NOW_NS
ON = Cookie(enabled=True)


@served()
async def test_no_id_is_invented_while_the_cookie_is_off(site: Site) -> None:
    reply = await site.post()
    assert "Set-Cookie" not in reply and site.payload.network_userid is None


@pytest.mark.parametrize(
    ("target", "cookie", "expected"),
    [
        ("/i?nuid=abc", "sp=def", "abc"),
        ("/i?nuid=", "sp=def", "def"),
        ("/i", 'other=1; sp="def"', "def"),
        ("/i?nuid=a%20b", "", "a b"),
        ("/i?x=nuid", "spx=1; asp=2", None),
    ],
)
@served()
async def test_an_id_that_came_is_used_even_while_the_cookie_is_off(
    site: Site, target: str, cookie: str, expected: str | None
) -> None:
    reply = await site.ask(target, Cookie=cookie)
    assert site.payload.network_userid == expected
    assert "Set-Cookie" not in reply


@pytest.mark.parametrize(
    ("target", "cookie", "expected"),
    [("/i?nuid=abc", "sp=def", "abc"), ("/i", "sp=def", "def"), ("/i", "", UUID)],
)
@served(cookie=ON)
async def test_the_cookie_is_set_and_extended(site: Site, target: str, cookie: str, expected: str) -> None:
    reply = await site.ask(target, Cookie=cookie)
    assert reply["Set-Cookie"] == f"sp={expected}; {EXPIRES}; Path=/; Secure; HttpOnly; SameSite=None"
    assert site.payload.network_userid == expected


@served(cookie=Cookie(enabled=True, name="micro", secure=False, http_only=False, same_site="Lax", path="/t", client_name="js"))
async def test_the_cookies_attributes_are_configurable(site: Site) -> None:
    reply = await site.post()
    line = f"{UUID}; {EXPIRES}; Path=/t; SameSite=Lax"
    assert reply.all("Set-Cookie") == [f"micro={line}", f"js={line}"]


@served(cookie=Cookie(enabled=True, secure=False, client_name="js"))
async def test_the_client_cookie_is_readable_by_scripts(site: Site) -> None:
    ours, scripts = (await site.post()).all("Set-Cookie")
    assert "; HttpOnly" in ours and "; HttpOnly" not in scripts


@pytest.mark.parametrize(
    ("origin", "domain"),
    [
        ("https://shop.example", "shop.example"),
        ("https://www.shop.example:8443", "shop.example"),
        ("https://a.b.other.example", "b.other.example"),
        ("https://elsewhere.example https://www.shop.example", "shop.example"),
        ("https://evilshop.example", "fallback.example"),
        ("null", "fallback.example"),
        (None, "fallback.example"),
    ],
)
@served(cookie=Cookie(enabled=True, domains=("shop.example", "b.other.example"), fallback_domain="fallback.example"))
async def test_the_cookies_domain_follows_the_origin(site: Site, origin: str | None, domain: str) -> None:
    reply = await site.post(**({} if origin is None else {"Origin": origin}))
    assert f"; Domain={domain};" in reply["Set-Cookie"]


@pytest.mark.parametrize("nuid", ["a%0d%0aSet-Cookie:%20evil=1", "a%3BDomain=evil.example", "a%20b", "%e4%b8%ad"])
@served(cookie=ON)
async def test_an_id_that_is_no_cookie_value_is_recorded_but_not_set(site: Site, nuid: str) -> None:
    reply = await site.ask(f"/i?nuid={nuid}")
    assert reply.status == 200 and "Set-Cookie" not in reply
    assert site.payload.network_userid


@served(cookie=ON, stored_headers=("User-Agent", "Cookie", "SP-Anonymous"))
async def test_anonymous_requests_leave_no_trace(site: Site) -> None:
    reply = await site.post(
        target="/com.snowplowanalytics.snowplow/tp2?nuid=abc",
        SP_Anonymous="*",
        Cookie="sp=def; other=1",
        User_Agent="UA",
        X_Forwarded_For="192.0.2.1",
        X_Real_IP="192.0.2.1",
        Forwarded="for=192.0.2.1",
    )
    assert reply["Set-Cookie"] == "sp=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=None"
    payload = site.payload
    assert (payload.network_userid, payload.ip) == (NIL_UUID, None)
    assert payload.headers == (("SP-Anonymous", "*"), ("User-Agent", "UA"))


@pytest.mark.parametrize("cookie", ["", "other=1"])
@served(cookie=ON)
async def test_anonymous_requests_without_the_cookie_get_none(site: Site, cookie: str) -> None:
    assert "Set-Cookie" not in await site.post(SP_Anonymous="", Cookie=cookie)
    assert site.payload.network_userid == NIL_UUID


@served(do_not_track_cookie="dnt", do_not_track_pattern="[Yy]es", cookie=ON)
async def test_the_do_not_track_cookie(site: Site) -> None:
    for reply in (await site.post(Cookie="a=b; dnt=yes"), await site.ask("/i", Cookie="dnt=Yes")):
        assert reply.status == 200 and "Set-Cookie" not in reply
    assert site.recorder.payloads == []
    assert site.counters.requests["not_recorded"] == 2
    assert "Set-Cookie" in await site.post(Cookie="dnt=yesno")
    assert len(site.recorder.payloads) == 1


@served(cookie=Cookie(enabled=True, bounce=True, secure=False, expiry_days=36_500))
async def test_the_bounce_with_a_browser_that_keeps_cookies(site: Site) -> None:
    url = URL(f"http://{site.host}:{site.port}/a.vendor/v1?e=pv&u=%C3%A9", encoded=True)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False)) as browser:
        async with browser.get(url) as reply:
            assert (reply.status, [r.status for r in reply.history]) == (200, [302])
            assert reply.url.raw_query_string == "e=pv&u=%C3%A9&n3pc=true"
        async with browser.get(url) as reply:
            assert reply.history == ()
    assert [p.network_userid for p in site.recorder.payloads] == [UUID, UUID]


@served(cookie=Cookie(enabled=True, bounce=True))
async def test_the_bounce_with_a_client_that_keeps_none(site: Site) -> None:
    first = await site.ask("/i")
    assert (first.status, first["Location"]) == (302, "/i?n3pc=true")
    assert f"sp={UUID};" in first["Set-Cookie"] and site.recorder.payloads == []
    await site.ask(first["Location"])
    assert site.payload.network_userid == "00000000-0000-4000-A000-000000000000"
    for reply in (await site.post(), await site.ask("/i?nuid=a"), await site.ask("/i", SP_Anonymous="*")):
        assert reply.status == 200


@pytest.mark.parametrize(
    "options",
    [
        {"cookie": Cookie(name="a b")},
        {"cookie": Cookie(client_name="a;b")},
        {"cookie": Cookie(path="/;x")},
        {"cookie": Cookie(domains=("a\r\nb",))},
        {"cookie": Cookie(same_site="Loose")},
        {"cookie": Cookie(bounce=True)},
        {"cookie": Cookie(bounce_parameter="a&b")},
        {"do_not_track_pattern": "("},
        {"trusted_proxies": ("10.0.0.1/8",)},
        {"trusted_proxies": ("proxy.example",)},
    ],
)
def test_identity_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Plugin(Config(**options))


class Headers:
    def __init__(self, *values: str) -> None:
        self.values = values

    def getall(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        return self.values or default


PROXIES = ("10.0.0.0/8", "192.168.1.1", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("203.0.113.9", ("198.51.100.7",), "203.0.113.9"),
        ("10.1.2.3", (), "10.1.2.3"),
        ("10.1.2.3", ("198.51.100.7",), "198.51.100.7"),
        ("10.1.2.3", ("6.6.6.6, 198.51.100.7",), "198.51.100.7"),
        ("10.1.2.3", ("6.6.6.6, 198.51.100.7, 192.168.1.1", "10.9.9.9"), "198.51.100.7"),
        ("10.1.2.3", ("10.5.5.5, 10.6.6.6",), "10.5.5.5"),
        ("10.1.2.3", ("6.6.6.6, unknown",), None),
        ("10.1.2.3", ("6.6.6.6, " + "1" * 1000,), None),
        ("10.1.2.3", ("198.51.100.7:4711",), "198.51.100.7"),
        ("::ffff:10.1.2.3", ("[2001:db8::7]:80",), "2001:db8::7"),
        ("fd00::1", ("::ffff:198.51.100.7",), "198.51.100.7"),
        (None, ("198.51.100.7",), None),
    ],
)
def test_forwarded_addresses_are_read_from_the_right_through_our_proxies(
    peer: str | None, values: tuple[str, ...], client: str | None
) -> None:
    assert ClientAddresses(PROXIES, "X-Forwarded-For", truncate=False).of(peer, Headers(*values)) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"),
        ('for=6.6.6.6, proto=https;For="[2001:db8::7]:443"', "2001:db8::7"),
        ("for=198.51.100.7, for=10.2.2.2", "198.51.100.7"),
        ("for=6.6.6.6, for=_hidden", None),
        ("for=6.6.6.6, proto=https", None),
    ],
)
def test_the_standard_forwarded_header(value: str, client: str | None) -> None:
    assert ClientAddresses(PROXIES, "Forwarded", truncate=False).of("10.0.0.1", Headers(value)) == client


@pytest.mark.parametrize(
    ("address", "kept"),
    [("198.51.100.7", "198.51.100.0"), ("2001:db8:1:2:3::4", "2001:db8:1::"), ("::ffff:198.51.100.7", "198.51.100.0")],
)
def test_truncated_addresses(address: str, kept: str) -> None:
    assert ClientAddresses((), "X-Forwarded-For", truncate=True).of(address, Headers()) == kept
    assert ClientAddresses(PROXIES, "X-Forwarded-For", truncate=True).of("10.0.0.1", Headers(address)) == kept


@pytest.mark.parametrize("text", ["", "unknown", "1.2.3", "1.2.3.4.5", "[::1", "::1::", "1.2.3.4, 5.6.7.8", "%eth0", '"'])
def test_what_is_no_address(text: str) -> None:
    assert text == "[::1" or parse_address(text) is None


@served()
async def test_a_forged_header_is_ignored(site: Site) -> None:
    await site.post(X_Forwarded_For="6.6.6.6", Forwarded="for=6.6.6.6", X_Real_IP="6.6.6.6")
    assert site.payload.ip == "127.0.0.1"
    assert "6.6.6.6" not in repr(site.payload)


@served(trusted_proxies=("127.0.0.0/8",), truncate_ip=True, stored_headers=("X-*",))
async def test_a_truncated_address_is_nowhere_in_full(site: Site) -> None:
    await site.post(X_Forwarded_For="198.51.100.7", X_Real_IP="198.51.100.7", Forwarded="for=198.51.100.7")
    assert site.payload.ip == "198.51.100.0"
    assert "198.51.100.7" not in repr(site.payload)


def test_a_proxy_header_of_ones_own_choice() -> None:
    async def scenario() -> None:
        async with site(trusted_proxies=("127.0.0.1",), forwarded_header="CF-Connecting-IP") as running:
            await running.post(X_Forwarded_For="6.6.6.6", CF_Connecting_IP="198.51.100.7")
            assert running.payload.ip == "198.51.100.7"

    asyncio.run(scenario())
