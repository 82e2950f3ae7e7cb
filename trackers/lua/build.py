"""spoorway.lua -> build/spoorway.min.lua and build/spoorway.packed.lua, the same program in fewer bytes; a library for Defold.

python trackers/lua/build.py [FOLDER]        prints the sizes
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from minify import minified
from pack import packed

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
    small = minified(text)
    (folder / "spoorway.min.lua").write_text(small, "utf-8")
    tiny = packed(small)
    (folder / "spoorway.packed.lua").write_bytes(tiny)
    defold_library(folder / "spoorway-defold.zip", [here / f"spoorway{part}.lua" for part in ("", "_defold", "_device")])
    print(f"spoorway.lua: {len(text.encode()):,} bytes, minified {len(small.encode()):,}, packed {len(tiny):,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
