"""Writes the blocks that other files hold of columns.json and parameters.json; `--check` only compares.

A block lies between a line with `<generated from …>` and a line with `</generated>`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from protocol.tables import COLUMNS  # noqa: E402  the checkout comes first on the path

PYTHON_TYPES = {
    "string": "str",
    "uuid": "str",
    "timestamp": "int",
    "integer": "int",
    "decimal": "Decimal",
    "float": "float",
    "boolean": "bool",
}
JSON_TYPES = {
    "unstruct_event": "SelfDescribing",
    "contexts": "list[SelfDescribing]",
    "derived_contexts": "list[SelfDescribing]",
}


def event_fields() -> str:
    return "".join(f"    {c.name}: {JSON_TYPES.get(c.name) or PYTHON_TYPES[c.type]}\n" for c in COLUMNS)


BLOCKS: dict[str, Callable[[], str]] = {"protocol/seams.py": event_fields}


def with_block(text: str, block: str) -> str:
    pattern = re.compile(r"(^[^\n]*<generated from [^\n]*\n)(.*?)(^[^\n]*</generated>)", re.DOTALL | re.MULTILINE)
    new, count = pattern.subn(lambda m: m[1] + block + m[3], text)
    if count != 1:
        raise SystemExit(f"expected one generated block, found {count}")
    return new


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale: list[str] = []
    for name, make in BLOCKS.items():
        path = ROOT / name
        old = path.read_text("utf-8")
        new = with_block(old, make())
        if old != new:
            stale.append(name)
            if not check:
                path.write_text(new, "utf-8")
    print("\n".join(stale) or "generated blocks are up to date")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
