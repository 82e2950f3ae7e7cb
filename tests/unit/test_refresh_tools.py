"""The tools that write the lists: what they make of their sources, and that the committed lists hold what is ours."""

from __future__ import annotations

import json
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from enrich.enrichments import bots, referer

ROOT = Path(__file__).parents[2]
ENGINES = r"""
Seeker:
  -
    urls: [www.seeker.example, 'seeker.{}', '{}.images.seeker.example']
    params: [q, '/find\/([^\/]+)/']
  -
    urls: [seeker.example/more]
  -
    urls: [partner.example]
    params: [k]
Shared:
  - urls: [shared.example, cnn.com, 'android-app//org.seeker.app/https/seeker.example']
    params: [q]
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "SearchEngines.yml").write_text(ENGINES)
    (tmp_path / "Socials.yml").write_text("Net%2B:\n  - net.example\n")
    (tmp_path / "AIAssistants.yml").write_text("Oracle:\n  - shared.example\n  - net.example/ask\n")
    return tmp_path


def test_referrers_are_sorted_into_one_medium_each(sources: Path) -> None:
    tool = runpy.run_path(str(ROOT / "tools/refresh_referers.py"))
    made = json.loads(tool["document"](sources, "2026-01-02"))
    assert made["date"] == "2026-01-02"
    assert made["media"]["search"] == {
        "Seeker": {
            "domains": ["images.seeker.example", "partner.example", "seeker.example", "seeker.example/more", "seeker.{}"],
            "parameters": ["k", "q"],
        },
        "Shared": {"domains": ["org.seeker.app"], "parameters": ["q"]},
    }
    assert made["media"]["chatbot"] == {"Oracle": {"domains": ["net.example/ask", "shared.example"]}}
    assert made["media"]["social"]["Net+"] == {"domains": ["net.example"]}
    referer.read(json.dumps(made).encode())


def test_what_is_no_domain_stops_the_tool(sources: Path) -> None:
    tool = runpy.run_path(str(ROOT / "tools/refresh_referers.py"))
    (sources / "Socials.yml").write_text("Bad:\n  - 'no domain'\n")
    with pytest.raises(SystemExit, match="no domain"):
        tool["media"](sources)


def test_list_of_referrers_holds_ours() -> None:
    own: dict[str, Any] = tomllib.loads((ROOT / "tools/referers.toml").read_text("utf-8"))
    left_out = set(own.pop("leave_out")["domains"])
    media = json.loads((ROOT / "enrich/data/referers.json").read_text("utf-8"))["media"]
    assert not left_out & {d for sources in media.values() for facts in sources.values() for d in facts["domains"]}
    for medium, sources in own.items():
        for source, domains in sources.items():
            assert {domain.removeprefix("www.") for domain in domains} <= set(media[medium][source]["domains"])


def test_robots_are_texts_where_they_can_be_and_patterns_where_they_must(tmp_path: Path) -> None:
    entries = [
        {"pattern": r"Snail\/", "instances": ["Snail/1"], "tags": ["seo", "slow"]},
        {"pattern": "^[sS]lug", "instances": ["slug"], "tags": []},
        {"pattern": r"Snail\.Two", "instances": []},
    ]
    (tmp_path / "crawler-user-agents.json").write_text(json.dumps(entries))
    (tmp_path / "LICENSE").write_text("Be\nkind.")
    tool = runpy.run_path(str(ROOT / "tools/refresh_bots.py"))
    made = json.loads(tool["document"](tmp_path, "2026-01-02"))
    assert (made["licence"], made["date"]) == ("Be kind.", "2026-01-02")
    assert {json.dumps(rule) for rule in made["rules"]} == {
        '{"text": "Snail/", "kind": "seo"}',
        '{"pattern": "^[sS]lug"}',
        '{"text": "Snail.Two"}',
    }
    first = bots.read(json.dumps(made).encode()).first
    found = [rule and rule.text for rule in map(first, ("a Snail/2", "Slug", "x Slug", "Snail.Two", "SnailxTwo"))]
    assert found == ["Snail/", "^[sS]lug", None, "Snail.Two", None]


def test_pattern_that_does_not_find_its_examples_stops_the_tool(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([{"pattern": "Snail", "instances": ["Slug"]}]))
    tool = runpy.run_path(str(ROOT / "tools/refresh_bots.py"))
    with pytest.raises(SystemExit, match="finds none of its own examples"):
        tool["rules"](tmp_path / "list.json")
