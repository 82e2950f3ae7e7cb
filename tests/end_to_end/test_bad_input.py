"""What should not be sent, sent to the running product: the documented answer, a failed event with its bytes, bounded memory."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.payloads import from_json

pytestmark = pytest.mark.slow

POST = "/com.snowplowanalytics.snowplow/tp2"
JSON = "application/json"
PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"


def send(url: str, body: bytes, headers: dict[str, str] | None = None, path: str = POST) -> int:
    request = urllib.request.Request(url + path, body, {"Content-Type": JSON, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def envelope(*events: dict[str, Any]) -> bytes:
    return json.dumps({"schema": PAYLOAD_DATA, "data": events}).encode()


GOOD = {"e": "pv", "p": "web", "tv": "t"}


HALF_A_GZIP = gzip.compress(b"x" * 1000, mtime=0)[:-20]


@pytest.mark.parametrize(
    ("name", "body", "headers", "kind"),
    [
        ("not JSON", b"{", {}, "tracker_protocol_violations"),
        ("not UTF-8", b"\xff\xfe{}", {}, "tracker_protocol_violations"),
        ("empty", b"", {}, "tracker_protocol_violations"),
        ("deep", b"[" * 5_000 + b"]" * 5_000, {}, "tracker_protocol_violations"),
        ("deeper than a stack", b"[" * 500_000, {}, "tracker_protocol_violations"),
        ("a number too large", b'{"schema": "x", "data": 1e999}', {}, "tracker_protocol_violations"),
        ("wrong type", b"{}", {"Content-Type": "text/plain"}, "tracker_protocol_violations"),
        ("not gzip", b"certainly not gzip", {"Content-Encoding": "gzip"}, "collector_payload_format_violation"),
        ("half a gzip", HALF_A_GZIP, {"Content-Encoding": "gzip"}, "collector_payload_format_violation"),
    ],
)
def test_body_that_means_nothing_is_kept_with_its_bytes(
    spoorway_run: Any, name: str, body: bytes, headers: dict[str, str], kind: str
) -> None:
    assert send(spoorway_run.url, body, headers) == 200
    spoorway_run.wait(1)
    (row,) = spoorway_run.query(
        "SELECT f.kind, p.payload FROM atomic.failed_events f JOIN atomic.failed_payloads p USING (payload_id)"
    )
    assert row["kind"] == kind
    assert from_json(row["payload"].encode()).body == body


def test_gzip_body_is_an_ordinary_event(spoorway_run: Any) -> None:
    assert send(spoorway_run.url, gzip.compress(envelope(GOOD)), {"Content-Encoding": "gzip"}) == 200
    spoorway_run.wait(1)
    assert spoorway_run.query("SELECT event FROM atomic.events") == [{"event": "page_view"}]


def test_bomb_and_oversized_body_are_refused_and_nothing_is_kept(spoorway_run: Any) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert send(spoorway_run.url, bomb, {"Content-Encoding": "gzip"}) == 413
    assert send(spoorway_run.url, b" " * 2_097_153) == 413
    assert send(spoorway_run.url, envelope(GOOD)) == 200
    spoorway_run.wait(1)
    assert spoorway_run.totals() == 1


def test_path_nobody_knows_is_an_adapter_failure(spoorway_run: Any) -> None:
    assert send(spoorway_run.url, b"{}", path="/com.acme/v9") == 200
    spoorway_run.wait(1)
    (row,) = spoorway_run.query("SELECT kind, first_reason FROM atomic.failed_events")
    assert row["kind"] == "adapter_failures"
    assert send(spoorway_run.url, b"{}", path="/a/b/c") == 404


def test_forged_address_is_not_believed(spoorway_run: Any) -> None:
    assert send(spoorway_run.url, envelope(GOOD), {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}) == 200
    spoorway_run.wait(1)
    assert spoorway_run.query("SELECT user_ipaddress FROM atomic.events") == [{"user_ipaddress": "127.0.0.x"}]


def test_hundred_thousand_events_in_one_post(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "big.toml").write_text("[gateway.transports.http]\nmax_body_bytes = 16777216\n")
    running = start("--config", str(tmp_path / "big.toml"))
    events = [GOOD if n % 100 else {**GOOD, "vid": "x"} for n in range(100_000)]
    assert send(running.url, envelope(*events)) == 200
    running.until(lambda: running.totals() == 100_000, lambda: f"{running.totals()} arrived")
    assert running.query("SELECT count(*) AS n FROM atomic.events") == [{"n": 99_000}]
    assert running.query("SELECT count(*) AS n FROM atomic.failed_events") == [{"n": 1_000}]
    assert running.query("SELECT count(*) AS n FROM atomic.failed_payloads") == [{"n": 1}]
    peak = {pid: peak_mib(pid) for pid in family(running.process.pid)}
    assert max(peak.values()) < 900, peak


def test_text_of_any_kind_survives_to_sql(spoorway_run: Any) -> None:
    title = "naïve \U0001d4b3 \u202e \u2028 'quoted' \"twice\" \\ 100% <b>"
    entity = {"schema": "iglu:com.snowplowanalytics.snowplow/screen_view/jsonschema/1-0-0", "data": {"name": title}}
    contexts = {"schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0", "data": [entity]}
    cx = base64.urlsafe_b64encode(json.dumps(contexts).encode()).decode()
    assert send(spoorway_run.url, envelope({**GOOD, "page": title, "cx": cx})) == 200
    spoorway_run.wait(1)
    (row,) = spoorway_run.query("SELECT page_title FROM atomic.events")
    assert row["page_title"] == title
    assert spoorway_run.query("SELECT name FROM atomic.com_snowplowanalytics_snowplow_screen_view_1") == [{"name": title}]


def family(pid: int) -> list[int]:
    """A process and its children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [pid, *(int(child) for task in tasks for child in (task / "children").read_text().split())]


def peak_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
