"""What one line of an access log says, in every format that is read: the request as it was sent, or why it is none."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access_log.formats import Formats, Logged, about_the_log
from protocol.wire import parse_query

STANDARD = (
    "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) cs-uri-query"
    " cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken x-forwarded-for"
)
ROW = {
    "date": "2026-11-22",
    "time": "05:37:40",
    "c-ip": "2001:db8::7",
    "cs-method": "GET",
    "cs(Host)": "d111111abcdef8.cloudfront.net",
    "cs-uri-stem": "/i",
    "sc-status": "200",
    "cs(Referer)": "https://shop.example/a?b=c%2520d",
    "cs(User-Agent)": "Mozilla/5.0%20(X11;%20Linux)%20App%2520Name",
    "cs-uri-query": "e=pv&page=%2520%257B",
    "cs(Cookie)": "sp=me",
    "x-edge-request-id": "SOX4xwn4XV6Q4rgb7XiVGOHms_BGlTAC4KyHmureZmBNrjGdRLiNIQ==",
    "x-host-header": "t.shop.example",
}
NOON_MS = 1_795_325_860_000  # 2026-11-22 05:37:40
CLOUDFRONT = Logged(
    NOON_MS,
    "GET",
    "/i?e=pv&page=%20%7B",
    200,
    "2001:db8::7",
    "t.shop.example",
    (("User-Agent", "Mozilla/5.0 (X11; Linux) App%20Name"), ("Referer", "https://shop.example/a?b=c%20d"), ("Cookie", "sp=me")),
    ROW["x-edge-request-id"],
)


def row(fields: str = STANDARD, **other: str) -> bytes:
    return "\t".join({**ROW, **other}.get(name, "-") for name in fields.split()).encode()


def read(line: bytes | str, *fields: str) -> Logged | None:
    return Formats(fields).read(line if isinstance(line, bytes) else line.encode())


def test_cloudfronts_standard_log_names_its_columns_itself() -> None:
    formats = Formats()
    assert formats.read(b"#Version: 1.0\n") is None
    assert formats.read(b"#Fields: " + STANDARD.encode() + b"\r\n") is None
    assert formats.read(row()) == CLOUDFRONT
    # The columns may change in the middle of files that were put together.
    assert formats.read(b"#Fields: cs-uri-stem date time cs-method") is None
    assert formats.read(b"/i\t2026-11-22\t05:37:40\tHEAD") == Logged(NOON_MS, "HEAD", "/i", 0, "", "", ())


def test_a_first_line_of_names_alone_names_the_columns() -> None:
    formats = Formats()
    assert formats.read("\t".join(STANDARD.split()).encode()) is None
    assert formats.read(row()) == CLOUDFRONT


def test_cloudfronts_json_says_the_same() -> None:
    assert read(json.dumps({**ROW, "sc-status": 200, "sc-bytes": 43})) == CLOUDFRONT


def test_milliseconds_are_taken_where_the_log_has_them() -> None:
    assert read(json.dumps({**ROW, "timestamp(ms)": "1795325860123"})) == CLOUDFRONT._replace(received_ms=NOON_MS + 123)


def test_the_real_time_log_has_the_columns_that_its_configuration_names() -> None:
    fields = ("timestamp", "c-ip", "sc-status", "cs-method", "cs-host", "cs-uri-stem", "cs-user-agent", "cs-uri-query")
    line = b"1795325860.123\t192.0.2.7\t200\tGET\tt.example\t/i\tcurl/8%2520x\te=pv"
    expected = Logged(NOON_MS + 123, "GET", "/i?e=pv", 200, "192.0.2.7", "t.example", (("User-Agent", "curl/8 x"),))
    assert read(line, *fields) == expected


def test_a_user_agent_that_was_encoded_twice_is_decoded_twice() -> None:
    found = read(json.dumps({**ROW, "cs(User-Agent)": "Mozilla/5.0%2520(X11)"}))
    assert found is not None
    assert dict(found.headers)["User-Agent"] == "Mozilla/5.0 (X11)"


# Which characters CloudFront encodes. Source: its developer guide, "standard logging reference".
ENCODED = re.compile("[\x00-\x20\x7f-\U0010ffff<>\"#%{}|\\\\^~\\[\\]`']")


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=30), max_size=5))
def test_any_query_comes_out_of_cloudfronts_encoding_with_its_meaning(parameters: dict[str, str]) -> None:
    sent = "&".join(
        f"{quote(name.encode('utf-8', 'replace'))}={quote(value.encode('utf-8', 'replace'))}"
        for name, value in parameters.items()
    )
    logged = ENCODED.sub(lambda found: quote(found[0], safe=""), sent)
    told = read(json.dumps({**ROW, "cs-uri-query": logged or "-"}))
    assert told is not None
    assert told.target.removeprefix("/i").removeprefix("?") == sent
    # A browser that leaves a quote or a bracket as it is: what CloudFront makes of it means the same.
    raw = f"a={quote('100% {x}', safe='{}')}&b=é'"
    told = read(json.dumps({**ROW, "cs-uri-query": ENCODED.sub(lambda found: quote(found[0], safe=""), raw)}))
    assert told is not None
    assert parse_query(told.target.partition("?")[2]) == {"a": "100% {x}", "b": "é'"}


NGINX: dict[str, Any] = {
    "msec": "1795325860.123",
    "request_id": "f" * 32,
    "remote_addr": "192.0.2.7",
    "request_method": "GET",
    "request_uri": "/i?e=pv",
    "status": "200",
    "http_host": "t.example:8443",
    "http_user_agent": "Mozilla/5.0",
    "http_sec_ch_ua_mobile": "?0",
    "http_referer": "",
    "http_dnt": "-",
}


def test_nginx_json_has_the_names_of_its_variables() -> None:
    headers = (("Host", "t.example:8443"), ("User-Agent", "Mozilla/5.0"), ("Sec-Ch-Ua-Mobile", "?0"))
    expected = Logged(NOON_MS + 123, "GET", "/i?e=pv", 200, "192.0.2.7", "t.example:8443", headers, "f" * 32)
    assert read(json.dumps(NGINX)) == expected
    iso = {name: value for name, value in NGINX.items() if name != "msec"} | {"time_iso8601": "2026-11-22T07:37:40+02:00"}
    assert read(json.dumps(iso)) == expected._replace(received_ms=NOON_MS)


def test_bytes_that_are_no_utf_8_are_read_as_latin_1() -> None:
    found = read(json.dumps(NGINX).encode().replace(b"Mozilla/5.0", b"M\xf6zilla"))
    assert found is not None
    assert ("User-Agent", "Mözilla") in found.headers


CADDY: dict[str, Any] = {
    "level": "info",
    "ts": 1795325860.1234567,
    "logger": "http.log.access.log0",
    "msg": "handled request",
    "request": {
        "remote_ip": "10.0.0.1",
        "client_ip": "192.0.2.7",
        "proto": "HTTP/2.0",
        "method": "GET",
        "host": "t.example",
        "uri": "/i?e=pv",
        "headers": {"User-Agent": ["curl/8"], "Cookie": ["REDACTED"]},
    },
    "status": 200,
}


@pytest.mark.parametrize(
    "ts", ["1795325860.1234567", "1795325860123.4567", '"2026-11-22T05:37:40.123Z"', '"2026-11-22T05:37:40.123"']
)
def test_caddys_json_whatever_the_form_of_its_time(ts: str) -> None:
    line = json.dumps({**CADDY, "ts": json.loads(ts)})
    assert read(line) == Logged(NOON_MS + 123, "GET", "/i?e=pv", 200, "192.0.2.7", "t.example", (("User-Agent", "curl/8"),))


def test_caddy_may_speak_of_itself() -> None:
    assert read('{"level":"info","ts":1,"msg":"serving initial configuration"}') is None


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ('"-" "-"', ()),
        ('"http://a/" "x"', (("Referer", "http://a/"), ("User-Agent", "x"))),
        (r'"-" "a \x22b\x22 \xC3\xA9 \"c\" \\"', (("User-Agent", 'a "b" é "c" \\'),)),
        ('"-" "x" "more" 0.004', (("User-Agent", "x"),)),
        ("", ()),
    ],
)
def test_the_combined_format_and_the_common_one(line: str, headers: tuple[tuple[str, str], ...]) -> None:
    text = f'192.0.2.7 - a "user" [22/Nov/2026:07:37:40 +0200] "GET /i?e=pv&x=%20 HTTP/1.1" 200 43 {line}'.rstrip()
    assert read(text) == Logged(NOON_MS, "GET", "/i?e=pv&x=%20", 200, "192.0.2.7", "", headers)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"hello", "neither JSON"),
        (b"\xff\xfe", "neither JSON"),
        (b"{", "not JSON"),
        (b"{}", "no request in it"),
        (b'{"request":{}, "ts": 1}', "it has no method"),
        (b'{"request":{"method":"GET","uri":"/i"}}', "could not convert|no time"),
        (b'{"request":{"method":"GET","uri":"/i"},"ts":"soon"}', "Invalid isoformat"),
        (b'{"request_uri":"/i","request_method":"GET","msec":"NaN"}', "no time"),
        (b"a\tb", "no #Fields line"),
        (b'1 - - [x] "GET /i" 200 1', "Invalid isoformat"),
        (b'1 - - [22/Nov/2026:05:37:40 +0000] "-" 400 0 "-" "-"', "no request"),
        (b'1 - - [99/Nov/2026:05:37:40 +0000] "GET /i HTTP/1.1" 200 0', "day is out of range"),
    ],
)
def test_what_is_no_line_of_a_log_says_why(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(line)


def test_a_line_with_too_few_columns_is_none() -> None:
    with pytest.raises(ValueError, match="3 values for 20 fields"):
        read(b"a\tb\tc", *STANDARD.split())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_a_reason(line: bytes) -> None:
    for fields in ((), STANDARD.split()):
        try:
            Formats(fields).read(line)
        except ValueError as error:
            assert str(error)


def test_lines_that_many_files_begin_with_are_known() -> None:
    assert all(map(about_the_log, (b"", b"\r\n", b"#Version: 1.0\n", "\t".join(STANDARD.split()).encode())))
    assert not about_the_log(row())
