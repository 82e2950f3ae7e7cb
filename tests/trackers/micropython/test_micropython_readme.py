"""What the MicroPython tracker's README shows runs as it stands, but for addresses; mip installs the whole package."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import Running
from tests.trackers.micropython import boards

pytestmark = pytest.mark.slow


def test_samples_run(start: Callable[..., Running], tmp_path: Path) -> None:
    boards.require_interpreter()
    gateway = start("--mqtt", "127.0.0.1:0")
    mqtt = json.loads((gateway.data / "running.json").read_text())["urls"]["mqtt"][0]
    samples = re.findall(r"```python\n(.*?)```", (boards.PACKAGE / "README.md").read_text(), re.DOTALL)
    assert len(samples) == 5
    script = "\n".join(["import sys", f"sys.path.insert(0, {str(boards.PACKAGE)!r})", *samples, "assert tracker.flush(9000)"])
    script = script.replace("http://192.168.1.10:8080", gateway.url).replace("mqtt://192.168.1.10:1883", mqtt)
    script = script.replace('"/queue"', repr(str(tmp_path / "queue")))
    (tmp_path / "sample.py").write_text(script)
    command = [str(boards.INTERPRETER), str(tmp_path / "sample.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    gateway.wait(7)
    events = {row["event_name"] for row in gateway.query("SELECT event_name FROM atomic.events")}
    assert events == {"event", "page_view", "screen_view", "timing", "queue_health"}


def test_commands_make_the_files_of_a_board(tmp_path: Path) -> None:
    make, pack = re.findall(r"```sh\n(.*?)```", (boards.PACKAGE / "README.md").read_text(), re.DOTALL)
    build = pack.splitlines()[0]  # the other line asks for a board
    shutil.copytree(boards.PACKAGE / "spoor", tmp_path / "spoor")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = functools.partial(subprocess.run, check=True, capture_output=True, timeout=boards.LONGEST_S)
    run(["sh", "-ec", make + build], cwd=tmp_path, env={**os.environ, "PATH": path})
    made = {file.name: file.read_bytes() for file in (tmp_path / "board" / "lib" / "spoor").iterdir()}
    assert made == {file.name: file.read_bytes() for file in (boards.compiled(tmp_path / "ours") / "spoor").iterdir()}
    assert (tmp_path / "spoor.romfs").read_bytes()[:3] == b"\xd2\xcd\x31"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_mip_installs_the_package(tmp_path: Path) -> None:
    boards.require_interpreter()
    facts = json.loads((boards.PACKAGE / "package.json").read_text())
    sources = {f"spoor/{file.name}" for file in (boards.PACKAGE / "spoor").glob("*.py")} - {"spoor/platform.py"}
    assert {name for name, _ in facts["urls"]} == sources
    with served(boards.PACKAGE) as url:
        # This interpreter's mip is of a time before addresses could be relative.
        facts["urls"] = [[name, f"{url}/{at}"] for name, at in facts["urls"]]
        (tmp_path / "package.json").write_text(json.dumps(facts))
        with served(tmp_path) as second:
            code = f"import mip; mip.install({second + '/package.json'!r}, target={str(tmp_path / 'lib')!r}, mpy=False)"
            subprocess.run([str(boards.INTERPRETER), "-c", code], check=True, timeout=30, capture_output=True)
    for name in sources:
        assert (tmp_path / "lib" / name).read_bytes() == (boards.PACKAGE / name).read_bytes()
    use = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r}); import spoor.verbs, spoor.board; print(spoor.uuid())"
    done = subprocess.run([str(boards.INTERPRETER), "-c", use], check=True, timeout=30, capture_output=True, text=True)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n", done.stdout)
