"""`spoorway micro` as its users have it: the command, the pytest fixtures, Node, and official trackers that send to it."""

from __future__ import annotations

import http.client
import http.cookiejar
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from snowplow_tracker import Emitter, PageView, StructuredEvent, Tracker

from spoorway.micro.client import Micro, running
from tests.peers import programs

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.peers.fixtures"]

ROOT = Path(__file__).parents[2]
MICRO = [sys.executable, "-m", "spoorway", "micro"]
LINK_CLICK = "iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1"
WEB_PAGE = "iglu:com.snowplowanalytics.snowplow/web_page/jsonschema/1-0-0"


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


# The fixtures and their client ----------------------------------------------------------------------------------------


def test_an_event_is_read_back(spoorway_micro: Micro) -> None:
    get(f"{spoorway_micro.url}/i?e=pv&p=web&aid=shop&page=Beds")
    (found,) = spoorway_micro.good()
    assert (found["event"]["app_id"], found["event"]["page_title"]) == ("shop", "Beds")
    assert spoorway_micro.all() == {"total": 1, "good": 1, "bad": 0}
    spoorway_micro.expect_no_bad()


def test_a_test_sees_nothing_of_the_one_before(spoorway_micro: Micro) -> None:
    assert spoorway_micro.all() == {"total": 0, "good": 0, "bad": 0}


def test_filters_of_the_client_are_those_of_the_server(spoorway_micro: Micro) -> None:
    for query in ("e=pv&aid=a", "e=pp&aid=b&cookie=1", "e=se&aid=b&se_va=2.50"):
        get(f"{spoorway_micro.url}/i?{query}")
    assert [each["eventType"] for each in spoorway_micro.good(app_id="b")] == ["struct", "page_ping"]
    assert len(spoorway_micro.good(event_type="page_view", schema=None)) == 1
    assert len(spoorway_micro.good(limit=2)) == 2
    assert len(spoorway_micro.good(br_cookies=True)) == 1
    assert len(spoorway_micro.good(se_value=2.5)) == 1
    assert spoorway_micro.good(contexts=[WEB_PAGE]) == []
    assert spoorway_micro.all(app_id="a")["total"] == 1
    with pytest.raises(ValueError, match=r"422 .*app: no such parameter"):
        spoorway_micro.good(app="b")


def test_expectations_that_fail_say_what_came(spoorway_micro: Micro) -> None:
    get(f"{spoorway_micro.url}/i?e=nonsense&p=web")
    with pytest.raises(AssertionError, match=r"no bad event was expected\n  bad: .*expected one of pv"):
        spoorway_micro.expect_no_bad()
    with pytest.raises(AssertionError, match=r"0 good events where 1 were expected, of \{'total': 1.*\n  bad: .*expected one of"):
        spoorway_micro.expect_good(1, timeout_s=0.01)
    assert len(spoorway_micro.bad(vendor="com.snowplowanalytics.snowplow", version="tp1")) == 1
    assert spoorway_micro.bad(vendor="com.acme") == []
    spoorway_micro.reset()
    spoorway_micro.expect_no_bad()


def test_fixtures_need_no_import_in_a_project_of_its_own(tmp_path: Path) -> None:
    schema = tmp_path / "schemas" / "com.acme" / "thing" / "jsonschema" / "1-0-0"
    schema.parent.mkdir(parents=True)
    about = {"vendor": "com.acme", "name": "thing", "format": "jsonschema", "version": "1-0-0"}
    schema.write_text(json.dumps({"self": about, "type": "object", "required": ["size"]}))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nspoorway_micro_schemas = schemas\nspoorway_micro_arguments = --max-events 7\n"
    )
    (tmp_path / "test_shop.py").write_text(
        "import json, urllib.request\n"
        "def test_thing(spoorway_micro, spoorway_micro_server):\n"
        "    url = spoorway_micro.url + '/com.snowplowanalytics.iglu/v1?schema=iglu:com.acme/thing/jsonschema/1-0-0&'\n"
        "    urllib.request.urlopen(url + 'size=big').close()\n"
        "    urllib.request.urlopen(url + 'colour=red').close()\n"
        "    [event] = spoorway_micro.expect_good(1)\n"
        "    assert event['schema'] == 'iglu:com.acme/thing/jsonschema/1-0-0'\n"
        "    assert len(spoorway_micro.bad()) == 1\n"
        "    memory = json.load(urllib.request.urlopen(spoorway_micro_server.url + '/micro/memory'))\n"
        "    assert memory['max_events'] == 7\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout


# The command -----------------------------------------------------------------------------------------------------------


class Started:
    """A `spoorway micro` by hand, in an empty folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.errors = folder.parent / "errors.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*MICRO, "--http", "127.0.0.1:0", "--json", *arguments],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        assert self.process.stdout is not None
        self.line: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.micro = Micro(self.line["url"])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Started] = []
    (tmp_path / "empty").mkdir()

    def begin(*arguments: str) -> Started:
        started.append(Started(tmp_path / "empty", *arguments))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def test_it_says_where_it_is_and_writes_nothing(start: Any) -> None:
    it: Started = start()
    assert it.line.keys() == {"url", "pid", "version"}
    assert it.line["pid"] == it.process.pid
    get(f"{it.micro.url}/i?e=pv&p=web&aid=shop")
    get(f"{it.micro.url}/i?e=nonsense&p=web")
    assert it.micro.all() == {"total": 2, "good": 1, "bad": 1}
    it.process.send_signal(signal.SIGINT)
    assert it.process.wait(20) == 0
    assert list(it.folder.iterdir()) == []
    good, bad = it.errors.read_text().splitlines()
    assert good.startswith("GOOD  id:") and "app_id:shop  type:page_view" in good
    assert bad.startswith("BAD ") and "expected one of pv" in bad


def test_it_is_ready_soon_and_small(start: Any) -> None:
    """The targets are 1 s and 60 MB. A busy machine may take longer: only what nobody would call soon fails."""
    begun = time.monotonic()
    it: Started = start("--quiet")
    seconds = time.monotonic() - begun
    get(f"{it.micro.url}/i?e=pv&p=web")
    it.micro.good()
    status = Path(f"/proc/{it.process.pid}/status").read_text()
    (resident_kb,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    print(f"ready after {seconds:.2f} s, {resident_kb / 1024:.1f} MB")
    assert resident_kb < 60 * 1024
    assert seconds < 15


def test_it_ends_with_who_started_it(start: Any) -> None:
    it: Started = start("--with-parent")
    assert it.process.stdin is not None
    it.process.stdin.close()
    assert it.process.wait(20) == 0


def test_it_ends_although_somebody_waits(start: Any) -> None:
    it: Started = start()
    get(f"{it.micro.url}/i?e=pv&p=web")
    waiting = http.client.HTTPConnection(urlsplit(it.micro.url).netloc, timeout=10)
    waiting.request("GET", "/micro/all?wait=5&timeout_ms=60000")
    get(f"{it.micro.url}/health")  # what is answered now came after it
    it.process.terminate()
    assert json.load(waiting.getresponse())["total"] == 1
    waiting.close()
    assert it.process.wait(5) == 0


def test_a_visitor_is_known_again_over_plain_http(start: Any) -> None:
    it: Started = start("--insecure-cookie", "--cookie-name", "micro")
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    for _ in range(2):
        browser.open(f"{it.micro.url}/i?e=pv&p=web").close()
    (cookie,) = jar
    assert (cookie.name, cookie.secure) == ("micro", False)
    assert [each["event"]["network_userid"] for each in it.micro.good()] == [cookie.value] * 2


def test_the_cookie_is_secure_unless_told_otherwise(start: Any) -> None:
    it: Started = start()
    with urllib.request.urlopen(f"{it.micro.url}/i?e=pv") as answer:
        cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("sp=")
    assert "; Secure" in cookie and "SameSite=None" in cookie


def test_the_configuration_counts_but_for_where_it_listens(start: Any, tmp_path: Path) -> None:
    (tmp_path / "empty" / "spoorway.toml").write_text(
        '[gateway.transports.http]\nhost = "192.0.2.1"\nport = 1\nstored_headers = ["X-Kept"]\n'
        "[gateway.transports.http.cookie]\nenabled = false\n[enrich]\nlenient = []\n"
    )
    it: Started = start()
    request = urllib.request.Request(f"{it.micro.url}/i?e=pv", headers={"X-Kept": "1", "X-Lost": "1"})
    urllib.request.urlopen(request).close()
    (found,) = it.micro.good()
    assert found["rawEvent"]["context"]["headers"] == ["X-Kept: 1"]
    assert found["event"]["network_userid"] is None


def test_mistakes_end_it_with_one_line() -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([*MICRO, *arguments], capture_output=True, text=True, timeout=30)
        return done.returncode, done.stderr

    assert run("--max-events", "0")[0] == 2
    with running() as micro:
        code, why = run("--http", urlsplit(micro.url).netloc)
        assert (code, "in use" in why) == (1, True)
    with pytest.raises(RuntimeError, match="ended with code 1"), running("--config", "/no/such.toml"):
        pass


# Other programs --------------------------------------------------------------------------------------------------------


def test_the_official_python_tracker_sends_to_a_namespace(spoorway_micro: Micro) -> None:
    tracker = Tracker("py", Emitter(spoorway_micro.url, batch_size=1), app_id="shop")
    tracker.track(PageView(page_url="http://shop.test/", page_title="Beds"))
    event_id = tracker.track(StructuredEvent(category="bed", action="open", value=2.5))
    struct, page = spoorway_micro.expect_good(2, app_id="shop")
    assert (page["eventType"], page["event"]["page_title"]) == ("page_view", "Beds")
    assert (struct["event"]["event_id"], struct["event"]["se_value"]) == (event_id, 2.5)
    spoorway_micro.expect_no_bad()


def test_the_node_package_tests_itself() -> None:
    if shutil.which("node") is None:
        programs.missing("node")
    folder = ROOT / "examples" / "micro-node"
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", "test/micro.test.js"],
        cwd=folder,
        env=os.environ | {"SPOORWAY": f"{sys.executable} -m spoorway", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 8" in done.stdout and "# skipped 0" in done.stdout, done.stdout
