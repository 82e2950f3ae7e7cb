"""Compiles arduino.cpp with the sanitizers, once for each version of the library, and becomes that program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LIBRARY = ROOT / "trackers/arduino/src"
STUBS = ROOT / "tests/trackers/arduino/host"
STRICT = ("-std=c++11", "-O1", "-g", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(source: Path, *options: str, compiler: str = "g++") -> Path:
    """The program of `source` and the library, built when one of them is newer. Raises CalledProcessError."""
    program = ROOT / "build/arduino/host" / source.stem
    program.parent.mkdir(parents=True, exist_ok=True)
    used = [source, *LIBRARY.rglob("*.h"), *STUBS.rglob("*.h")]
    if not program.exists() or program.stat().st_mtime < max(file.stat().st_mtime for file in used):
        made = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, *STRICT, *(options or SANITIZED), f"-I{STUBS}", f"-I{LIBRARY}", source, "-o", made], check=True)
        made.rename(program)
    return program


if __name__ == "__main__":
    program = compiled(HERE / "arduino.cpp")
    sys.stdout.flush()
    os.execv(program, [str(program), *sys.argv[1:]])
