"""Runs a peer program and hands back its answer; says by name which runtime is missing.

SPOORWAY_REQUIRE_RUNTIMES=1 turns a missing runtime from a skip into a failure, so that a suite cannot be skipped unnoticed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.peers.expectation import Run

FOLDER = Path(__file__).parent
TABLE: dict[str, Any] = json.loads((FOLDER / "calls.json").read_text("utf-8"))
CHROMIUM = "/usr/bin/chromium"
_SECONDS = 60


def missing(runtime: str) -> NoReturn:
    """Fails the test when runtimes are required, else skips it; either way by the runtime's name."""
    message = f"missing runtime: {runtime}"
    if os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def install() -> Path:
    """node_modules of tests/peers, installed from the lock file if it is not what the lock file says."""
    for runtime in ("node", "npm"):
        if shutil.which(runtime) is None:
            missing(runtime)
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".installed-lock.json"
    if not installed.is_file() or installed.read_bytes() != lock.read_bytes():
        done = subprocess.run(
            ["npm", "ci", "--no-progress"], cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            missing(f"npm packages of {FOLDER.name} (npm ci: {done.stderr.strip()[-500:]})")
        shutil.copyfile(lock, installed)
    return FOLDER / "node_modules"


def bundle(entry: str, to: Path) -> Path:
    """One browser program with its tracker and plugins as a classic script. Needs `install` to have run."""
    subprocess.run(
        [
            FOLDER / "node_modules" / ".bin" / "esbuild",
            FOLDER / "browser" / entry,
            "--bundle",
            "--format=iife",
            "--target=chrome100",
            "--log-level=warning",
            f"--outfile={to}",
        ],
        check=True,
        timeout=60,
    )
    return to


def run_python(url: str, method: str, base64: str, anonymous: bool = False) -> Run:
    return _run([sys.executable, str(FOLDER / "python_peer.py")], url, method, base64, anonymous)


def run_node(url: str, method: str, base64: str, anonymous: bool = False) -> Run:
    return _run(["node", str(FOLDER / "node_peer.mjs")], url, method, base64, anonymous)


def run_browser(
    url: str, script: Path, generation: str, method: str = "post", base64: str = "off", anonymous: bool = False
) -> Run:
    """generation: v3, v4 or newest; script: its bundle."""
    program = [sys.executable, str(FOLDER / "browser_peer.py"), "--bundle", str(script), "--generation", generation]
    return _run([*program, "--chromium", CHROMIUM], url, method, base64, anonymous)


def _run(program: list[str], url: str, method: str, base64: str, anonymous: bool) -> Run:
    started = now_ms()
    command = [*program, url, "--method", method, "--base64", base64, *(["--anonymous"] if anonymous else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return Run(json.loads(done.stdout.splitlines()[-1]), started, now_ms(), anonymous)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
