"""Every command as a person types it, against a running product."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

POST = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"


def spoorway(*arguments: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spoorway", *arguments], capture_output=True, text=True, cwd=cwd, input=stdin, timeout=60
    )


def out(*arguments: str, **kwargs: Any) -> str:
    done = spoorway(*arguments, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def post(url: str, body: bytes) -> int:
    request = urllib.request.Request(url + POST, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


def page_view(**more: str) -> dict[str, str]:
    return {"e": "pv", "p": "web", "tv": "test", "aid": "shop", "eid": str(uuid.uuid4()), **more}


def envelope(*events: dict[str, Any]) -> bytes:
    return json.dumps({"schema": PAYLOAD_DATA, "data": events}).encode()


def test_init_writes_a_sample_that_runs_and_never_overwrites(tmp_path: Path) -> None:
    assert "spoorway run" in out("init", str(tmp_path))
    assert (tmp_path / "spoorway-data").is_dir()
    assert "the configuration is good" in out("config", cwd=tmp_path)
    again = spoorway("init", str(tmp_path))
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_send_then_sql_in_every_format(spoorway_run: Any) -> None:
    data = ("--data", str(spoorway_run.data))
    event_id = out("send", *data, "--app", "shed", "--category", "door", "--action", "open", "--value", "21.5").strip()
    spoorway_run.wait(1)
    question = "select event_id, se_action, se_value, collector_tstamp from atomic.events"
    (row,) = [json.loads(line) for line in out("sql", *data, question, "--json").splitlines()]
    assert (row["event_id"], row["se_action"], row["se_value"]) == (event_id, "open", 21.5)
    (cells,) = csv.DictReader(io.StringIO(out("sql", *data, question, "--format", "csv")))
    assert cells["event_id"] == event_id
    table = out("sql", *data, "-", stdin=question).splitlines()
    assert table[0].split() == ["event_id", "se_action", "se_value", "collector_tstamp"]
    assert event_id in table[2]


def test_self_describing_event_has_a_typed_view(spoorway_run: Any) -> None:
    schema = "iglu:com.snowplowanalytics.snowplow/screen_view/jsonschema/1-0-0"
    data = ("--data", str(spoorway_run.data))
    out("send", *data, "--app", "shed", "--schema", schema, "--json", '{"name": "Level 3"}')
    spoorway_run.wait(1)
    assert spoorway_run.query("select name from atomic.com_snowplowanalytics_snowplow_screen_view_1") == [{"name": "Level 3"}]


@pytest.mark.parametrize(
    "statement",
    [
        "delete from atomic.events",
        "update atomic.events set app_id = 'x'",
        "drop table atomic.events",
        "create table t (a)",
        "attach '/tmp/other.db' as other",
        "pragma journal_mode = delete",
        "select load_extension('x')",
        "vacuum",
    ],
)
def test_sql_only_reads(spoorway_run: Any, statement: str) -> None:
    out("send", "--data", str(spoorway_run.data), "--app", "a", "--page-url", "http://x/")
    spoorway_run.wait(1)
    refused = spoorway("sql", "--data", str(spoorway_run.data), statement)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert spoorway_run.query("select app_id from atomic.events") == [{"app_id": "a"}]


def test_failed_event_is_in_sql_within_a_second_with_all_reasons_and_its_bytes(spoorway_run: Any) -> None:
    event = page_view(vid="three", res="wide", url="http:", cx="e30")
    body = envelope(event)
    began = time.monotonic()
    post(spoorway_run.url, body)
    spoorway_run.wait(1)
    assert time.monotonic() - began < 15  # a second on a machine that is not shared
    data = ("--data", str(spoorway_run.data))
    (listed,) = [json.loads(line) for line in out("failed", "list", *data, "--json").splitlines()]
    assert {reason["field"] for reason in listed["reasons"]} == {"vid", "res", "cx", "url"}
    shown = json.loads(out("failed", "show", *data, listed["failed_id"], "--json"))
    assert shown["payload_body"].encode() == body
    human = out("failed", "show", *data, listed["failed_id"])
    assert "expected an integer of 32 bits (got three)" in human


def test_failed_events_are_replayed_when_their_schema_was_added(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOORWAY__ENRICH__RESOLVER__COME_BACK", "false")  # they would not wait for the command
    spoorway_run = start()
    data = ("--data", str(spoorway_run.data))
    uri = "iglu:com.acme/reading/jsonschema/1-0-0"
    event_id = out("send", *data, "--app", "shed", "--schema", uri, "--json", '{"value": 21.5}').strip()
    out("send", *data, "--app", "shed", "--schema", uri, "--json", '{"value": "warm"}')
    spoorway_run.wait(2)
    folder = spoorway_run.data / "schemas/com.acme/reading/jsonschema"
    folder.mkdir(parents=True)
    own = {"vendor": "com.acme", "name": "reading", "format": "jsonschema", "version": "1-0-0"}
    schema = {"self": own, "type": "object", "properties": {"value": {"type": "number"}}, "required": ["value"]}
    (folder / "1-0-0").write_text(json.dumps(schema))
    assert json.loads(out("failed", "replay", *data, "--json")) == {"tried": 2, "solved": 1, "still_failed": 1}
    assert json.loads(out("failed", "replay", *data, "--json")) == {"tried": 1, "solved": 0, "still_failed": 1}
    assert spoorway_run.query("select event_id from atomic.events") == [{"event_id": event_id}]
    assert spoorway_run.query("select value from atomic.com_acme_reading_1") == [{"value": 21.5}]
    (left,) = spoorway_run.query("select first_reason from atomic.failed_events where replayed_tstamp is null")
    assert "number" in left["first_reason"]


def test_replay_builds_the_same_store_anew(spoorway_run: Any) -> None:
    post(spoorway_run.url, envelope(*[page_view(url=f"http://x/{n}") for n in range(50)], page_view(vid="x")))
    first = {k: v for k, v in page_view(url="http://x/again").items() if k != "eid"}
    for _ in range(3):  # no id of its own: each arrival is an event, and gets the same id at every rebuild
        post(spoorway_run.url, envelope(first))
    spoorway_run.wait(54)
    columns = "select * from atomic.events order by event_id"
    before = spoorway_run.query(columns)
    refused = spoorway("replay", "--data", str(spoorway_run.data))
    assert refused.returncode == 1
    assert "another process is loading it" in refused.stderr
    assert spoorway_run.stop() == 0
    assert "53 events stored, 1 failed, 0 duplicates" in out("replay", "--data", str(spoorway_run.data))
    after = spoorway_run.query(columns)
    assert [{**row, "etl_tstamp": None} for row in before] == [{**row, "etl_tstamp": None} for row in after]
    assert spoorway("doctor", "--data", str(spoorway_run.data)).returncode == 0


def test_replay_from_a_copy_of_the_journal(spoorway_run: Any, tmp_path: Path) -> None:
    post(spoorway_run.url, envelope(page_view()))
    spoorway_run.wait(1)
    spoorway_run.stop()
    (spoorway_run.data / "journal").rename(tmp_path / "archived")
    done = out("replay", "--data", str(tmp_path / "fresh"), "--from", "archive", "--archive", str(tmp_path / "archived"))
    assert "1 events stored" in done


def test_tail_shows_good_and_failed(spoorway_run: Any) -> None:
    post(spoorway_run.url, envelope(page_view(url="http://x/menu"), page_view(vid="x")))
    spoorway_run.wait(2)
    data = ("--data", str(spoorway_run.data))
    lines = out("tail", *data, "--no-follow").splitlines()
    assert len(lines) == 2
    assert "page_view" in lines[0] and "/menu" in lines[0]
    assert "FAILED  schema_violations  vid" in lines[1]
    (failed,) = out("tail", *data, "--no-follow", "--failed", "--json").splitlines()
    assert json.loads(failed)["kind"] == "schema_violations"


def test_tail_follows(spoorway_run: Any) -> None:
    post(spoorway_run.url, envelope(page_view(url="http://x/early")))
    spoorway_run.wait(1)
    command = [sys.executable, "-m", "spoorway", "tail", "--data", str(spoorway_run.data), "--last", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert "/early" in follower.stdout.readline()
        post(spoorway_run.url, envelope(page_view(url="http://x/late")))
        assert "/late" in follower.stdout.readline()
        follower.terminate()


def test_metrics_and_health_tell_the_identity(spoorway_run: Any) -> None:
    event = page_view()
    for body in (envelope(event), envelope(event), envelope(page_view(vid="x"))):
        post(spoorway_run.url, body)
    spoorway_run.wait(3)
    want = [
        'spoorway_journal_payloads_accepted_total 3',
        'spoorway_target_payloads_taken_total{target="sqlite"} 3',
        'spoorway_target_payloads_pending{target="sqlite"} 0',
        'spoorway_target_events_total{target="sqlite",outcome="stored"} 1',
        'spoorway_target_events_total{target="sqlite",outcome="failed"} 1',
        'spoorway_target_events_total{target="sqlite",outcome="duplicate"} 1',
    ]  # fmt: skip

    def told() -> set[str]:
        return set(spoorway_run.get(spoorway_run.admin + "/metrics")[1].splitlines())

    spoorway_run.until(lambda: told() >= set(want), lambda: str(set(want) - told()))
    assert spoorway_run.get(spoorway_run.admin + "/health/live") == (200, "ok\n")
    assert spoorway_run.get(spoorway_run.admin + "/health/ready") == (200, "ok\n")
    assert spoorway_run.get(spoorway_run.admin + "/nothing")[0] == 404


def test_doctor_counts_again_and_finds_a_missing_row(spoorway_run: Any) -> None:
    import sqlite3

    post(spoorway_run.url, envelope(page_view(), page_view(), page_view(vid="x")))
    spoorway_run.wait(3)
    data = ("--data", str(spoorway_run.data))
    good = out("doctor", *data)
    assert "accepted 3 = stored 2 + failed 1 + duplicate 0 + pending 0" in good
    assert "✗" not in good
    with sqlite3.connect(spoorway_run.data / "events.db") as db:
        db.execute("DELETE FROM events WHERE rowid = 1")
    db.close()
    bad = spoorway("doctor", *data)
    assert bad.returncode == 1
    assert "✗ target sqlite: 1 events and 1 failed events, but 2 and 1 were stored" in bad.stdout


def test_retention_deletes_what_every_target_has_and_doctor_still_counts(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(
        "[journal]\nsegment_bytes = 2000\nsegment_age_ms = 1000\n[retention]\njournal_bytes = 1\n"
    )
    running = start("--config", str(tmp_path / "small.toml"))
    journal = running.data / "journal"
    for number in range(40):
        post(running.url, envelope(page_view(url=f"http://x/{number}")))
    running.wait(40)

    def segments() -> list[str]:
        return sorted(path.name for path in journal.glob("*/*.ndjson*"))

    running.until(lambda: len(segments()) <= 2, lambda: f"{segments()} are still there")
    told = out("doctor", "--data", str(running.data), "--config", str(tmp_path / "small.toml"))
    assert "accepted 40 payloads = taken 40 + pending 0" in told
    post(running.url, envelope(page_view()))
    running.wait(41)
    assert running.query("select count(*) as n from atomic.events") == [{"n": 41}]
    running.stop()
    refused = spoorway("replay", "--data", str(running.data))
    assert refused.returncode == 1
    assert "retention has deleted the beginning" in refused.stderr
    assert running.query("select count(*) as n from atomic.events") == [{"n": 41}]
    out("replay", "--data", str(running.data), "--partial")
    assert running.query("select count(*) as n from atomic.events")[0]["n"] < 41


def test_retention_deletes_nothing_where_no_target_is_there_to_store_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "edge.toml").write_text("[journal]\nsegment_bytes = 2000\n[retention]\njournal_bytes = 1\n[storage.targets]\n")
    command = [sys.executable, "-m", "spoorway", "gateway", "--data", str(data), "--config", str(tmp_path / "edge.toml")]
    with subprocess.Popen(
        [*command, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout is not None
        assert "ready\n" in iter(gateway.stdout.readline, "")
        url = json.loads((data / "running.json").read_text())["urls"]["http"][0]
        for number in range(20):
            post(url, envelope(page_view(url=f"http://x/{number}")))
        # Compressed segments show that a round of housekeeping, which also deletes, has come by.
        end = time.monotonic() + 30
        while len(list(data.glob("journal/*/*.gz"))) < 3 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(5.5)  # one round more
        gateway.terminate()
        assert gateway.wait(20) == 0
    assert len(list(data.glob("journal/*/*.gz"))) >= 3
    out("load", "--once", "--data", str(data))
    assert out("sql", "--data", str(data), "select count(*) as n from atomic.events", "--json") == '{"n": 20}\n'


def test_doctor_warns_of_an_open_port_without_tls(tmp_path: Path) -> None:
    (tmp_path / "spoorway.toml").write_text('[gateway.transports.http]\nhost = "0.0.0.0"\n')
    warned = out("doctor", "--data", str(tmp_path), "--config", str(tmp_path / "spoorway.toml"))
    assert "! http: listens on 0.0.0.0 without TLS" in warned


def test_doctor_warns_of_an_address_that_is_masked_too_early(tmp_path: Path) -> None:
    (tmp_path / "spoorway.toml").write_text("[enrich.enrichments.anon_ip]\n[enrich.enrichments.geo_ip]\n")
    warned = out("doctor", "--data", str(tmp_path), "--config", str(tmp_path / "spoorway.toml"))
    assert "! enrichments: geo_ip comes after anon_ip" in warned


def test_file_that_an_enrichment_needs_is_missed_before_the_start(tmp_path: Path) -> None:
    config = tmp_path / "spoorway.toml"
    config.write_text(f'[enrich.enrichments.script_python]\nfile = "{tmp_path}/own.py"\n')
    given = ("--data", str(tmp_path / "data"), "--config", str(config))
    checked = spoorway("config", "--check", *given)
    assert (checked.returncode, str(tmp_path / "own.py") in checked.stderr) == (1, True)
    seen = spoorway("doctor", *given)
    assert (seen.returncode, f"✗ enrichments: {tmp_path}/own.py" in seen.stdout) == (1, True)
    (tmp_path / "own.py").write_text("def enrich(event, parameters):\n    return {}\n")
    out("config", "--check", *given)
    assert "✓ enrichments: script_python" in out("doctor", *given)
    assert not (tmp_path / "data").exists()


def test_stop_finishes_what_was_taken(spoorway_run: Any) -> None:
    for _ in range(20):
        post(spoorway_run.url, envelope(*[page_view() for _ in range(20)]))
    assert spoorway_run.stop() == 0
    assert spoorway_run.totals() == 400
    assert not (spoorway_run.data / "running.json").exists()


def test_loader_that_is_killed_comes_back(spoorway_run: Any) -> None:
    post(spoorway_run.url, envelope(page_view()))
    spoorway_run.wait(1)
    tasks = Path(f"/proc/{spoorway_run.process.pid}/task")
    (loader,) = {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}
    os.kill(loader, signal.SIGKILL)
    post(spoorway_run.url, envelope(page_view()))
    spoorway_run.wait(2)
    assert spoorway_run.stop() == 0


def test_interrupt_from_a_terminal_ends_it_cleanly(start: Callable[..., Any]) -> None:
    running = start()
    post(running.url, envelope(page_view()))
    assert running.stop(signal.SIGINT) == 0
    assert running.totals() == 1


def test_gateway_and_load_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [
        sys.executable,
        "-m",
        "spoorway",
        "gateway",
        "--data",
        str(data),
        "--http",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        assert "ready\n" in iter(gateway.stdout.readline, "")
        url = json.loads((data / "running.json").read_text())["urls"]["http"][0]
        post(url, envelope(page_view()))
        assert not (data / "events.db").exists()
        gateway.terminate()
        assert gateway.wait(20) == 0
    out("load", "--once", "--data", str(data))
    assert out("sql", "--data", str(data), "select count(*) as n from atomic.events", "--json") == '{"n": 1}\n'


def test_port_in_use_is_one_line_that_names_the_cure(spoorway_run: Any, tmp_path: Path) -> None:
    listen = spoorway_run.url.removeprefix("http://")
    refused = spoorway("run", "--data", str(tmp_path / "other"), "--http", listen, "--admin", "127.0.0.1:0")
    assert refused.returncode == 1
    complaint = [line for line in refused.stderr.splitlines() if line.startswith("spoorway: ")]
    assert listen in complaint[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[enrich.enrichments.anon_ip]\noctets = 9", "anon_ip.octets: expected 1 to 4"),
        ("[storage.targets.sqlit]", "unknown name 'sqlit'; did you mean sqlite?"),
        ("[gateway.transports.http]\nprot = 1", "unknown name 'prot'; did you mean"),
    ],
)
def test_mistake_in_the_configuration_ends_the_run_with_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "spoorway.toml").write_text(text + "\n[admin]\nport = 0\n")
    refused = spoorway("run", "--data", str(tmp_path / "data"), "--config", str(tmp_path / "spoorway.toml"))
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["sql"], ["run", "--http", "nowhere"], ["sql", "x", "--format", "yaml"], ["failed", "eat"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert spoorway(*arguments).returncode == 2


@pytest.mark.parametrize(
    "command", ["init", "run", "gateway", "load", "send", "tail", "sql", "failed", "replay", "config", "doctor"]
)
def test_help_has_examples(command: str) -> None:
    text = out(command, "--help")
    assert "examples:\n  spoorway " in text


def test_no_store_yet_names_the_next_step(tmp_path: Path) -> None:
    refused = spoorway("sql", "--data", str(tmp_path), "select 1")
    assert refused.returncode == 1
    assert "start `spoorway run`" in refused.stderr
    refused = spoorway("send", "--data", str(tmp_path), "--app", "a", "--page-url", "http://x/")
    assert refused.returncode == 1
    assert "no gateway runs" in refused.stderr
