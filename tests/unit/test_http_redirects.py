"""Redirects: nobody is sent anywhere but where a key or a listed host vouches for it. See also vectors gateway/redirects."""

from __future__ import annotations

import os
import random
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.config import Redirects as Options
from gateway.http.redirects import Redirects, host_of_target, read_keys, sign
from protocol.seams import ConfigurationError, TransientError
from protocol.wire import parse_query, write_query
from tests.unit.http_site import Site, served

KEYS = Path(__file__).parents[2] / "protocol/vectors/gateway/redirects.keys"
SIGNED = Redirects(Options(key_file=str(KEYS)))
LISTED = Redirects(Options(hosts=("acme.example", "www.acme.example")))
TARGETS = [f"https://acme.example/offer/{n}?id={n}&from=mail%20{n}#part-{n}" for n in range(50)]
TAMPERED = int(os.environ.get("SPOORWAY_TAMPERED", "5000"))
GOOD = write_query({"u": TARGETS[0], "sig": sign(read_keys(KEYS)[0], TARGETS[0])})


def link(target: str, key: int = 0) -> str:
    return write_query({"u": target, "sig": sign(read_keys(KEYS)[key], target)})


def tampered(query: str, rng: random.Random) -> str:
    """The link with one to three small changes, of the kind people and programs make."""
    text = list(query)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        match rng.randrange(6):
            case 0:
                text[at] = rng.choice(string.printable)
            case 1:
                text.insert(at, rng.choice(string.printable))
            case 2:
                del text[at]
            case 3:
                text[at : at + 1] = rng.choice(
                    ["%00", "%0d%0a", "%5c", "%40evil.example", "evil.example", "&", ";u=//evil.example"]
                )
            case 4:
                other = rng.randrange(len(text))
                text[at], text[other] = text[other], text[at]
            case _:
                text += rng.choice(["&u=https://evil.example/", ";sig=", "&sig=" + "A" * 22, "&U=x", "#", "x"])
    return "".join(text)


def test_no_tampered_link_passes() -> None:
    """SPOORWAY_TAMPERED=100000 for the long run."""
    rng = random.Random(20_260_115)
    links = [link(target, n % 2) for n, target in enumerate(TARGETS)]
    vouched = [(target, signature(sent)) for target, sent in zip(TARGETS, links, strict=True)]
    passed = changed = 0
    while changed < TAMPERED:
        query = tampered(rng.choice(links), rng)
        said = parse_query(query)
        if (said.get("u"), said.get("sig")) in vouched:
            continue  # the change was to neither of the two, or is another spelling of the same
        changed += 1
        passed += SIGNED.answer(query).outcome == "redirected"
    assert passed == 0


def signature(query: str) -> str | None:
    return parse_query(query)["sig"]


@given(st.text())
def test_what_passes_the_host_list_is_on_it_to_every_reader(text: str) -> None:
    for target in (text, f"https://acme.example{text}", f"https://{text}acme.example/", f"http://www.acme.example/{text}"):
        answer = LISTED.answer(f"u={quote(target, safe='')}")
        if answer.outcome == "redirected":
            assert urlsplit(target).hostname in ("acme.example", "www.acme.example")
            assert urlsplit(target).username is None
            assert answer.head.count(b"\r\n") == 4 == answer.head.count(b"\n")
            assert f"Location: {target}\r\n".encode() in answer.head


@given(st.text(alphabet=st.characters(codec="utf-8")), st.text())
def test_a_signature_of_ours_is_never_enough_for_what_is_no_url(target: str, more: str) -> None:
    head = SIGNED.answer(link(target) + more).head
    assert (b" 302 " in head) == (b"Location" in head)
    assert b" 302 " not in head or host_of_target(target) is not None


@pytest.mark.parametrize(
    "host", ["*", "*.acme.example", "", ".acme.example", "https://acme.example", "acme.example/", "a b", "ä.example"]
)
def test_no_wildcard_can_be_configured(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redirects\.hosts: .* without wildcards"):
        Redirects(Options(hosts=("acme.example", host)))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "hex digits at least"), ("# none\n", "hex digits at least"), ("secret", "in hex digits"), ("00ff", "32 hex digits")],
)
def test_a_key_file_that_protects_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        Redirects(Options(key_file=str(file)))


def test_missing_key_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="spoorway redirect key"):
        Redirects(Options(key_file=str(tmp_path / "none")))


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="possible are redirect and refuse"):
        Redirects(Options(unrecorded="ignore"))


def test_nothing_configured_is_off() -> None:
    assert not Redirects(Options()).on


@served(redirects=Options(key_file=str(KEYS)))
async def test_click_is_answered_only_after_the_journal_has_it(site: Site) -> None:
    site.recorder.gate.clear()
    client = await site.connect()
    await client.send(f"GET /r/tp2?{GOOD} HTTP/1.1\r\nHost: t.example\r\n\r\n".encode())
    await site.recorder.entered.wait()
    assert await client.is_silent()
    site.recorder.gate.set()
    assert (await client.reply())["Location"] == TARGETS[0]
    assert site.payload.query == GOOD


@served(redirects=Options(key_file=str(KEYS), wait_s=0.05))
async def test_click_does_not_wait_for_a_disk_that_hangs(site: Site) -> None:
    site.recorder.gate.clear()
    reply = await site.ask(f"/r/tp2?{GOOD}")
    assert (reply.status, reply["Location"]) == (302, TARGETS[0])
    assert site.counters.requests["redirect_unrecorded"] == 1
    assert (await site.ask("/sink-health")).status == 503


@served(redirects=Options(key_file=str(KEYS)))
async def test_every_click_is_counted_by_what_became_of_it(site: Site) -> None:
    await site.ask(f"/r/tp2?{GOOD}")
    await site.ask("/r/tp2?u=https%3A%2F%2Fevil.example%2F")
    site.recorder.trouble = TransientError("full")
    assert (await site.ask(f"/r/tp2?{GOOD}")).status == 302
    assert (await site.ask("/r/tp2?u=https%3A%2F%2Fevil.example%2F")).status == 503
    counted = {outcome: count for outcome, count in site.counters.requests.items() if count}
    assert counted == {"redirected": 1, "redirect_refused": 1, "redirect_unrecorded": 1, "unavailable": 1}
    assert len(site.recorder.payloads) == 2


def spoorway(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "spoorway", "redirect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60, env=environ)


def test_command_makes_keys_and_signs_what_the_gateway_accepts(tmp_path: Path) -> None:
    made = spoorway("key", "redirect.keys", cwd=tmp_path)
    file = tmp_path / "redirect.keys"
    assert file.stat().st_mode & 0o777 == 0o600
    (tmp_path / "spoorway.toml").write_text(made.stdout.partition("\n")[2])  # it says what to configure
    target = "https://acme.example/a?b=c&d=%20e"
    old = spoorway("sign", "--url", "https://t.example/", "--with", "aid=news", target, cwd=tmp_path).stdout.strip()
    assert old.startswith("https://t.example/r/tp2?u=https%3A%2F%2Facme.example%2Fa")
    assert parse_query(urlsplit(old).query)["aid"] == "news"
    first = file.read_text()
    assert spoorway("key", "redirect.keys", cwd=tmp_path).returncode == 0
    new = spoorway("sign", target, cwd=tmp_path).stdout.strip()
    assert file.read_text().endswith(first) and len(read_keys(file)) == 2
    accepts = Redirects(Options(key_file=str(file)))
    for each in (old, new):
        assert f"Location: {target}\r\n".encode() in accepts.answer(urlsplit(each).query).head
    assert signature(urlsplit(old).query) != signature(urlsplit(new).query)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sign", "javascript:alert(1)", "--key-file", KEYS], "no http"),
        (["sign", "https://acme.example/", "--key-file", KEYS, "--with", "u=https://evil.example/"], "neither u nor sig"),
        (["sign", "https://acme.example/"], "spoorway redirect key FILE"),
        (["key", "/proc/none/keys"], "/proc/none"),
    ],
)
def test_command_refuses_in_one_line(tmp_path: Path, arguments: list[Any], complaint: str) -> None:
    refused = spoorway(*arguments, cwd=tmp_path)
    assert refused.returncode == 1
    assert complaint in refused.stderr and refused.stderr.count("\n") == 1


def test_documented_recipe_signs_as_we_do() -> None:
    """docs/http.md: a template without our code, in shell."""
    page = (Path(__file__).parents[2] / "docs/http.md").read_text("utf-8")
    (recipe,) = (found for found in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "openssl" in found)
    script = re.sub(r"^key=.*$", f"key={read_keys(KEYS)[0].hex()}", recipe, flags=re.MULTILINE)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    (query,) = re.findall(r"\?(\S+)", done.stdout)
    assert SIGNED.answer(query).outcome == "redirected", unquote(query)
