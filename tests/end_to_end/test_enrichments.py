"""The enrichments that look things up, in the running product: one request in, one row out."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

pytestmark = pytest.mark.slow

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
HINTS = {"Sec-CH-UA": '"Chromium";v="131", "Not_A Brand";v="24"', "Sec-CH-UA-Mobile": "?0", "Sec-CH-UA-Platform": '"Windows"'}


def test_request_becomes_a_row_that_says_where_and_with_what(start: Callable[..., Any], tmp_path: Path) -> None:
    writer = MMDBWriter(4, "city test", languages=["en"])
    writer.insert_network(
        IPSet(["192.0.2.0/24"]), {"country_code": "SE", "city": "Exempelköping", "latitude": 58.4167, "longitude": 15.6}
    )
    writer.to_db_file(str(tmp_path / "places.mmdb"))
    file = tmp_path / "spoorway.toml"
    names = ("referer", "campaign", "user_agent", "client_hints", "bots", "cross_navigation", "geo_ip", "anon_ip")
    file.write_text(
        "".join(
            f"[enrich.enrichments.{n}]\n" + (f"city = {json.dumps(str(tmp_path / 'places.mmdb'))}\n" if n == "geo_ip" else "")
            for n in names
        )
    )
    running = start("--config", str(file))
    page = "https://shop.example/?utm_source=news&_sp=aeb1691c5a0ee5a6.1680681134458"
    query = urlencode({"e": "pv", "p": "web", "ip": "192.0.2.77", "url": page, "refr": "https://www.google.se/search?q=skor"})
    request = urllib.request.Request(f"{running.url}/i?{query}", headers={"User-Agent": CHROME, **HINTS})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    running.wait(1)
    (row,) = running.query("SELECT * FROM atomic.events")
    expected = {
        "geo_country": "SE",
        "geo_city": "Exempelköping",
        "geo_latitude": 58.4167,
        "user_ipaddress": "192.0.2.x",
        "refr_medium": "search",
        "refr_source": "Google",
        "refr_term": "skor",
        "mkt_source": "news",
        "br_family": "Chrome",
        "os_name": "Windows 10",
        "dvce_type": "Computer",
        "refr_domain_userid": "aeb1691c5a0ee5a6",
    }
    assert {name: row[name] for name in expected} == expected
    entities = [entity["schema"].split("/")[1] for entity in json.loads(row["derived_contexts"])["data"]]
    assert sorted(entities) == ["cross_navigation", "http_client_hints", "ua_parser_context"]
