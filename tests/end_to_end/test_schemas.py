"""Schemas in the running product: unknown ones, a registry that has them, fails or hangs, and every `spoorway schema` command."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

POST = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
KNOWN = "iglu:com.snowplowanalytics.snowplow/screen_view/jsonschema/1-0-0"
READING = "iglu:com.acme/reading/jsonschema/1-0-0"
SELF_DESCRIBING = "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#"
PAGE = Path(__file__).parents[2].joinpath("docs", "schemas.md").read_text("utf-8")


def document(name: str = "reading", version: str = "1-0-0", **properties: Any) -> Any:
    return {
        "$schema": SELF_DESCRIBING,
        "self": {"vendor": "com.acme", "name": name, "format": "jsonschema", "version": version},
        "description": "A test's.",
        "type": "object",
        "properties": properties or {"value": {"type": "number"}},
        "additionalProperties": False,
    }


def spoorway(*arguments: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spoorway", *arguments], capture_output=True, text=True, cwd=cwd, input=stdin, timeout=60
    )


def out(*arguments: str, **kwargs: Any) -> str:
    done = spoorway(*arguments, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def post(url: str, *events: tuple[str, Any]) -> None:
    data = [
        {"e": "ue", "p": "srv", "tv": "t", "eid": str(uuid.uuid4()), "ue_pr": json.dumps({"schema": UNSTRUCT, "data": inner})}
        for inner in ({"schema": schema, "data": value} for schema, value in events)
    ]
    body = json.dumps({"schema": PAYLOAD_DATA, "data": data}).encode()
    request = urllib.request.Request(url + POST, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


class Registry:
    """A static registry. documents: by path below /schemas/. hang: let every question wait until the end of the test."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.hang = threading.Event()
        self.ending = threading.Event()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                if registry.hang.is_set():
                    registry.ending.wait(60)
                    return
                body = registry.documents.get(self.path.removeprefix("/schemas/"))
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def put(self, document: Any) -> None:
        own = document["self"]
        self.documents["/".join(own[part] for part in ("vendor", "name", "format", "version"))] = json.dumps(document).encode()

    def stop(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.stop()


@pytest.fixture
def configured(tmp_path: Path, registry: Registry) -> Path:
    file = tmp_path / "spoorway.toml"
    file.write_text(
        f'[enrich.registries.ours]\nurl = "{registry.url}"\nallow_private = true\n'
        "[enrich.resolver]\nretry_s = 0.5\nlongest_retry_s = 0.5\n"
    )
    return file


def failed_reasons(running: Any) -> list[str]:
    rows = running.query("select first_reason from atomic.failed_events where replayed_tstamp is null order by 1")
    return [row["first_reason"] for row in rows]


def test_event_comes_back_by_itself_when_its_schema_is_published(
    start: Callable[..., Any], configured: Path, registry: Registry
) -> None:
    running = start("--config", str(configured))
    post(running.url, (READING, {"value": 21.5}), (READING, {"value": "warm"}), (KNOWN, {"name": "hall"}))
    running.wait(3)
    assert len(failed_reasons(running)) == 2
    assert "no registry knows this schema" in failed_reasons(running)[0]
    running.until(lambda: len(registry.asked) >= 2, lambda: "the registry was not asked again")
    assert set(registry.asked) == {"/schemas/com.acme/reading/jsonschema/1-0-0"}
    registry.put(document())
    published = time.monotonic()
    running.until(lambda: len(failed_reasons(running)) == 1, lambda: str(failed_reasons(running)))
    print(f"back {time.monotonic() - published:.2f} s after it was published")
    assert "number" in failed_reasons(running)[0]
    assert running.query("select value from atomic.com_acme_reading_1") == [{"value": 21.5}]
    (totals,) = running.query("select payloads, stored, failed, duplicate from atomic.totals")
    assert totals == {"payloads": 1, "stored": 2, "failed": 1, "duplicate": 0}
    # From now on it is known: no question, no failure.
    asked = len(registry.asked)
    post(running.url, (READING, {"value": 22}))
    running.wait(4)
    assert sorted(r["value"] for r in running.query("select value from atomic.com_acme_reading_1")) == [21.5, 22]
    assert len(registry.asked) == asked


def test_what_was_fetched_serves_after_a_restart_without_the_registry(
    start: Callable[..., Any], configured: Path, registry: Registry
) -> None:
    registry.put(document())
    running = start("--config", str(configured))
    post(running.url, (READING, {"value": 1}))
    running.until(lambda: running.totals() == 1 and not failed_reasons(running), lambda: str(failed_reasons(running)))
    assert running.stop() == 0
    registry.stop()
    again = start("--config", str(configured))
    post(again.url, (READING, {"value": 2}))
    again.wait(2)
    assert failed_reasons(again) == []
    assert [r["value"] for r in again.query("select value from atomic.com_acme_reading_1 order by 1")] == [1, 2]


def test_known_schemas_flow_at_full_speed_while_the_registry_hangs(
    start: Callable[..., Any], configured: Path, registry: Registry
) -> None:
    running = start("--config", str(configured))
    post(running.url, (KNOWN, {"name": "warm"}))
    running.wait(1)

    def slowest(first: int, unknown: bool) -> float:
        """Seconds from the 200 to being in SQL, one event after another."""
        worst = 0.0
        for number in range(60):
            before = running.totals()
            events = [(KNOWN, {"name": f"n{first + number}"})]
            if unknown:  # a name of its own each time: each is a question to the registry
                events.append((f"iglu:com.acme/unknown{number}/jsonschema/1-0-0", {}))
            post(running.url, *events)
            sent = time.monotonic()
            running.wait(before + len(events))
            worst = max(worst, time.monotonic() - sent)
        return worst

    calm = slowest(0, unknown=False)
    registry.hang.set()
    hanging = slowest(1_000, unknown=True)
    running.until(lambda: len(registry.asked) >= 1, lambda: "the registry was not asked")
    during = slowest(2_000, unknown=False)
    print(f"slowest commit: {calm:.3f} s calm, {hanging:.3f} s with unknown schemas, {during:.3f} s while the registry hangs")
    assert max(hanging, during) < calm + 3  # a question hangs for 10 s; no commit waits for one, however busy the machine is
    assert len(running.query("select name from atomic.com_snowplowanalytics_snowplow_screen_view_1")) == 181
    running.stop(signal.SIGKILL)


def test_file_in_a_folder_takes_effect_without_restart_and_again_when_it_changes(spoorway_run: Any) -> None:
    post(spoorway_run.url, (READING, {"value": 21.5}))
    spoorway_run.wait(1)
    place = spoorway_run.data / "schemas/com.acme/reading/jsonschema/1-0-0"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(document()))
    spoorway_run.until(lambda: not failed_reasons(spoorway_run), lambda: str(failed_reasons(spoorway_run)))
    post(spoorway_run.url, (READING, {"value": 1, "room": "hall"}))
    spoorway_run.wait(2)
    assert len(failed_reasons(spoorway_run)) == 1
    wider = document(value={"type": "number"}, room={"type": "string"})
    place.write_text(json.dumps(wider))
    seen: list[Any] = []

    def both() -> bool:
        post(spoorway_run.url, (READING, {"value": 2, "room": "shed"}))
        (view,) = spoorway_run.query("select sql from atomic.sqlite_master where name = 'com_acme_reading_1'")
        if '"room"' in view["sql"]:
            seen[:] = spoorway_run.query("select room from atomic.com_acme_reading_1 where room is not null")
        return bool(seen)

    spoorway_run.until(both, lambda: str(failed_reasons(spoorway_run)))
    assert {row["room"] for row in seen} == {"shed"}
    # A damaged file is as if it had not been touched.
    place.write_text("{")
    time.sleep(2.5)
    before = spoorway_run.query("select failed from atomic.totals")
    stored = spoorway_run.totals()
    post(spoorway_run.url, (READING, {"value": 3, "room": "loft"}))
    spoorway_run.wait(stored + 1)
    assert spoorway_run.query("select failed from atomic.totals") == before


def test_many_waiting_events_come_back_once_though_the_loader_is_killed(start: Callable[..., Any]) -> None:
    running = start()
    for _ in range(20):
        post(running.url, *((READING, {"value": n}) for n in range(100)))
    running.wait(2_000)
    place = running.data / "schemas/com.acme/reading/jsonschema/1-0-0"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(document()))
    running.until(lambda: running.query("select stored from atomic.totals")[0]["stored"] > 0, lambda: "nothing came back")
    running.stop(signal.SIGKILL)
    (running.data / "running.json").unlink()
    again = start()
    again.until(lambda: not failed_reasons(again), lambda: f"{len(failed_reasons(again))} wait")
    (totals,) = again.query("select stored, failed, duplicate from atomic.totals")
    assert totals == {"stored": 2_000, "failed": 0, "duplicate": 0}
    assert again.query("select count(*) as n, sum(value) as s from atomic.com_acme_reading_1") == [{"n": 2_000, "s": 99_000}]


# Commands -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    return ("--data", str(tmp_path / "data"))


def file(folder: Path, content: Any, name: str = "reading.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_list_names_each_schema_and_its_source(tmp_path: Path, data: Any) -> None:
    out("schema", "add", *data, file(tmp_path, document()))
    rows = [json.loads(line) for line in out("schema", "list", *data, "--json").splitlines()]
    sources = {row["uri"]: row["source"] for row in rows}
    assert sources[KNOWN] == "bundled"
    assert sources[READING] == str(tmp_path / "data/schemas")
    assert len(rows) > 300
    assert out("schema", "list", *data, "com.acme/*") == f"{READING}\t{tmp_path / 'data/schemas'}\n"
    assert out("schema", "list", *data, "com.none*") == "no schemas\n"


def test_show_prints_the_document_or_names_what_is_near(data: Any) -> None:
    shown = json.loads(out("schema", "show", *data, KNOWN))
    assert shown["self"]["name"] == "screen_view"
    refused = spoorway("schema", "show", *data, KNOWN.replace("1-0-0", "1-0-9"))
    assert refused.returncode == 1
    assert KNOWN in refused.stderr
    assert spoorway("schema", "show", *data, "screen_view").returncode == 1


def test_add_refuses_what_would_break_and_keeps_versions_in_order(tmp_path: Path, data: Any) -> None:
    broken = spoorway("schema", "add", *data, file(tmp_path, {"type": "object"}))
    assert broken.returncode == 1
    assert "nothing was added" in broken.stderr
    assert "[schema-line]" in broken.stdout
    out("schema", "add", *data, file(tmp_path, document()))
    out("schema", "add", *data, file(tmp_path, document()))  # the same again is no change
    changed = document(value={"type": "string", "maxLength": 9})
    assert "give yours a new version" in spoorway("schema", "add", *data, file(tmp_path, changed)).stderr
    small = document(version="1-0-1", value={"type": "string", "maxLength": 9})
    refused = spoorway("schema", "add", *data, file(tmp_path, small))
    assert refused.returncode == 1
    assert "a model, so after 1-0-0 comes 2-0-0" in refused.stdout
    out("schema", "add", *data, file(tmp_path, {**small, "self": {**small["self"], "version": "2-0-0"}}))
    out("schema", "add", *data, "--force", file(tmp_path, changed))
    assert json.loads(out("schema", "show", *data, READING)) == changed
    theirs = {**document(), "self": {**json.loads(out("schema", "show", *data, KNOWN))["self"]}}
    assert "is bundled and is not replaced" in spoorway("schema", "add", *data, "--force", file(tmp_path, theirs)).stderr


def test_add_makes_the_view_at_once(tmp_path: Path, spoorway_run: Any) -> None:
    post(spoorway_run.url, (KNOWN, {"name": "hall"}))
    spoorway_run.wait(1)
    out("schema", "add", "--data", str(spoorway_run.data), file(tmp_path, document()))
    assert spoorway_run.query("select value from atomic.com_acme_reading_1") == []
    post(spoorway_run.url, (READING, {"value": 4}))
    spoorway_run.wait(2)
    assert spoorway_run.query("select value from atomic.com_acme_reading_1") == [{"value": 4}]


def test_lint_tells_by_its_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "schemas/com.acme/reading/jsonschema"
    folder.mkdir(parents=True)
    file(folder, document(value={"type": "boolean"}), "1-0-0")
    assert out("schema", "lint", str(tmp_path / "schemas")) == "1 schemas, 0 errors, 0 warnings\n"
    file(folder, document(version="1-0-1", value={"type": "string"}), "1-0-1")
    refused = spoorway("schema", "lint", "--json", str(tmp_path / "schemas"))
    assert refused.returncode == 1
    found = {(line["rule"], line["level"]) for line in map(json.loads, refused.stdout.splitlines())}
    assert found == {("version-too-small", "error"), ("no-max-length", "warning")}
    warned = file(tmp_path, document(value={"type": "string"}))
    assert spoorway("schema", "lint", warned).returncode == 0
    assert spoorway("schema", "lint", "--strict", warned).returncode == 1
    assert spoorway("schema", "lint", file(tmp_path, "{")).returncode == 1
    assert spoorway("schema", "lint", str(tmp_path / "none")).returncode == 1
    assert spoorway("schema", "lint").returncode == 2


def test_infer_from_lines_then_lint_then_add(tmp_path: Path, data: Any) -> None:
    lines = "\n".join(json.dumps({"at": "2026-01-31T12:00:00Z", "celsius": 20 + n / 10}) for n in range(50))
    samples = file(tmp_path, f"{lines}\nnot json\n", "readings.ndjson")
    done = spoorway("schema", "infer", samples, "--vendor", "com.acme", "--name", "reading")
    assert done.returncode == 0
    assert "line 51 is no JSON" in done.stderr
    made = json.loads(done.stdout)
    assert made["properties"]["at"] == {"type": "string", "format": "date-time"}
    assert made["required"] == ["at", "celsius"]
    assert out("schema", "lint", "--strict", file(tmp_path, made)) == "1 schemas, 0 errors, 0 warnings\n"
    out("schema", "add", *data, file(tmp_path, made))
    assert json.loads(out("schema", "infer", "-", stdin=json.dumps({"schema": READING, "data": {}})))["self"]["name"] == "reading"
    assert spoorway("schema", "infer", samples).returncode == 2
    assert spoorway("schema", "infer").returncode == 2
    assert spoorway("schema", "infer", "-", "--vendor", "a", "--name", "b", stdin="").returncode == 1


def test_infer_from_events_that_failed_for_want_of_it(tmp_path: Path, spoorway_run: Any) -> None:
    post(spoorway_run.url, *((READING, {"value": n}) for n in range(5)), (KNOWN, {"name": "hall"}))
    spoorway_run.wait(6)
    data = ("--data", str(spoorway_run.data))
    made = out("schema", "infer", *data, "--from-events", "com.acme/reading/*")
    document = json.loads(made)
    assert document["self"] == {"vendor": "com.acme", "name": "reading", "format": "jsonschema", "version": "1-0-0"}
    out("schema", "add", *data, file(tmp_path, made))
    spoorway_run.until(lambda: not failed_reasons(spoorway_run), lambda: str(failed_reasons(spoorway_run)))
    values = spoorway_run.query("select value from atomic.com_acme_reading_1 order by 1")
    assert [row["value"] for row in values] == [0, 1, 2, 3, 4]
    good = json.loads(out("schema", "infer", *data, "--from-events", KNOWN))
    assert list(good["properties"]) == ["name"]
    assert "choose one" in spoorway("schema", "infer", *data, "--from-events", "iglu:com.*").stderr


def test_pull_takes_it_from_a_registry(tmp_path: Path, data: Any, registry: Registry) -> None:
    registry.put(document())
    pull = ("schema", "pull", *data, READING, "--registry")
    refused = spoorway(*pull, registry.url)
    assert refused.returncode == 1
    assert "no public address" in refused.stderr
    assert registry.asked == []
    out(*pull, registry.url, "--allow-private")
    assert json.loads((tmp_path / "data/schemas/com.acme/reading/jsonschema/1-0-0").read_text()) == document()
    missing = spoorway(
        "schema", "pull", *data, READING.replace("reading", "other"), "--registry", registry.url, "--allow-private"
    )
    assert "does not have it" in missing.stderr
    assert out("schema", "pull", *data, KNOWN, "--registry", registry.url) == f"{KNOWN} is bundled\n"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert spoorway(*pull, gone, "--allow-private", "--force").returncode == 1
    assert "expected one such as" in spoorway(*pull, "iglucentral").stderr
    assert "no registry is configured" in spoorway("schema", "pull", *data, READING).stderr


def test_commands_of_the_page_run(tmp_path: Path, registry: Registry) -> None:
    registry.put(document())
    (tmp_path / "spoorway.toml").write_text(f'[enrich.registries.ours]\nurl = "{registry.url}"\nallow_private = true\n')
    (tmp_path / "readings.ndjson").write_text('{"value": 21.5}\n')
    section = PAGE.partition("## Commands")[2].partition("\n## ")[0]
    lines = [line.strip() for line in re.findall(r"^    (spoorway schema .*)", section, re.MULTILINE)]
    by_action = {line.split()[2]: line for line in lines if "--from-events" not in line}
    assert set(by_action) == {"list", "show", "lint", "infer", "add", "pull"}
    for action in ("infer", "lint", "add", "list", "show", "pull"):
        line = by_action[action].replace("spoorway ", f"{shutil.which(sys.executable)} -m spoorway ", 1)
        line = line.replace("https://schemas.acme.example", "ours --force")
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done.stderr)
