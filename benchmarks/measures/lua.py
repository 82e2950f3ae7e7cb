"""What the Lua tracker takes of a game: a call, a frame, memory, a start; beside it, a request for each event."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from benchmarks.server import ROOT, Server, spoorway
from tests.peers.ports import free_port

_LUAS = ("lua5.1", "lua5.4", "luajit")
_ALL_LUAS = ("lua5.1", "lua5.2", "lua5.3", "lua5.4", "lua5.5", "luajit")
_BUILDS = ("", "min", "core", "packed", "packed_core")
_IN_LUPA = """
import lupa.lua55, sys
lua = lupa.lua55.LuaRuntime()
lua.globals().arg = lua.table_from({i: text for i, text in enumerate(sys.argv[1:])})
lua.execute(open(sys.argv[1]).read())
"""
_PROGRAM = ROOT / "benchmarks" / "lua_frames.lua"
_TRACKER = ROOT / "trackers" / "lua"
_NOWHERE = "http://127.0.0.1:9"


def measure(effort: Effort) -> Result:
    port = free_port()
    builds = _builds(effort)
    rows: list[Row] = []
    raw: dict[str, list[list[float]]] = {}
    with Server(spoorway("run", effort.folder / "data", port, free_port()), port, effort.folder / "log"), _Hanging() as hanging:
        healthy = f"http://127.0.0.1:{port}"
        cases = [
            ("track a self-describing event, in the file when it returns, µs of processor", "track", _NOWHERE, 0),
            ("track a structured event, in the file when it returns, µs of processor", "structured", _NOWHERE, 0),
            ("peer: dkjson, LuaSocket's base64 in C, a line in a file, µs of processor", "plain", _NOWHERE, 0),
            ("from require to a tracker with nothing to send, ms of processor", "load", _NOWHERE, 0),
            ("packed build: from require to a tracker, ms of processor", "load", _NOWHERE, 0),
            ("packed build: track, µs of processor", "track", _NOWHERE, 0),
            ("open a queue of 10,000 events, ms", "open", _NOWHERE, 0),
            ("update(), 999 of 1,000 frames, gateway answers, ms", "update", healthy, 0),
            ("update(), 999 of 1,000 frames, gateway answers, ms of processor", "update", healthy, 1),
            ("update(), 999 of 1,000 frames, gateway hangs, ms", "update", hanging.url, 0),
            ("update(), 999 of 1,000 frames, gateway hangs, ms of processor", "update", hanging.url, 1),
            ("peer: socket.http per event, gateway answers, median, ms", "blocking", healthy, 0),
            ("peer: socket.http per event, gateway hangs (time-out 2 s), ms", "blocking", hanging.url, 0),
        ]
        for title, what, url, place in cases:
            row: Row = {"what": title}
            for lua in _LUAS:
                tracker = builds["packed" if title.startswith("packed") else ""]
                rounds = sorted(
                    (_figures(effort, tracker, lua, what, url) for _ in range(effort.rounds)), key=lambda one: one[place]
                )
                raw[f"{title}: {lua}"] = rounds
                row[lua] = rounds[len(rounds) // 2][place]
            rows.append(row)
    memory, raw["memory"] = _memory(effort, builds)
    return Result(
        "what the Lua tracker takes of a game",
        f"One program per figure, {effort.rounds} times each, the median told. An event has five properties and about 450 bytes.",
        "made by benchmarks/lua_frames.lua.",
        [Table("Calls and frames", rows), Table("Memory, KB", memory)],
        [
            "`track` writes to the file before it returns; it does not wait for the disk.",
            "Memory is counted after collecting until nothing more is freed, and without the interpreter's table of all strings; "
            "once, since it does not vary. A tracker alone: package.loaded.spoorway = nil. Lua 5.5 is lupa's, without LuaSocket.",
            "Of 1,000 events the most between batches: one on its way takes some three times its bytes more (batch_bytes). "
            "What LuaJIT compiles while it runs is counted, too.",
            "The frame budget was the default, 0.2 ms; a step that has begun is finished.",
            "The peers: what one writes to a file by hand, without checksums, limits or a queue; and LuaSocket's socket.http "
            "called when something happens: what the frame waits for, and nothing is kept.",
        ],
        raw,
    )


def _builds(effort: Effort) -> dict[str, Path]:
    """Of each build, "" the file as it is: a folder where `require "spoorway"` finds it."""
    made = effort.folder / "lua_build"
    subprocess.run([sys.executable, str(_TRACKER / "build.py"), str(made)], check=True, capture_output=True, timeout=60)
    folders = {"": _TRACKER}
    for build in _BUILDS[1:]:
        folders[build] = effort.folder / f"lua_{build}"
        folders[build].mkdir()
        (made / f"spoorway.{build}.lua").rename(folders[build] / "spoorway.lua")
    return folders


def _memory(effort: Effort, builds: dict[str, Path]) -> tuple[list[Row], list[list[float]]]:
    """A row per build and moment; and the figures as they were said."""
    rows: list[Row] = []
    raw: list[list[float]] = []
    for build in _BUILDS:
        said = [
            _figures(effort, builds[build], lua, "memory", _NOWHERE)[:3] + _figures(effort, builds[build], lua, "sent", _NOWHERE)
            for lua in _ALL_LUAS
        ]
        raw += said
        name = f"spoorway.{build}.lua".replace("..", ".")
        for place, moment in enumerate(("after load", "with a tracker", "a tracker alone", "after 1,000 events")):
            figures = {lua: one[place] for lua, one in zip(_ALL_LUAS, said, strict=True)}
            rows.append({"what": f"{name}: {moment}", **figures})
    return rows, raw


def _figures(effort: Effort, tracker: Path, lua: str, what: str, url: str) -> list[float]:
    start = [sys.executable, "-c", _IN_LUPA] if lua == "lua5.5" else [lua]
    with tempfile.TemporaryDirectory(dir=effort.folder) as folder:
        command = [*start, str(_PROGRAM), str(tracker), what, folder, url]
        said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    return [float(word) for word in said if word.count(".") < 2]


class _Hanging:
    """A server that takes connections and never says a word."""

    def __enter__(self) -> _Hanging:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._links.append(self._listener.accept()[0])

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in [self._listener, *self._links]:
            each.close()
