"""spoorway.lua -> build/spoorway.min.lua, the same program in fewer bytes, and build/spoorway-defold.zip, a Defold library.

    python trackers/lua/build.py [FOLDER]        prints the sizes

Removes comments and spaces and gives short names to locals. A name is one thing in the
whole file: what is ever a global, keeps its name everywhere.
"""

from __future__ import annotations

import itertools
import re
import string
import sys
import zipfile
from pathlib import Path

_TOKEN = re.compile(
    r"(?P<comment>--\[\[.*?\]\]|--[^\n]*)|(?P<space>\s+)|(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    r"|(?P<number>0x[0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\.\.\.|\.\.|==|~=|<=|>=|.)",
    re.DOTALL,
)
_WORDS = {
    "and",
    "break",
    "do",
    "else",
    "elseif",
    "end",
    "false",
    "for",
    "function",
    "goto",
    "if",
    "in",
    "local",
    "nil",
    "not",
    "or",
    "repeat",
    "return",
    "then",
    "true",
    "until",
    "while",
}
_LOCAL = re.compile(
    r"\blocal\s+function\s+(\w+)|\blocal\s+([\w\s,]+?)(?=\s*(?:=|\n|;|$))|\bfor\s+([\w\s,]+?)\s+(?:in|=)|=\s*;", re.M
)
_PARAMETERS = re.compile(r"\bfunction\b[\w.:\s]*\(([^)]*)\)")


def _tokens(source: str) -> list[tuple[str, str]]:
    found = [(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(source)]
    return [(kind, text) for kind, text in found if kind not in ("comment", "space")]


def _locals(source: str) -> set[str]:
    bare = re.sub(r"--\[\[.*?\]\]|--[^\n]*", "", source, flags=re.DOTALL)
    bare = re.sub(r"\"(?:\\.|[^\"\\\n])*\"", '""', bare)
    names: set[str] = set()
    for match in _LOCAL.finditer(bare):
        for group in match.groups():
            names.update(re.findall(r"\w+", group or ""))
    for match in _PARAMETERS.finditer(bare):
        names.update(re.findall(r"\w+", match.group(1)))
    return names - _WORDS - {"self"}


def minified(source: str) -> str:
    tokens = _tokens(source)
    names = _locals(source)
    free: dict[str, int] = {}  # how often each local is written where it can be renamed
    pinned: set[str] = set()
    depth: list[str] = []
    fields: set[int] = set()
    for at, (kind, text) in enumerate(tokens):
        before = tokens[at - 1][1] if at else ""
        after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "sign" and text in "({[":
            depth.append(text)
        elif kind == "sign" and text in ")}]":
            depth.pop()
        elif kind == "name" and text not in _WORDS:
            is_key = bool(depth) and depth[-1] == "{" and before in "{,;" and after == "="
            if before in (".", ":") or is_key:
                fields.add(at)
            elif text in names:
                free[text] = free.get(text, 0) + 1
            else:
                pinned.add(text)
    letters = string.ascii_letters
    short = ("".join(p) for n in (1, 2) for p in itertools.product(letters, repeat=n))
    taken = pinned | _WORDS
    renamed: dict[str, str] = {}
    for name in sorted(free, key=lambda name: -free[name] * len(name)):
        renamed[name] = next(word for word in short if word not in taken)
    out = ""
    for at, (kind, text) in enumerate(tokens):
        if kind == "name" and at not in fields:
            text = renamed.get(text, text)
        wordy = out[-1:].isalnum() or out[-1:] == "_"
        if (
            (wordy and (text[0].isalnum() or text[0] == "_"))
            or (out[-1:].isdigit() and text[0] == ".")
            or (out[-1:] == "-" and text[0] == "-")
        ):
            out += " " if len(out) - out.rfind("\n") < 500 else "\n"
        out += text
    return out + "\n"


_PROJECT = "[project]\ntitle = spoorway\nversion = 1.0.0\n\n[library]\ninclude_dirs = spoorway\n"


def defold_library(target: Path, files: list[Path]) -> None:
    """A zip with game.project at its top, the same bytes from the same files: `require("spoorway.spoorway")` in a game."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        texts = {"game.project": _PROJECT.encode()} | {f"spoorway/{file.name}": file.read_bytes() for file in files}
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)


def main() -> int:
    here = Path(__file__).parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "build"
    folder.mkdir(exist_ok=True, parents=True)
    text = (here / "spoorway.lua").read_text("utf-8")
    small = minified(text)
    (folder / "spoorway.min.lua").write_text(small, "utf-8")
    defold_library(
        folder / "spoorway-defold.zip", [here / "spoorway.lua", here / "spoorway_defold.lua", here / "spoorway_device.lua"]
    )
    print(f"spoorway.lua: {len(text.encode()):,} bytes, minified {len(small.encode()):,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
