"""Writes enrich/data/bots.json from the crawler-user-agents list (MIT licence).

    pip download --no-deps crawler-user-agents && unzip crawler_user_agents-*.whl -d FOLDER
    python tools/refresh_bots.py FOLDER DATE

FOLDER holds crawler-user-agents.json and LICENSE, at any depth; DATE is the list's, yyyy-mm-dd. The licence goes with the list.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "enrich/data/bots.json"

# A pattern without any operator is a text with some of its characters escaped, and a text is found twenty times as fast.
_PLAIN = re.compile(r"(?:[^\\\[\](){}.*+?^$|]|\\[^A-Za-z0-9])+")


def rules(patterns: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for entry in json.loads(patterns.read_text("utf-8")):
        pattern = entry["pattern"]
        if not any(re.search(pattern, agent) for agent in entry["instances"]) and entry["instances"]:
            raise SystemExit(f"{pattern}: finds none of its own examples")
        rule = {"text": re.sub(r"\\(.)", r"\1", pattern)} if _PLAIN.fullmatch(pattern) else {"pattern": pattern}
        if entry.get("tags"):
            rule["kind"] = entry["tags"][0]
        found.append(rule)
    return sorted(found, key=lambda rule: sorted(rule.items()))


def document(folder: Path, date: str) -> str:
    licence = next(folder.rglob("LICENSE")).read_text("utf-8")
    head = {
        "about": "Robots by their user agents. Written by tools/refresh_bots.py from crawler-user-agents; do not edit.",
        "licence": " ".join(licence.split()),
        "date": date,
    }
    rows = [f"  {json.dumps(rule, ensure_ascii=False)}" for rule in rules(next(folder.rglob("crawler-user-agents.json")))]
    return json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "rules": [\n' + ",\n".join(rows) + "\n ]\n}\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    RESULT.write_text(document(Path(sys.argv[1]), sys.argv[2]), "utf-8")
    print(f"wrote {RESULT.relative_to(ROOT)}")
