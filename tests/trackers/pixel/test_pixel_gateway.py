"""Pixels and links against the running product: what was put into a URL is stored, and an altered link leads nowhere.

`make pixel-storm` asks for 10,000 events and 100,000 altered links.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from gateway.http.config import Redirects as Options
from gateway.http.redirects import Redirects
from spoorway.pixel import Pixel, email_click
from tests.trackers.pixel.pixel_cases import ANYTHING, ENDPOINT, KEY, built, built_in_javascript, case

pytestmark = pytest.mark.slow

EVENTS = int(os.environ.get("SPOORWAY_PIXEL_EVENTS", "2000"))
REDIRECT = "iglu:com.snowplowanalytics.snowplow/uri_redirect/jsonschema/1-0-0"
TAMPERED = int(os.environ.get("SPOORWAY_PIXEL_LINKS", "20000"))
SCHEMA = {
    "$schema": "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#",
    "self": {"vendor": "com.acme", "name": "anything", "format": "jsonschema", "version": "1-0-0"},
    "type": "object",
}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "redirect.keys"
    file.write_text(KEY.hex() + "\n")
    return file


@pytest.fixture
def running(start: Callable[..., Any], tmp_path: Path, keys: Path) -> Any:
    config = tmp_path / "spoorway.toml"
    config.write_text(f'[gateway.transports.http.redirects]\nkey_file = "{keys}"\n')
    schema = tmp_path / "data/schemas/com.acme/anything/jsonschema/1-0-0"
    schema.parent.mkdir(parents=True)
    schema.write_text(json.dumps(SCHEMA))
    return start("--config", str(config))


def asked(url: str, targets: list[str], method: str = "GET", headers: str = "") -> list[bytes]:
    """The head of each answer, in order; many requests are under way at once."""
    where = urlsplit(url)
    heads: list[bytes] = []
    with socket.create_connection((where.hostname, where.port), 60) as line:
        reader = line.makefile("rb")
        for first in range(0, len(targets), 50):
            some = targets[first : first + 50]
            line.sendall("".join(f"{method} {one} HTTP/1.1\r\nHost: t\r\n{headers}\r\n" for one in some).encode())
            for _ in some:
                head = b"".join(iter(reader.readline, b"\r\n"))
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if length and method != "HEAD":
                    reader.read(int(length[1]))
                heads.append(head)
    return heads


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_random_events_are_stored_as_they_were_given_byte_for_byte(running: Any) -> None:
    chance = random.Random(7)
    cases: list[dict[str, Any]] = []
    urls: list[str] = []
    while len(cases) < EVENTS:
        some = [case(chance, len(cases) + number) for number in range(EVENTS - len(cases))]
        both = [(one, url) for one, url in zip(some, map(built, some), strict=True) if not url.startswith("!")]
        cases += [one for one, _ in both]
        urls += [url for _, url in both]
    # Every other one is the JavaScript builder's.
    urls[::2] = built_in_javascript(cases[::2])
    heads = asked(running.url, [url.removeprefix(ENDPOINT) for url in urls])
    for one, head in zip(cases, heads, strict=True):
        if one["target"]:
            assert head.startswith(b"HTTP/1.1 302 ") and f"\r\nLocation: {one['target']}\r\n".encode() in head
        else:
            assert head.startswith(b"HTTP/1.1 200 ")
    running.wait(EVENTS)
    assert running.query("SELECT stored, failed, duplicate FROM atomic.totals") == [
        {"stored": EVENTS, "failed": 0, "duplicate": 0}
    ]
    stored = {row["event_id"]: row for row in running.query("SELECT event_id, unstruct_event, contexts FROM atomic.events")}
    for one in cases:
        row = stored.pop(one["id"])
        assert row["unstruct_event"].split(f'"{ANYTHING}","data":', 1)[1] == compact(one["data"]) + "}}"
        redirected = [{"schema": REDIRECT, "data": {"uri": one["target"]}}] if one["target"] else []
        entities = redirected + one["entities"]
        assert (row["contexts"] or "").partition('"data":')[2] == (compact(entities) + "}" if entities else "")
    assert not stored


def tampered(chance: random.Random, links: list[str]) -> Iterator[str]:
    """Links whose target or signature is not what was signed, in ways that an attacker would try."""
    characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~%/:@\\ =+?#\x00é"
    while True:
        parts = urlsplit(chance.choice(links))
        fields = dict(parse_qsl(parts.query))
        before = (fields["u"], fields["sig"])
        other = dict(parse_qsl(urlsplit(chance.choice(links)).query))
        name = chance.choice(("u", "sig"))
        text = fields[name]
        place = chance.randrange(len(text) + 1)
        match chance.randrange(8):
            case 0:
                fields[name] = text[:place] + chance.choice(characters) + text[place:]
            case 1:
                fields[name] = text[:place] + text[place + 1 :]
            case 2:
                fields[name] = text[:place] + chance.choice(characters) + text[place + 1 :]
            case 3:
                fields["sig"] = other["sig"]
            case 4:
                fields["u"] = chance.choice(
                    ("https://evil.example/", "//evil.example", fields["u"] + "@evil.example", "javascript:x")
                )
            case 5:
                fields["sig"] = chance.choice(
                    ("", "=", "A" * 22, fields["sig"] + "==", fields["sig"][:21], fields["sig"].swapcase())
                )
            case 6:
                fields["u"] = fields["u"].replace(
                    "example.com", chance.choice(("example.com.evil.example", "examp1e.com", "EXAMPLE.com"))
                )
            case _:
                del fields[name]
        if (fields.get("u"), fields.get("sig")) != before:
            yield urlencode(fields)


def test_no_tampered_link_leads_anywhere(running: Any, keys: Path) -> None:
    chance = random.Random(9)
    pixel = Pixel(ENDPOINT, key=KEY)
    links = [pixel.click(f"https://example.com/{n}?x={n * 7919}", email_click("c", str(n))) for n in range(50)]
    gate = Redirects(Options(key_file=str(keys)))
    assert all(gate.answer(urlsplit(link).query).outcome == "redirected" for link in links)
    made = tampered(chance, links)
    queries = [next(made) for _ in range(TAMPERED)]
    assert [query for query in queries if gate.answer(query).outcome != "redirect_refused"] == []
    # And through the door itself, with what the journal keeps of them.
    heads = asked(running.url, [f"/r/tp2?{query}" for query in queries[:1_000]])
    assert {head.partition(b"\r\n")[0] for head in heads} == {b"HTTP/1.1 400 Bad Request"}
    assert not [head for head in heads if b"location" in head.lower()]


def test_the_command_makes_what_the_gateway_counts(running: Any, keys: Path, tmp_path: Path) -> None:
    def command(*arguments: str) -> str:
        run = [
            sys.executable,
            "-m",
            "spoorway",
            "pixel",
            *arguments,
            "--url",
            running.url,
            "--app",
            "news",
            "--campaign",
            "spring",
        ]
        return subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    mail = tmp_path / "mail.html"
    mail.write_text('<body><p><a href="https://example.com/offer">go</a></p></body>')
    signed = ("--key-file", str(keys), "--message", "42")
    urls = [
        command("open", "--message", "42"),
        command("click", "https://example.com/offer", "--link", "offer", *signed),
        *(url.replace("&amp;", "&") for url in re.findall(r'(?:src|href)="([^"]*)"', command("mail", str(mail), *signed))),
        command("open", "--schema", ANYTHING, "--json", '{"v": 1}', "--entity", ANYTHING, '{"w": 2}'),
    ]
    assert len(urls) == 6
    heads = asked(running.url, [url.removeprefix(running.url) for url in urls])
    assert [head.split()[1] for head in heads] == [b"200", b"302", b"302", b"302", b"200", b"200"]
    asked(running.url, [urls[0].removeprefix(running.url)], "HEAD")
    running.wait(7)
    told = running.query("SELECT label, rule, count(*) AS n FROM atomic.email_opens GROUP BY 1, 2 ORDER BY 1")
    assert told == [{"label": "scanner", "rule": "head", "n": 1}, {"label": "unknown", "rule": "no_useragent", "n": 2}]
    clicks = running.query("SELECT link, target, label, rule FROM atomic.email_clicks ORDER BY link")
    assert [(row["link"], row["rule"], row["label"]) for row in clicks] == [
        ("1", "honeypot_nearby", "scanner"),
        ("honeypot", "honeypot", "scanner"),
        ("offer", "honeypot_nearby", "scanner"),  # it came first, and is told by what came after it
    ]
    assert {row["target"] for row in clicks} == {"https://example.com/offer"}
    (row,) = running.query("SELECT * FROM atomic.email_campaigns")
    assert (row["app_id"], row["campaign"], row["opens"], row["opens_without_machines"]) == ("news", "spring", 3, 2)
    assert (row["clicks"], row["clicks_without_machines"], row["messages_clicked"]) == (3, 0, 1)
