"""spoorway.lua -> the same program in fewer bytes, as a whole and without the transports of its own; a library for Defold.

python trackers/lua/build.py [FOLDER]        prints the sizes

spoorway.min.lua            the whole
spoorway.core.lua           without what it has for LuaSocket and LÖVE: for a host that gives a transport
spoorway.packed.lua         the whole, unpacks itself
spoorway.packed_core.lua    the core, unpacks itself; in ASCII, since Defold's tools take a source for UTF-8
spoorway-defold.zip         for Defold's dependencies
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

from minify import minified
from pack import packed

_PRIVATE = ("batch", "bytes", "count", "done", "erase", "forget", "list", "name", "order", "passed", "put")  # the queue's
_TRANSPORTS = re.compile(r"-- \[transports\n.*?-- transports\]\n", re.DOTALL)
_PROJECT = "[project]\ntitle = spoorway\nversion = 1.0.0\n\n[library]\ninclude_dirs = spoorway\n"


def defold_library(target: Path, files: list[Path]) -> None:
    """A zip with game.project at its top, the same bytes from the same files: `require("spoorway.spoorway")` in a game."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        texts = {"game.project": _PROJECT.encode()} | {f"spoorway/{file.name}": file.read_bytes() for file in files}
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)


def main() -> int:
    """Writes the builds; the exit code."""
    here = Path(__file__).parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "build"
    folder.mkdir(exist_ok=True, parents=True)
    text = (here / "spoorway.lua").read_text("utf-8")
    core, parts = _TRANSPORTS.subn("", text)
    if parts != 1:
        raise ValueError("spoorway.lua does not say which part is its transports")
    builds = {
        "min": minified(text, _PRIVATE).encode(),
        "core": minified(core, _PRIVATE).encode(),
        "packed": packed(minified(text, _PRIVATE, keep_globals=False)),
        "packed_core": packed(minified(core, _PRIVATE, keep_globals=False), ascii_only=True),
    }
    print(f"spoorway.lua: {len(text.encode()):,} bytes")
    for name, build in builds.items():
        (folder / f"spoorway.{name}.lua").write_bytes(build)
        print(f"spoorway.{name}.lua: {len(build):,} bytes")
    defold_library(folder / "spoorway-defold.zip", [here / f"spoorway{part}.lua" for part in ("", "_defold", "_device")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
