"""A real OpenSearch of a test's own: one node in a process of its own, on a free loopback port, deleted with the test.

Its libraries come from Maven Central (tools/opensearch); its security plugin is none of them, so it lets everybody in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.peers.ports import free_port
from tests.peers.programs import missing

LIBRARIES = Path(__file__).parents[2] / "build" / "opensearch"
_START_S = 120.0


class OpenSearchServer:
    """`with OpenSearchServer() as server`: server.url. kill and start leave the data where it is."""

    def __init__(self) -> None:
        self._home, self._process, self.port = Path(), None, 0

    _process: subprocess.Popen[bytes] | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> OpenSearchServer:
        if not (LIBRARIES / "made").is_file() or shutil.which("java") is None:
            missing("opensearch")
        memory = Path("/dev/shm")  # its fsyncs cost nothing there, and no test cuts the power
        self._home = Path(tempfile.mkdtemp(prefix="spoorway-opensearch-", dir=memory if memory.is_dir() else None))
        (self._home / "config").mkdir()
        self.port = free_port()
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self._home)

    def start(self) -> None:
        """Returns when it answers; after a kill that is when it has recovered."""
        options = ["-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        path = f"{LIBRARIES}/classes:{LIBRARIES}/lib/*"
        with (self._home / "said").open("ab") as said:
            self._process = subprocess.Popen(
                ["java", *options, "-cp", path, "OpenSearchNode", str(self._home), str(self.port)],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
            )
        end = time.monotonic() + _START_S
        while True:
            try:
                self.call("GET", "/_cluster/health?wait_for_status=yellow&timeout=30s")
                return
            except OSError:
                text = (self._home / "said").read_text("utf-8", "replace")
                assert self._process.poll() is None and time.monotonic() < end, text[-3000:]
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """What it answers. Raises OSError, of which HTTPError is one."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found
