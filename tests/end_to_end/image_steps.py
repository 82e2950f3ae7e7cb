"""What deploy/Dockerfile does, done in a folder: there is no container engine where these tests run, so no image is built.

`python -m tests.end_to_end.image_steps` does all of it, with everything that is installed coming from the registry; what the
tests do takes what this checkout has instead, and only installs the product itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
_SECONDS = 900


@dataclass(slots=True)
class Stage:
    """Of a Dockerfile: its instructions in order, as (word, rest)."""

    name: str
    steps: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def last(self, word: str) -> str:
        return [rest for name, rest in self.steps if name == word][-1]


def stages(text: str) -> list[Stage]:
    found: list[Stage] = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, rest = line.split(" ", 1)
            if word == "FROM":
                found.append(Stage(rest.rpartition(" AS ")[2]))
            else:
                found[-1].steps.append((word, rest))
    return found


def build(folder: Path, whole: bool = False) -> Path:
    """The build stage: what COPY copies, and what RUN runs, with /opt below `folder`. The program that comes of it."""
    source, opt = folder / "src", folder / "opt"
    source.mkdir(parents=True)
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for word, rest in stages(DOCKERFILE.read_text("utf-8"))[0].steps:
        if word == "COPY":
            *names, into = rest.split()
            for name in names:
                _copy(ROOT / name, source / into / (name if into == "./" else ""))
        elif word == "ARG":
            name, _, environment[name] = rest.partition("=")
        elif word == "RUN":
            for command in rest.replace("/opt/", f"{opt}/").split(" && "):
                _run(command, source, environment)
                if not whole and " -m venv " in command:
                    _lend(opt / "spoorway", environment)
    return opt / "spoorway" / "bin" / "spoorway"


def command() -> list[str]:
    """ENTRYPOINT and CMD of the last stage, without the program's place."""
    last = stages(DOCKERFILE.read_text("utf-8"))[-1]
    return [*json.loads(last.last("ENTRYPOINT")), *json.loads(last.last("CMD"))]


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(path, to)


def _run(command: str, where: Path, environment: dict[str, str]) -> None:
    if command.startswith("python "):
        command = sys.executable + command.removeprefix("python")
    done = subprocess.run(["sh", "-c", command], cwd=where, env=environment, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def _lend(venv: Path, environment: dict[str, str]) -> None:
    """The other distributions are those of this checkout: nothing is fetched. Its own product is not among them."""
    (here,) = venv.glob("lib/python*/site-packages")
    for path in map(Path, site.getsitepackages()):
        for thing in path.iterdir():
            if not re.match(r"(__pycache__$|pip|_?_?editable|_?spoorway|.*\.pth$)", thing.name, re.IGNORECASE):
                target = here / thing.name
                if not target.exists():
                    target.symlink_to(thing)
    environment |= {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="spoorway-image-") as folder:
        program = build(Path(folder), whole=True)
        for arguments in (["--version"], ["gateway", "--help"], ["worker", "--help"]):
            subprocess.run([program, *arguments], check=True, timeout=60, stdout=subprocess.DEVNULL)
        modules = "confluent_kafka, boto3, pyarrow, psycopg, uvloop, maxminddb, paho.mqtt, ua_parser"
        subprocess.run([program.parent / "python", "-c", f"import {modules}"], check=True, timeout=60)
        size = subprocess.run(["du", "-sm", program.parents[1]], capture_output=True, text=True, check=True).stdout.split()[0]
        print(f"every step of the build stage was done; the environment has {size} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
