"""Gunicorn with Django and with Flask, uvicorn with FastAPI, a Celery worker: real ones, end to end (examples/python-tracker)."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Running
from tests.peers.ports import free_port

EXAMPLES = Path(__file__).parents[3] / "examples/python-tracker"
COOKIE = (
    "_sp_id.1fff=11111111-2222-4333-8444-555555555555.1700000000.3.1700000100.1690000000.6de9024e-17b9-4026-bd4d-efec50ae84cb"
)
TIMINGS = "SELECT unstruct_event FROM atomic.events WHERE event_name = 'timing'"

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def serving(command: list[str], port: int, environment: dict[str, str], errors: Path) -> Iterator[None]:
    """Until SIGTERM, which it must answer by ending properly."""
    with errors.open("wb") as log, subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdout=log, stderr=log) as process:
        end = time.monotonic() + 20
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < end, errors.read_text()
                    time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Cookie": COOKIE, "User-Agent": "Test/1.0", "Accept-Language": "de-DE,de;q=0.9"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def expect_rows(product: Running, app: str, port: int, pages: int, timings: int) -> None:
    """Per page: a page view, a timing, and the view's own event; one error; all under the cookie's ids."""
    product.wait(2 * pages + timings + 1)
    rows: list[dict[str, Any]] = product.query("SELECT * FROM atomic.events WHERE app_id = ?", app)
    kinds = sorted(row["event_name"] for row in rows)
    assert kinds.count("page_view") == kinds.count("event") == pages
    assert kinds.count("application_error") == 1
    assert kinds.count("timing") == timings
    for row in rows:
        assert row["domain_userid"] == "11111111-2222-4333-8444-555555555555"
        assert (row["domain_sessionidx"], row["domain_sessionid"]) == (3, "6de9024e-17b9-4026-bd4d-efec50ae84cb")
        assert (row["useragent"], row["br_lang"]) == ("Test/1.0", "de-DE")
    urls = {row["page_url"] for row in rows if row["event_name"] == "page_view"}
    assert urls == {f"http://127.0.0.1:{port}/ducks/{n}" for n in range(pages)}
    assert {row["se_label"] for row in rows if row["event_name"] == "event"} == {str(n) for n in range(pages)}


def test_gunicorn_and_django(spoorway_run: Running, environment: dict[str, str], tmp_path: Path) -> None:
    port, environment = free_port(), environment | {"SPOORWAY": spoorway_run.url}
    environment.pop("PYTHONWARNINGS")  # other people's programs
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers",
        "2",
        "--bind",
        f"127.0.0.1:{port}",
        "django_app:application",
    ]
    with serving(command, port, environment, tmp_path / "log.txt"):
        assert [get(port, f"/ducks/{n}") for n in range(10)] == [200] * 10
        assert get(port, "/broken") == 500
    expect_rows(spoorway_run, "site", port, 10, 11)
    timings = spoorway_run.query(TIMINGS)
    assert any("GET /ducks/<str:name>" in row["unstruct_event"] for row in timings)


def test_gunicorn_with_threads_and_flask(spoorway_run: Running, environment: dict[str, str], tmp_path: Path) -> None:
    port, environment = free_port(), environment | {"SPOORWAY": spoorway_run.url}
    environment.pop("PYTHONWARNINGS")
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--workers",
        "2",
        "--threads",
        "4",
        "--bind",
        f"127.0.0.1:{port}",
        "flask_app:app",
    ]
    with serving(command, port, environment, tmp_path / "log.txt"):
        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(lambda n: get(port, f"/ducks/{n}"), range(10))) == [200] * 10
        assert get(port, "/broken") == 500
        assert get(port, "/nowhere") == 404
    expect_rows(spoorway_run, "pond", port, 10, 12)
    timings = "".join(row["unstruct_event"] for row in spoorway_run.query(TIMINGS))
    assert "GET /ducks/<name>" in timings and "GET /broken" in timings and "GET /nowhere" in timings
    (error,) = spoorway_run.query("SELECT unstruct_event FROM atomic.events WHERE event_name = 'application_error'")
    assert "no ducks" in error["unstruct_event"]


def test_uvicorn_and_fastapi(spoorway_run: Running, environment: dict[str, str], tmp_path: Path) -> None:
    port, environment = free_port(), environment | {"SPOORWAY": spoorway_run.url}
    environment.pop("PYTHONWARNINGS")
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "fastapi_app:app"]
    with serving(command, port, environment, tmp_path / "log.txt"):
        assert [get(port, f"/ducks/{n}") for n in range(10)] == [200] * 10
        assert get(port, "/broken") == 500
    expect_rows(spoorway_run, "shop", port, 10, 10)
    timings = spoorway_run.query(TIMINGS)
    assert any("GET /ducks/{name}" in row["unstruct_event"] for row in timings)


def test_celery_worker(spoorway_run: Running, environment: dict[str, str], tmp_path: Path) -> None:
    """A prefork pool, whose processes end without atexit; the broker is a folder. Most is sent only then."""
    queue, errors = tmp_path / "broker", tmp_path / "log.txt"
    queue.mkdir()
    text = (EXAMPLES / "celery_app.py").read_text()
    assert '"tasks"))' in text
    text = text.replace('"tasks"))', '"tasks", linger_s=600))').replace(
        "    return ducks", "    __import__('time').sleep(0.05)\n    return ducks"
    )
    (tmp_path / "celery_app.py").write_text(text)
    environment = environment | {"SPOORWAY": spoorway_run.url, "BROKER": "filesystem://", "QUEUE": str(queue)}
    environment.pop("PYTHONWARNINGS")
    send = "from celery_app import feed; [feed.apply_async((n,)) for n in range(6)]"
    subprocess.run([sys.executable, "-c", send], cwd=tmp_path, env=environment, check=True, timeout=60)
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "-c", "2", "--without-mingle"]
    with errors.open("wb") as log:
        worker = subprocess.Popen([*command, "--loglevel", "info"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        spoorway_run.until(
            lambda: errors.read_text().count(" succeeded in ") + errors.read_text().count(" raised unexpected") >= 6,
            errors.read_text,
        )
        assert spoorway_run.totals() < 8
    finally:
        worker.terminate()
        worker.wait(30)
    spoorway_run.wait(8)
    rows = spoorway_run.query("SELECT event_name, COUNT(*) AS n FROM atomic.events WHERE app_id = 'tasks' GROUP BY 1 ORDER BY 1")
    assert rows == [{"event_name": "application_error", "n": 2}, {"event_name": "timing", "n": 6}]
    timings = [json.loads(row["unstruct_event"])["data"]["data"] for row in spoorway_run.query(TIMINGS)]
    assert {(one["category"], one["variable"]) for one in timings} == {("celery", "feed")}
    assert sorted(one["label"] for one in timings) == ["FAILURE"] * 2 + ["SUCCESS"] * 4
    assert all(one["timing"] >= 50 for one in timings if one["label"] == "SUCCESS")
