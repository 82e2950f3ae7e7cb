"""Only a whole head acknowledges: a server that breaks off before, babbles or is silent leaves every event in the queue.

A collector answers 2xx when it has the events; how its body comes, and whether, takes nothing back.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import pytest
from tests.trackers.micropython import boards

pytestmark = pytest.mark.slow

# What the server says to one request after the other, and what becomes of the event.
ANSWERS = [
    (b"", "kept"),
    (b"HTTP/1.1 200 OK\r\nContent-Len", "kept"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "kept"),
    (b"\xff\xfe\r\n\r\n", "kept"),
    (b"HTTP/1.1 two OK\r\nContent-Length: 0\r\n\r\n", "kept"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000 + b"\r\n\r\n", "kept"),
    (b"HTTP/1.1 503 Busy\r\nretry-after:   700\r\nContent-Length: 0\r\n\r\n", "kept"),
    (b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n", "kept"),
    (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "kept"),
    (None, "kept"),  # silence
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "sent"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", "sent"),
    (b"HTTP/1.1 200 OK\r\nRetry-After: never\r\ncontent-length:0\r\n\r\n", "sent"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "sent"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\xff\xfe\r\n", "sent"),
    (b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", "refused"),
]


def serve(listener: socket.socket) -> None:
    with contextlib.ExitStack() as silent:
        for answer, _ in ANSWERS:
            connection, _ = listener.accept()
            request = b""
            while b"payload_data" not in request or not request.endswith(b"]}"):
                request += (part := connection.recv(4096))
                if not part:
                    return  # it ended too early, as its outcome tells
            if answer is None:
                silent.enter_context(connection)
                continue
            with contextlib.suppress(ConnectionError):  # of a head without an end the board reads no more than 2 KB
                connection.sendall(answer)
            connection.close()


@pytest.mark.parametrize("interpreter", ["micropython", "cpython"])
def test_only_a_whole_head_acknowledges(interpreter: str) -> None:
    boards.require_interpreter()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = boards.run(interpreter, "answers.py", boards.PACKAGE, url, str(len(ANSWERS)))
        thread.join(5)
    assert done.returncode == 0, done.stderr
    seen, pauses = json.loads(done.stdout)
    assert seen == [what for _, what in ANSWERS]
    assert pauses[7] >= 699_500  # as long as Retry-After asks; the tracker's own pause is up to 64 s here
