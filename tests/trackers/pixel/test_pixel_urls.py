"""URLs of pixels and links: the same in Python and JavaScript, never too long, and pasted without harm."""

from __future__ import annotations

import html
import json
import random
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from jinja2 import Environment

from enrich.enrichments import email_agent
from gateway.http.redirects import host_of_target, sign
from protocol.wire import decode_base64
from spoorway.pixel import (
    PROVIDERS,
    Pixel,
    PixelError,
    amp,
    email_click,
    email_open,
    honeypot,
    link,
    noscript,
    page_view,
    pixel_tag,
    qr,
    self_describing,
)
from spoorway.pixel.mail import Copy, decorate
from spoorway.pixel.preview import harmless
from tests.trackers.pixel.pixel_cases import ANYTHING, ENDPOINT, KEY, built, built_in_javascript, case, examples

ROOT = Path(__file__).parents[3]
PIXEL = Pixel(ENDPOINT, "news", key=KEY)


def test_python_and_javascript_build_the_same_urls() -> None:
    chance = random.Random(4)
    cases = [case(chance, number) for number in range(2_000)]
    cases[7]["data"]["v"] = "x" * 2_000
    urls = [built(one) for one in cases]
    assert built_in_javascript(cases) == urls
    refused = [url for url in urls if url.startswith("!")]
    assert set(refused) == {"!too_long"} and len(refused) < 200
    assert all(len(url) <= 2_048 for url in urls)


@pytest.mark.parametrize("length", [2_048, 2_049])
def test_the_longest_url_is_2048_characters(length: int) -> None:
    bare = len(PIXEL.open(page_view("x")))
    title = "x" * (length - bare - len("&page="))
    if length > 2_048:
        with pytest.raises(PixelError, match="2049 characters, 2048 is the most") as caught:
            PIXEL.open(page_view("x", title))
        assert caught.value.code == "too_long"
    else:
        assert len(PIXEL.open(page_view("x", title))) == length


def test_shorter_of_json_and_base64_is_taken() -> None:
    texts = {"x" * 300: "ue_pr", '"' * 100: "ue_px"}
    for one, expected in texts.items():
        assert expected in parse_qs(urlsplit(PIXEL.open(self_describing(ANYTHING, {"s": one}))).query)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("missing", lambda: page_view("")),
        ("missing", lambda: self_describing("", {})),
        ("platform", lambda: Pixel(ENDPOINT, platform="fridge")),
        ("endpoint", lambda: Pixel("track.example.com")),
        ("endpoint", lambda: Pixel("https://track.example.com/")),
        ("endpoint", lambda: Pixel(ENDPOINT, open_path="/i?x")),
        ("provider", lambda: Pixel(ENDPOINT, provider="pigeon")),
        ("number", lambda: PIXEL.open(self_describing(ANYTHING, {"n": float("nan")}))),
        ("text", lambda: PIXEL.open(page_view("\ud800"))),
        ("tag", lambda: Pixel(ENDPOINT, provider="jinja").open(email_open('{{ "a" }}'))),
        ("target", lambda: PIXEL.click("javascript:alert(1)")),
        ("target", lambda: PIXEL.click("https://user@example.com/")),
        ("target", lambda: PIXEL.click("https://example.com/é")),
        ("target", lambda: Pixel(ENDPOINT, provider="mailchimp").click("https://example.com/*|FNAME|*")),
        ("unsubscribe", lambda: PIXEL.click("https://example.com/unsubscribe?id=7")),
        ("unsubscribe", lambda: PIXEL.click("https://example.com/opt-out")),
    ],
)
def test_what_cannot_be_is_refused_by_name(code: str, what: Any) -> None:
    with pytest.raises(PixelError) as caught:
        what()
    assert caught.value.code == code


def test_targets_and_signatures_are_the_gateways() -> None:
    targets = [
        "https://example.com",
        "HTTP://A.b:80/x?y#z",
        "https://[::1]/",
        "https://a b/",
        "https://a/%zz",
        "//a",
        "https:///a",
        "",
    ]
    for target in targets:
        try:
            url = PIXEL.click(target)
        except PixelError:
            assert host_of_target(target) is None, target
        else:
            assert host_of_target(target) is not None, target
            assert parse_qs(urlsplit(url).query)["sig"] == [sign(KEY, target)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_merge_tags_survive_and_what_replaces_them_arrives(provider: str) -> None:
    tags = PROVIDERS[provider]
    pixel = Pixel(ENDPOINT, provider=provider)
    url = pixel.open(email_open(tags.campaign or "spring", tags.message or "m", tags.recipient))
    assert tags.recipient in url and tags.recipient in html.unescape(pixel_tag(url))
    sent = PROVIDERS[provider].pattern.sub("abc123", url)
    data = json.loads(parse_qs(urlsplit(sent).query)["ue_pr"][0])["data"]["data"]
    assert data["recipient"] == "abc123"
    # Nobody knows how long the reader's name will be: room is kept for it.
    bare = len(pixel.open(email_open("x", "m", tags.recipient)))
    room = 2_048 - bare - (64 - len(tags.recipient))
    assert len(pixel.open(email_open("x" * (room + 1), "m", tags.recipient))) == bare + room
    with pytest.raises(PixelError, match="2049 characters"):
        pixel.open(email_open("x" * (room + 2), "m", tags.recipient))


def test_a_jinja_template_renders_to_a_url_that_says_it() -> None:
    url = Pixel(ENDPOINT, provider="jinja").open(
        email_open(**{n: getattr(PROVIDERS["jinja"], n) for n in ("campaign", "recipient")})
    )
    rendered = Environment(autoescape=True).from_string(pixel_tag(url)).render(campaign="é & ü/7", recipient="r 1")
    (source,) = re.findall(r'src="([^"]*)"', rendered)
    told = parse_qs(urlsplit(html.unescape(source)).query)["ue_pr"][0]
    assert json.loads(told)["data"]["data"] == {"campaign": "é & ü/7", "recipient": "r 1"}


class Attributes(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("form", [pixel_tag, noscript, amp, honeypot, lambda url: link(url, 'a<b>&"')])
def test_markup_holds_the_url_unchanged_and_nothing_else(form: Any) -> None:
    for event in examples():
        url = PIXEL.open(event)
        found = [a.get("src") or a.get("href") for _, a in Attributes(form(url)).tags]
        assert [one for one in found if one] == [url]


def test_both_languages_write_the_same_markup() -> None:
    url = PIXEL.open(email_open("spring"))
    script = (
        "import * as p from './trackers/pixel/pixel.js'; const u = process.argv[1];"
        "console.log([p.pixelTag(u), p.noscript(u), p.amp(u), p.honeypot(u), p.link(u, 'a<&b', '#0b57d0')].join('\\n'))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script, url], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == [pixel_tag(url), noscript(url), amp(url), honeypot(url), link(url, "a<&b", "#0b57d0")]


def test_merge_tags_are_the_same_in_both_languages() -> None:
    script = "import { PROVIDERS } from './trackers/pixel/pixel.js'; console.log(JSON.stringify(PROVIDERS))"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    told = {n: {k: v for k, v in p.items() if k != "pattern"} for n, p in json.loads(done.stdout).items()}
    assert told == {n: {"campaign": p.campaign, "message": p.message, "recipient": p.recipient} for n, p in PROVIDERS.items()}


def test_the_builder_needs_nothing_of_ours_and_nothing_installed() -> None:
    import sys

    imported = re.findall(
        r"^(?:from|import) ([\w.]+)", "\n".join(p.read_text() for p in (ROOT / "spoorway/pixel").glob("*.py")), re.M
    )
    assert {name.split(".")[0] for name in imported} - {"spoorway"} <= sys.stdlib_module_names
    assert {name for name in imported if name.startswith("spoorway")} <= {
        f"spoorway.pixel.{part}" for part in ("events", "outputs", "tags", "urls", "mail", "preview")
    }


def test_a_qr_code_is_a_picture_with_a_quiet_zone() -> None:
    assert re.match(r'<svg width="\d+" height="\d+">', qr(PIXEL.click("https://example.com/poster", email_click("wall"))))


MAIL = """<!DOCTYPE html>\r
<html><head><title>é</title></head>\r
<body class="b"><p title="go href='https://example.com/a'" >
<a title=" href='x'" href='https://example.com/a?x=1&amp;y=2' data-link="offer">A</a>
<A\tHREF=https://example.com/b data-x="1">B</A><a href="https://example.com/unsubscribe?id=7">bye</a><a href="mailto:x@y.z">m</a>
<a href="{{ unsubscribe }}">u</a><a data-spoorway="off" href=https://example.com/c>c</a><a href="#top">t</a>
<a name="x">x</a></p></body></html>
"""


def test_a_mail_gets_its_pixel_and_its_links_and_stays_as_it_was() -> None:
    done = decorate(MAIL, PIXEL, Copy("spring", "42"))
    assert (done.links, done.left) == (
        2,
        [
            ("https://example.com/unsubscribe?id=7", "unsubscribe"),
            ("mailto:x@y.z", "target"),
            ("{{ unsubscribe }}", "unsubscribe"),
            ("https://example.com/c", "off"),
        ],
    )
    urls = [a["href"] or "" for tag, a in Attributes(done.html).tags if tag == "a" and "href" in a]
    targets = [parse_qs(urlsplit(url).query).get("u", [url])[0] for url in urls]
    assert targets[:3] == ["https://example.com/a?x=1&y=2", "https://example.com/a?x=1&y=2", "https://example.com/b"]
    names = [decode_base64(parse_qs(urlsplit(url).query)["ue_px"][0]) for url in urls[:3]]
    assert b'"honeypot":true' in names[0] and b'"link":"offer"' in names[1] and b'"link":"2"' in names[2]
    # Taken out again, byte for byte the mail that came in.
    back = done.html.replace(pixel_tag(PIXEL.open(email_open("spring", "42"))), "")
    back = back.replace(honeypot(PIXEL.click(targets[0], email_click("spring", "42", link="honeypot", honeypot=True))), "")
    for url, before in zip(
        urls[1:3], ("href='https://example.com/a?x=1&amp;y=2' data-link=\"offer\"", "HREF=https://example.com/b"), strict=True
    ):
        back = back.replace(f'href="{html.escape(url, quote=False)}"', before)
    assert back == MAIL


def test_a_preview_counts_nothing() -> None:
    shown = harmless(decorate(MAIL, PIXEL, Copy("spring"), trap=False).html)
    assert "/i?" not in shown and shown.startswith("<!DOCTYPE html><meta charset")


def test_schemas_of_the_builder_and_the_enrichment_are_the_bundled_ones() -> None:
    for uri in (email_open().data, email_click().data, {"schema": email_agent.SCHEMA}):
        assert uri and (ROOT / "protocol/schemas" / uri["schema"].removeprefix("iglu:")).is_file()
