"""Pages in a real Chromium, tracked by the official browser tracker; what they sent is read from /micro/good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from spoorway.micro.client import Micro, running
from tests.peers import programs
from tests.peers.browser_peer import ARGUMENTS, HOST, START, site

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.peers.fixtures"]

WEB_PAGE = "iglu:com.snowplowanalytics.snowplow/web_page/jsonschema/1-0-0"
SESSION = "iglu:com.snowplowanalytics.snowplow/client_session/jsonschema/1-0-2"


@pytest.fixture(scope="module")
def bundle(npm_peers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return programs.bundle("newest.js", tmp_path_factory.mktemp("bundle") / "newest.js")


@pytest.fixture(scope="module")
def server() -> Iterator[Micro]:
    with running("--cors", "--insecure-cookie") as micro:
        yield micro


@pytest.mark.parametrize("method", ["post", "get"])
def test_every_event_of_a_visit_is_good(spoorway_micro: Micro, chromium: str, bundle: Path, method: str) -> None:
    run = programs.run_browser(spoorway_micro.url, bundle, "newest", method)
    assert run.answer["console"] == []
    tracked = run.answer["tracked"]
    found = spoorway_micro.expect_good(len(tracked), contexts=[WEB_PAGE, SESSION])
    spoorway_micro.expect_no_bad()
    assert {each["event"]["event_id"] for each in found} == set(tracked)
    steps = {step["name"]: step for step in run.answer["steps"]}
    (page,) = spoorway_micro.good(event_type="page_view")
    facts = steps["page_view"]["facts"]
    columns = ("page_url", "page_title", "page_referrer", "br_viewwidth", "br_cookies", "domain_userid", "domain_sessionidx")
    assert {name: page["event"][name] for name in columns} == {name: facts[name] for name in columns}
    assert page["rawEvent"]["parameters"]["vid"] == str(facts["domain_sessionidx"])
    assert page["rawEvent"]["context"]["useragent"] == facts["useragent"]
    web_page = {"schema": WEB_PAGE, "data": {"id": facts["page_view_id"]}}
    assert web_page in page["event"]["contexts"]["data"]
    (described,) = spoorway_micro.good(event_type="unstruct")
    assert described["event"]["event_id"] == steps["self_describing"]["event_ids"][0]
    assert described["event"]["unstruct_event"]["data"]["schema"] == described["schema"]
    structs = spoorway_micro.good(event_type="struct")
    assert [each["event"]["event_id"] for each in structs] == [steps[name]["event_ids"][0] for name in ("struct_bare", "struct")]


def test_a_page_reads_back_what_it_sent(server: Micro, chromium: str, bundle: Path) -> None:
    from playwright.sync_api import sync_playwright

    micro = server.namespace("page")
    options: dict[str, Any] = {
        "url": micro.url,
        "app_id": "shop",
        "namespace": "sp",
        "user_id": "ada",
        "method": "post",
        "base64": False,
        "anonymous": False,
    }
    collector = urlsplit(micro.url).hostname
    rules = f"MAP {HOST} 127.0.0.1:%d, MAP * ~NOTFOUND, EXCLUDE {collector}"
    with site(bundle) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*ARGUMENTS, f"--host-resolver-rules={rules % port}"])
        page = browser.new_page()
        page.goto(f"http://{HOST}/beds")
        page.expose_function("tracked", lambda event_id: None)  # pyright: ignore[reportUnknownMemberType, reportUnknownLambdaType]
        page.evaluate(START, options)
        page.evaluate("peer.trackPageView({})")
        text = page.evaluate("(url) => fetch(`${url}/micro/good?wait=1&user_id=ada`).then((answer) => answer.text())", micro.url)
        filtered = page.evaluate(
            """(url) => fetch(`${url}/micro/good`, {
                method: "POST", headers: { "Content-Type": "application/json" }, body: '{"event_type":"page_ping"}',
            }).then((answer) => answer.json())""",
            micro.url,
        )
        browser.close()
    (found,) = json.loads(text)
    assert found["event"]["page_url"] == f"http://{HOST}/beds"
    assert found["rawEvent"]["context"]["headers"].count(f"Origin: http://{HOST}") == 1
    assert filtered == []
    assert server.all() == {"total": 0, "good": 0, "bad": 0}
