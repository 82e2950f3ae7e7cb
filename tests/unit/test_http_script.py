"""The JavaScript tracker is served where the operator says, and nowhere else; its script may see how long to wait."""

from pathlib import Path

import pytest

from gateway.http.routes import Routes
from protocol.seams import ConfigurationError, TransientError
from tests.unit.http_site import TP2, Site, served

SCRIPT = Path(__file__).parents[2] / "gateway" / "http" / "script" / "spoorway.js"


def test_a_path_that_is_taken_is_refused() -> None:
    for path in ("sp.js", "/i", "/", "/r/sp.js"):
        with pytest.raises(ConfigurationError, match="script_path"):
            Routes({}, path)
    with pytest.raises(ConfigurationError, match="already"):
        Routes({"/a/b": TP2}, "/a/b")


@served(script_path="/assets/a7.js")
async def test_the_script_is_served_at_the_path_of_ones_own(site: Site) -> None:
    reply = await site.ask("/assets/a7.js")
    assert (reply.status, reply.body) == (200, SCRIPT.read_bytes())
    assert reply["Content-Type"] == "text/javascript; charset=utf-8"
    assert reply["Access-Control-Allow-Origin"] == "*"
    assert (await site.ask("/assets/a7.js", "HEAD")).status == 200
    assert (await site.post(target="/assets/a7.js")).status == 200  # two segments: still an event's address
    assert len(site.recorder.payloads) == 1


@served()
async def test_without_the_option_there_is_no_script(site: Site) -> None:
    assert (await site.ask("/spoorway.js")).status == 404


@served()
async def test_a_script_may_see_how_long_to_wait(site: Site) -> None:
    site.recorder.trouble = TransientError("disk full")
    reply = await site.post(Origin="https://a.example")
    assert reply["Access-Control-Expose-Headers"] == "Retry-After"
