"""A program in a process of its own, asked one message at a time: what cannot be trusted to end is ended from outside.

The process has no environment, opens no file once it is set up, and ends itself if we are gone.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from importlib import import_module

from enrich.enrichments import Unanswered

_START_S = 20.0
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from spoorway.apart import serve; serve(sys.argv[1])"
_LENGTH, _TIMEOUT = struct.Struct("!I"), struct.Struct("!d")
_CHUNK = 1 << 16


class Apart:
    """Call it with a message. Starts anew after a process that was ended. Raises ValueError when the setup is refused."""

    def __init__(self, module: str, setup: bytes, timeout_s: float) -> None:
        self._module, self._setup, self._timeout_s = module, setup, timeout_s
        self._process: _Process | None = self._started()

    def __call__(self, message: bytes) -> bytes:
        process = self._process = self._process or self._started()
        try:
            return process.asked(message, self._timeout_s)
        except TimeoutError:
            why = f"no answer within {self._timeout_s:g} s"
        except OSError:
            why = "it broke off"
        self._process = None
        process.end()
        raise Unanswered(why)

    def _started(self) -> _Process:
        process = _Process(self._module)
        try:
            refused = process.asked(_TIMEOUT.pack(self._timeout_s) + self._setup, _START_S)
        except OSError as error:
            process.end()
            raise Unanswered(f"it did not start: {type(error).__name__}") from None
        if refused:
            process.end()
            raise ValueError(refused.decode())
        return process


class _Process:
    def __init__(self, module: str) -> None:
        self._ours, theirs = socket.socketpair()
        arguments = [sys.executable, "-I", "-X", "faulthandler", "-c", _BOOT, module, json.dumps(sys.path)]
        with theirs:
            process = subprocess.Popen(
                arguments,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                start_new_session=True,
            )
        self.end = weakref.finalize(self, _end, process, self._ours)

    def asked(self, message: bytes, timeout_s: float) -> bytes:
        """Raises OSError; TimeoutError is one."""
        deadline = time.monotonic() + timeout_s
        self._ours.settimeout(timeout_s)
        self._ours.sendall(_LENGTH.pack(len(message)) + message)
        found = self._ours.recv(_CHUNK)
        while not (whole := _whole(found)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._ours.settimeout(left)
            chunk = self._ours.recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError
            found += chunk
        return whole[_LENGTH.size :]


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    ours.close()
    process.kill()
    process.wait()


def serve(module: str) -> None:
    """The other side: reads messages from standard input, a socket, until it closes."""
    with socket.socket(fileno=os.dup(0)) as theirs:
        first = _message(theirs)
        (timeout_s,) = _TIMEOUT.unpack_from(first)
        try:
            program = import_module(module).Program(first[_TIMEOUT.size :])
        except ModuleNotFoundError as error:
            _send(theirs, f"it needs the package {error.name}".encode())
            return
        except ValueError as error:
            _send(theirs, str(error).encode("utf-8", "replace") or b"refused")
            return
        for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(limit, (0, 0))
        _send(theirs, b"")
        while message := _message(theirs):
            # The kernel ends us, even in the middle of C, should nobody be left to do it.
            signal.setitimer(signal.ITIMER_REAL, timeout_s + 1)
            answer = program(message)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(theirs, answer)


def _whole(found: bytes) -> bytes:
    """`found` once it is a whole message with its length before it, b"" until then. There is never a second one behind it."""
    return found if len(found) >= _LENGTH.size and len(found) >= _LENGTH.size + _LENGTH.unpack_from(found)[0] else b""


def _message(theirs: socket.socket) -> bytes:
    """b"" at the end."""
    found = b""
    while not (whole := _whole(found)):
        chunk = theirs.recv(_CHUNK)
        if not chunk:
            return b""
        found += chunk
    return whole[_LENGTH.size :]


def _send(theirs: socket.socket, message: bytes) -> None:
    theirs.sendall(_LENGTH.pack(len(message)) + message)
