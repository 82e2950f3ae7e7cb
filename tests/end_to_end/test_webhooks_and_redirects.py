"""A LoRaWAN webhook and a click in an email, from the door to SQL, as the documents say."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def post(url: str, body: str) -> None:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_an_uplink_sent_twice_is_one_row_with_its_decoded_values(spoorway_run: Any) -> None:
    cases = json.loads((ROOT / "protocol/vectors/enrich/webhook_mapping.json").read_text("utf-8"))["cases"]
    (payload,) = [case["payload"] for case in cases if case["id"].endswith("-ttn-uplink")]
    for _ in range(2):
        post(spoorway_run.url + payload["path"], payload["body"])
    spoorway_run.wait(2)
    (query,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/webhooks.md").read_text("utf-8"), re.DOTALL)
    rows = spoorway_run.query(query)
    assert rows == [{"derived_tstamp": "2026-01-15 09:59:58.523", "user_id": "greenhouse-1", "celsius": 21.9}]
    assert spoorway_run.query("select stored, duplicate from atomic.totals") == [{"stored": 1, "duplicate": 1}]
    heard = "select gateway_id from atomic.io_spoorway_lorawan_gateway_1 order by 1"
    assert [row["gateway_id"] for row in spoorway_run.query(heard)] == ["packetbroker", "roof"]


def test_a_signed_click_is_sent_on_and_stored_and_a_forged_one_is_stored_only(start: Callable[..., Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spoorway", "redirect"]
    keys, config = tmp_path / "redirect.keys", tmp_path / "spoorway.toml"
    made = subprocess.run([*command, "key", str(keys)], capture_output=True, text=True, check=True, timeout=30)
    config.write_text(made.stdout.partition("\n")[2])
    running = start("--config", str(config))
    target = "https://example.com/offer?id=7"
    sign = [*command, "sign", "--config", str(config), "--with", "aid=news", target]
    link = subprocess.run(sign, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    where = urlsplit(running.url)
    for path, status, location in ((link, 302, target), (link.replace("example.com", "evil.example"), 400, None)):
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Location")) == (status, location)
        connection.close()
    running.wait(2)
    rows = running.query("select uri from atomic.com_snowplowanalytics_snowplow_uri_redirect_1 order by 1")
    assert [row["uri"] for row in rows] == ["https://evil.example/offer?id=7", target]
    assert running.query("select distinct app_id, v_tracker from atomic.events") == [{"app_id": "news", "v_tracker": "r-tp2"}]
    told = running.get(running.admin + "/metrics")[1]
    for outcome in ("redirected", "redirect_refused"):
        assert f'spoorway_requests_total{{transport="http",outcome="{outcome}"}} 1' in told
