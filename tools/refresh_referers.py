"""Writes enrich/data/referers.json from the lists of search engines, social networks and assistants in a folder.

    python tools/refresh_referers.py FOLDER DATE

FOLDER holds SearchEngines.yml, Socials.yml and AIAssistants.yml of the Matomo project's searchengine-and-social-list (CC0-1.0);
DATE is their state, yyyy-mm-dd. tools/referers.toml is added. Needs PyYAML.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml  # type: ignore[import-untyped,unused-ignore]

ROOT = Path(__file__).resolve().parent.parent
OWN = ROOT / "tools/referers.toml"
RESULT = ROOT / "enrich/data/referers.json"

# A domain that several lists hold belongs to the first of these.
ORDER = ("paid", "email", "unknown", "chatbot", "social", "search")
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*\.(?:[\w-]+|\{\})(?:/[\w./-]+)?")
_PARAMETER = re.compile(r"[\w.:\[\]-]+")

Media = dict[str, dict[str, dict[str, list[str]]]]


def media(folder: Path) -> Media:
    """medium -> source -> domains and, for searches, the parameters with what was searched for. All sorted, no domain twice."""
    found: Media = {medium: {} for medium in ORDER}
    for engine, groups in _yaml(folder / "SearchEngines.yml").items():
        parameters: list[str] = []
        for group in groups:  # a group without parameters has those of the one before
            parameters = group.get("params", parameters)
            # A pattern in slashes looks into the path, which the tracker protocol's rules do not.
            _add(found["search"], engine, group["urls"], [p for p in parameters if _PARAMETER.fullmatch(p)])
    for medium, name in (("social", "Socials.yml"), ("chatbot", "AIAssistants.yml")):
        for source, urls in _yaml(folder / name).items():
            _add(found[medium], source, urls)
    own = tomllib.loads(OWN.read_text("utf-8"))
    taken = set(own.pop("leave_out")["domains"])
    for medium, sources in own.items():
        for source, urls in sources.items():
            _add(found[medium], source, urls)

    for medium in ORDER:
        for source, facts in list(found[medium].items()):
            facts["domains"] = sorted(set(facts["domains"]) - taken)
            taken |= set(facts["domains"])
            if not facts["domains"]:
                del found[medium][source]
    return {medium: dict(sorted(found[medium].items())) for medium in sorted(ORDER)}


def _add(sources: dict[str, dict[str, list[str]]], source: str, urls: list[str], parameters: list[str] | None = None) -> None:
    facts = sources.setdefault(unquote(str(source)), {"domains": []})
    facts["domains"] += [_domain(url) for url in urls]
    if parameters:
        facts["parameters"] = sorted({*facts.get("parameters", ()), *parameters})


def _domain(url: str) -> str:
    if url.startswith("android-app//"):  # the host of android-app://NAME/… is the name of the app
        url = url.split("/")[2]
    # Hosts are looked up with ever fewer labels in front: neither a country nor "www" needs an entry of its own.
    domain = url.lower().replace("{}.", "").removeprefix("www.").rstrip("/")
    if not _DOMAIN.fullmatch(domain):
        raise SystemExit(f"no domain: {url}")
    return domain


def _yaml(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return document


def document(folder: Path, date: str) -> str:
    lines: list[str] = []
    for medium, sources in media(folder).items():
        rows = [f"   {json.dumps(name, ensure_ascii=False)}: {json.dumps(facts)}" for name, facts in sources.items()]
        lines.append(f'  "{medium}": {{\n' + ",\n".join(rows) + "\n  }")
    head = {
        "about": "Who stands behind a referrer. Written by tools/refresh_referers.py; do not edit.",
        "licence": "Search engines, networks and assistants: Matomo's searchengine-and-social-list, CC0-1.0. Others: ours.",
        "date": date,
    }
    return json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "media": {\n' + ",\n".join(lines) + "\n }\n}\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    RESULT.write_text(document(Path(sys.argv[1]), sys.argv[2]), "utf-8")
    print(f"wrote {RESULT.relative_to(ROOT)}")
