"""What an HTTP request is recorded as, and what it is answered with."""

from __future__ import annotations

import asyncio
import logging
import zlib
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.transports.http import Config, Cookie, CrossDomain, Plugin, RootAnswer
from protocol.payloads import from_json, to_json
from protocol.seams import ConfigurationError, PermanentError, RawPayload, TransientError
from tests.unit.http_site import NOW_NS, TP2, Site, gzipped, request, served

BODY = b'{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":[{"e":"pv"}]}'


@served()
async def test_a_post_is_recorded_as_it_came(site: Site) -> None:
    reply = await site.post(
        BODY, f"{TP2}?aid=shop&x=%20+", User_Agent="Mozilla/5.0", Origin="https://shop.example", Referer="https://shop.example/a"
    )
    assert (reply.status, reply["Content-Type"], reply.body) == (200, "text/plain", b"ok")
    assert "Cache-Control" not in reply and "Set-Cookie" not in reply
    assert site.payload == RawPayload(
        id=f"{1:032x}",
        received_ms=NOW_NS // 1_000_000,
        transport="http",
        path=TP2,
        query="aid=shop&x=%20+",
        body=BODY,
        content_type="application/json",
        headers=(("User-Agent", "Mozilla/5.0"), ("Origin", "https://shop.example"), ("Referer", "https://shop.example/a")),
        ip="127.0.0.1",
        host="events.example",
        network_userid=None,
    )
    assert site.counters.requests["accepted"] == 1


def test_ids_are_random_by_default() -> None:
    async def scenario() -> None:
        taken: list[RawPayload] = []

        async def accept(payload: RawPayload) -> None:
            taken.append(payload)

        plugin = Plugin(Config(port=0))
        await plugin.start(accept)
        reader, writer = await asyncio.open_connection(*plugin.addresses[0])
        writer.write(request("/i") * 2)
        await reader.readuntil(b";")
        await reader.readuntil(b";")
        writer.close()
        await plugin.stop()
        first, second = (payload.id for payload in taken)
        assert first != second and len(first) == 32 and int(first, 16) and first == first.lower()

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/i", "/ice.png", "/com.snowplowanalytics.snowplow/tp1", "/any.vendor/v9"])
@served()
async def test_a_get_is_a_pixel(site: Site, path: str) -> None:
    reply = await site.ask(f"{path}?e=pv&p=web", "GET", b"ignored", Content_Type="text/plain")
    assert (reply.status, reply["Content-Type"]) == (200, "image/gif")
    assert reply["Cache-Control"] == "no-cache, no-store, must-revalidate"
    assert len(reply.body) == 43 and reply.body[:10] == b"GIF89a\1\0\1\0" and reply.body[-1:] == b";"
    payload = site.payload
    assert (payload.path, payload.query, payload.body, payload.content_type) == (path, "e=pv&p=web", None, None)


@served()
async def test_a_head_is_recorded_and_has_no_body(site: Site) -> None:
    client = await site.connect()
    await client.send(request("/i?e=pv", "HEAD") + request("/health"))
    pixel, health = await client.reply(head=True), await client.reply()
    assert (pixel.status, pixel["Content-Length"], health.body) == (200, "43", b"ok")
    assert site.payload.body is None


@served()
async def test_an_empty_post_has_an_empty_body_and_no_type(site: Site) -> None:
    assert (await site.ask(TP2, "POST", b"")).status == 200
    assert (site.payload.body, site.payload.content_type) == (b"", None)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("application/json; charset=utf-8", "application/json; charset=utf-8"),
        ("Application/JSON;charset=UTF-8", "application/json; charset=utf-8"),
        ('application/json ;  Charset="utf-8" ', "application/json; charset=utf-8"),
        ("text/plain", "text/plain"),
        ("no/such;;thing", "no/such; thing"),
        ("x" * 300 + ";A", "x" * 300 + ";a"),
    ],
)
@served()
async def test_content_types_are_normalised(site: Site, sent: str, kept: str) -> None:
    await site.post(Content_Type=sent)
    assert site.payload.content_type == kept


@served()
async def test_nothing_is_said_before_the_journal_has_it(site: Site) -> None:
    site.recorder.gate.clear()
    client = await site.connect()
    await client.send(request(TP2, "POST", BODY))
    await site.recorder.entered.wait()
    assert await client.is_silent()
    site.recorder.gate.set()
    assert (await client.reply()).status == 200


@served(retry_after_s=7)
async def test_a_journal_in_trouble_means_come_back_later(site: Site) -> None:
    assert (await site.ask("/sink-health")).status == 200
    site.recorder.trouble = TransientError("disk full")
    for reply in (await site.post(Origin="https://a.example"), await site.ask("/i", Origin="https://a.example")):
        assert (reply.status, reply["Retry-After"]) == (503, "7")
        assert reply["Access-Control-Allow-Origin"] == "https://a.example"
        assert reply["Access-Control-Allow-Credentials"] == "true"
    assert (await site.ask("/sink-health")).status == 503
    assert (await site.ask("/health")).status == 200
    site.recorder.trouble = None
    assert (await site.post()).status == 200
    assert (await site.ask("/sink-health")).status == 200
    assert site.counters.requests["unavailable"] == 3  # two events and the health question


@served()
async def test_a_fault_of_ours_costs_no_event_and_no_connection(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    client = await site.connect()
    for trouble in (PermanentError("broken"), RuntimeError("bug")):
        site.recorder.trouble = trouble
        with caplog.at_level(logging.CRITICAL):
            await client.send(request(TP2, "POST", b"secret-body"))
            assert (await client.reply()).status == 503
    site.recorder.trouble = None
    await client.send(request(TP2, "POST", b"{}"))
    assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    ("method", "target", "status", "body"),
    [
        ("POST", "/i", 404, b"not found"),
        ("POST", "/ice.png", 404, b"not found"),
        ("PUT", TP2, 404, b"not found"),
        ("DELETE", TP2, 404, b"not found"),
        ("GET", "/", 404, b"not found"),
        ("GET", "/one", 404, b"not found"),
        ("POST", "/a/b/c", 404, b"not found"),
        ("POST", "/a/b/", 404, b"not found"),
        ("GET", "/a/", 404, b"not found"),
        ("GET", "//b", 404, b"not found"),
        ("GET", "/crossdomain.xml", 404, b"not found"),
        ("GET", "/r/tp2?u=https%3A%2F%2Fevil.example", 404, b"redirects disabled"),
        ("POST", "/r/tp2", 404, b"redirects disabled"),
        ("OPTIONS", "/r/x", 404, b"redirects disabled"),
        ("GET", "/health", 200, b"ok"),
        ("GET", "/robots.txt", 200, b"User-agent: *\nDisallow: /"),
        ("CONNECT", "shop.example:443", 404, b"not found"),
    ],
)
@served()
async def test_other_routes(site: Site, method: str, target: str, status: int, body: bytes) -> None:
    reply = await site.ask(target, method)
    assert (reply.status, reply.body[: len(body)]) == (status, body)
    assert site.recorder.payloads == []


@served(paths={"/my.shop/track": TP2, "/my.shop/hook": "/com.snowplowanalytics.iglu/v1", "/my.shop/go": "/r/tp2"})
async def test_custom_paths_are_recorded_as_what_they_stand_for(site: Site) -> None:
    await site.post(target="/my.shop/track?x=1")
    await site.ask("/my.shop/hook?schema=s")
    await site.post(target="/my.shop/other")
    assert [p.path for p in site.recorder.payloads] == [TP2, "/com.snowplowanalytics.iglu/v1", "/my.shop/other"]
    assert (await site.ask("/my.shop/go?u=x")).body == b"redirects disabled"
    assert (await site.ask("/my.shop/go", "OPTIONS")).status == 200


@pytest.mark.parametrize("paths", [{"/one": TP2}, {"/a/b/c": TP2}, {"/r/go": TP2}, {"a/b": TP2}, {"/a/b": "/my.own/target"}])
def test_custom_paths_that_cannot_be_are_refused(paths: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="paths:"):
        Plugin(Config(paths=paths))


@served(
    root=RootAnswer(status=302, headers={"Location": "https://shop.example/"}, body="gone"),
    crossdomain=CrossDomain(enabled=True, domains=("*.shop.example",), secure=False),
)
async def test_configured_answers(site: Site) -> None:
    root = await site.ask("/")
    assert (root.status, root["Location"], root.body) == (302, "https://shop.example/", b"gone")
    policy = await site.ask("/crossdomain.xml")
    assert b'<allow-access-from domain="*.shop.example" secure="false"/>' in policy.body


@pytest.mark.parametrize("headers", [{"X": "a\r\nSet-Cookie: b=c"}, {"X\nY": "a"}, {"X": "a\rb"}, {"X": "\u4e2d"}])
def test_a_root_answer_cannot_hold_line_breaks(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="root"):
        Plugin(Config(root=RootAnswer(status=302, headers=headers)))


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, "*"),
        ("null", "*"),
        ("", "*"),
        ("nonsense", "*"),
        ("https://shop.example", "https://shop.example"),
        ("https://shop.example:8443", "https://shop.example:8443"),
        ("https://a.example http://b.example", "https://a.example"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://a.example/path", "*"),
        ("https://user@a.example", "*"),
        ("https://a.example\tX-Injected: 1", "https://a.example"),
        ("https://" + "a" * 600, "*"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
@served(preflight_max_age_s=60)
async def test_cors(site: Site, origin: str | None, allowed: str) -> None:
    headers = {} if origin is None else {"Origin": origin}
    preflight = await site.ask("/any/path/at/all", "OPTIONS", **headers)
    assert (preflight.status, preflight.body) == (200, b"")
    assert preflight["Access-Control-Allow-Headers"] == "Content-Type, SP-Anonymous"
    assert preflight["Access-Control-Max-Age"] == "60"
    assert "Access-Control-Allow-Methods" not in preflight
    for reply in (preflight, await site.post(**headers), await site.ask("/i", **headers)):
        assert reply["Access-Control-Allow-Origin"] == allowed
        assert reply["Access-Control-Allow-Credentials"] == "true"


@pytest.mark.parametrize(
    "evil", [b"https://a.example\rX-Injected: 1", b"https://a.example\nX-Injected: 1", b"https://a\xe9.example"]
)
@served()
async def test_an_origin_cannot_inject_headers(site: Site, evil: bytes) -> None:
    reply = await site.ask("/i", Origin=evil)
    assert "X-Injected" not in reply
    assert reply.status == 400 or reply["Access-Control-Allow-Origin"] in ("*", "https://a.example")


@served()
async def test_query_bytes_that_are_no_text_survive_as_percent_codes(site: Site) -> None:
    client = await site.connect()
    await client.send(request(b"/i?a=\xff\xfe&b=\xc3\xa9&c=%ff"))
    assert (await client.reply()).status == 200
    assert site.payload.query == "a=%FF%FE&b=%C3%A9&c=%ff"
    assert from_json(to_json(site.payload)) == site.payload


@served()
async def test_headers_that_are_no_utf8_are_read_as_latin1(site: Site) -> None:
    await site.ask(
        TP2,
        "POST",
        b"",
        User_Agent=b"Caf\xe9",
        Referer="https://caf\u00e9.example".encode(),
        Host=b"caf\xe9.example",
        Content_Type=b"text/caf\xe9",
        Cookie=b"sp=caf\xe9",
    )
    assert (site.payload.host, site.payload.content_type) == ("caf\u00e9.example", "text/caf\u00e9")
    assert site.payload.network_userid is None
    assert ("User-Agent", "Caf\u00e9") in site.payload.headers
    assert from_json(to_json(site.payload)) == site.payload


@served()
async def test_a_target_with_scheme_and_host(site: Site) -> None:
    client = await site.connect()
    await client.send(request(f"http://tracker.example:81{TP2}?a=b", "POST", b"{}"))
    assert (await client.reply()).status == 200
    assert (site.payload.path, site.payload.query, site.payload.host) == (TP2, "a=b", "tracker.example")


@served()
async def test_only_useful_headers_are_kept(site: Site) -> None:
    await site.ask(
        "/i",
        Accept_Language="en",
        DNT="1",
        Sec_GPC="1",
        sec_ch_ua_platform='"Linux"',
        Authorization="Bearer secret",
        Cookie="sp=1; session=secret",
        X_Api_Key="secret",
        X_Forwarded_For="192.0.2.1",
        Forwarded="for=192.0.2.1",
        Content_Encoding="gzip",
    )
    assert site.payload.headers == (("Accept-Language", "en"), ("DNT", "1"), ("Sec-GPC", "1"), ("sec-ch-ua-platform", '"Linux"'))


@served(stored_headers=("cookie", "X-*"))
async def test_more_headers_on_request_but_never_addresses(site: Site) -> None:
    await site.ask(
        "/i", Cookie='a=1;  b="2"; bad name=3; c=x"y; d', X_Shop="7", X_Real_IP="192.0.2.1", X_Forwarded_For="192.0.2.1"
    )
    assert site.payload.headers == (("Cookie", "a=1; b=2"), ("X-Shop", "7"))


@pytest.mark.parametrize("name", ["Authorization", "proxy-authorization", "X-Forwarded-For", "Forwarded"])
def test_some_headers_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(ConfigurationError, match="never stored"):
        Plugin(Config(stored_headers=(name,)))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzipped(BODY)),
        ("GZIP", gzipped(BODY)),
        ("x-gzip", gzipped(BODY[:20]) + gzipped(BODY[20:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY, wbits=-15)),
    ],
)
@served(stored_headers=("Content-*",))
async def test_compressed_bodies_are_recorded_inflated(site: Site, encoding: str, body: bytes) -> None:
    assert (await site.post(body, Content_Encoding=encoding)).status == 200
    assert site.payload.body == BODY
    assert "content-encoding" not in {name.lower() for name, _ in site.payload.headers}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", BODY),
        ("gzip", b""),
        ("gzip", gzipped(BODY)[:-9]),
        ("gzip", gzipped(BODY) + b"trailing"),
        ("gzip", gzipped(b"") * 1000),
        ("deflate", b"\0\1\2"),
        ("deflate", zlib.compress(BODY) + b"trailing"),
        ("br", b"\x8b\2\x80{}\3"),
        ("gzip, gzip", gzipped(BODY)),
    ],
)
@served()
async def test_bodies_that_do_not_inflate_are_kept_with_the_reason(site: Site, encoding: str, body: bytes) -> None:
    assert (await site.post(body, Content_Encoding=encoding)).status == 200
    assert site.payload.body == body
    assert site.payload.headers == (("Content-Encoding", encoding),)
    assert from_json(to_json(site.payload)) == site.payload


@pytest.mark.parametrize("options", [{"max_body_bytes": 100_000}, {"max_inflate_ratio": 10}])
def test_gzip_bombs_are_refused(options: dict[str, int]) -> None:
    @served(**options)
    async def scenario(site: Site) -> None:
        bomb = gzipped(b"\0" * 1_000_000)
        assert len(bomb) < 2_000
        assert (await site.post(bomb, Content_Encoding="gzip")).status == 413
        assert (await site.post(gzipped(b"\0" * 60_000), Content_Encoding="gzip")).status == 200
        assert len(site.payload.body or b"") == 60_000

    for loop in ("asyncio", "uvloop"):
        scenario(loop=loop)


@pytest.mark.parametrize("options", [Config, Cookie])
def test_every_option_is_documented(options: type) -> None:
    text = (Path(__file__).parents[2] / "docs/http.md").read_text()
    assert [field.name for field in fields(options) if f"`{field.name}`" not in text] == []
