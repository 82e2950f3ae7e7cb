"""docs/cdn.md on real servers: a browser asks nginx for the pixel, a program asks Caddy, and their logs become rows in SQL."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Running
from tests.peers import programs
from tests.peers.ports import free_port

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.peers.fixtures"]

TEXT = (Path(__file__).parents[2] / "docs" / "cdn.md").read_text("utf-8")
AGENT = 'Mozilla/5.0 (tést) "quoted" back\\slash'


def sample(language: str, folder: Path, port: int) -> str:
    """The page's configuration, on another port and with its log in that folder."""
    (text,) = re.findall(rf"```{language}\n(.+?)```", TEXT, re.DOTALL)
    replaced = re.sub(r"/var/log/(nginx|caddy)", str(folder), text.replace("8090", str(port)))
    assert str(folder) in replaced and str(port) in replaced
    return replaced


@contextmanager
def serving(command: list[str], folder: Path, port: int) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        programs.missing(command[0])
    with (folder / "said.txt").open("w") as said:
        server = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=said, env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
        )
    try:
        end = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None and time.monotonic() < end, (folder / "said.txt").read_text()
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait(30)


def collector(folder: Path) -> Running:
    (folder / "spoorway.toml").write_text(
        f'[gateway.transports.http]\n[gateway.transports.access_log]\npath = "{folder}/spoorway.log*"\nscan_s = 0.05\n'
    )
    return Running(folder / "data", ["--config", str(folder / "spoorway.toml")])


def test_a_page_in_chromium_asks_nginx_for_the_pixel_and_its_log_is_the_collector(chromium: str, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "spoorway.log"
    globals_ = f"pid {tmp_path}/pid; error_log {tmp_path}/errors; daemon off; events {{}}"
    (tmp_path / "nginx.conf").write_text(f"{globals_}\nhttp {{\n{sample('nginx', tmp_path, port)}\n}}")
    url = f"http://127.0.0.1:{port}/i?e=se&p=web&aid=cdn&se_ca=caf%C3%A9%20%26+a&se_ac=open&se_la="
    # The page says how large the image was: the pixel came, and came each time.
    (tmp_path / "page.html").write_text(
        "<meta charset=utf-8><title>waiting</title>"
        + "".join(f'<img src="{url}{n}">' for n in range(3))
        + "<script>onload = () => { document.body.innerText = [...document.images].map(i => i.naturalWidth).join() }</script>"
    )
    browse = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    with serving(["nginx", "-c", f"{tmp_path}/nginx.conf", "-p", str(tmp_path)], tmp_path, port):
        running = collector(tmp_path)
        try:
            for _ in range(2):
                seen = subprocess.run(
                    [*browse, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120, check=True
                )
                assert "<body>1,1,1</body>" in seen.stdout
                with suppress(FileNotFoundError):
                    log.rename(tmp_path / "spoorway.log.1")  # nginx writes on to it
            running.wait(6)
            rows = running.query("SELECT * FROM atomic.events ORDER BY se_label, collector_tstamp")
        finally:
            assert running.stop() == 0
    assert [row["se_label"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert {(row["se_category"], row["app_id"], row["event"]) for row in rows} == {("café & a", "cdn", "struct")}
    assert len({row["event_id"] for row in rows}) == 6
    assert all("HeadlessChrome" in row["useragent"] for row in rows)
    assert all(row["v_collector"].endswith("-access_log") and row["user_ipaddress"] == "127.0.0.x" for row in rows)
    assert any(not row["collector_tstamp"].endswith(".000") for row in rows)  # to the millisecond


def test_caddys_log_is_the_collector(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + sample("caddyfile", tmp_path, port))
    with serving(["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"], tmp_path, port):
        for number in range(3):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/i?e=pv&p=web&aid=cdn&page=%E2%82%AC%20{number}",
                headers={"User-Agent": AGENT.encode().decode("latin-1"), "Referer": "http://shop.example/a"},
            )
            assert urllib.request.urlopen(request, timeout=30).headers["Cache-Control"] == "no-store"
        running = collector(tmp_path)
        try:
            running.wait(3)
            rows = running.query("SELECT * FROM atomic.events ORDER BY page_title")
        finally:
            assert running.stop() == 0
    assert [row["page_title"] for row in rows] == ["€ 0", "€ 1", "€ 2"]
    assert {(row["useragent"], row["page_url"]) for row in rows} == {(AGENT, "http://shop.example/a")}
