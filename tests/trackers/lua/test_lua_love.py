"""The example game in the real LÖVE, without a screen: offline, killed, started again; each event is stored exactly once.

Two of its four lives have the tracker's packed build beside main.lua, as a game that is shipped has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Running
from tests.trackers.lua import lua_kills

pytestmark = pytest.mark.slow

GAME = Path(__file__).parents[3] / "examples" / "love2d-game"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def save(tmp_path: Path) -> Path:
    if shutil.which("love") is None:
        (pytest.fail if os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1" else pytest.skip)("love is not installed")
    return tmp_path / "save"


class Played:
    """tracked: ids in their order. queued: at the start. slowest_ms: of all calls of update(), if the game ended by itself."""

    def __init__(self, said: str) -> None:
        lines = [line.split() for line in said.split("\n")[:-1]]  # the last one may have been cut off by the kill
        self.tracked = [line[1] for line in lines if line[:1] == ["tracked"] and line[1] != "nil"]
        self.queued = next((int(line[1]) for line in lines if line[:1] == ["start"]), 0)
        self.slowest_ms = next((float(line[1]) for line in lines if line[:1] == ["slowest"]), None)


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    game = shutil.copytree(GAME, tmp_path / "game")
    lua_kills.packed(game)
    return game


def play(url: str, save: Path, frames: int, kill_after_events: int | None = None, game: Path = GAME) -> Played:
    script = {"SPOORWAY_URL": url, "SPOORWAY_SCRIPT": str(frames), "SPOORWAY_INTERVAL": "0.02"}
    environment = {**script, "XDG_DATA_HOME": str(save), "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        ["love", str(game)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as life:
        assert life.stdout is not None
        said, tracked = "", 0
        try:
            for line in life.stdout:
                said += line
                tracked += line.startswith("tracked")
                if tracked == kill_after_events:
                    life.kill()
        finally:
            life.kill()
    return Played(said)


def test_offline_killed_and_started_again(spoorway_run: Running, save: Path, shipped: Path) -> None:
    lives = [
        play(NOWHERE, save, 250),
        play(NOWHERE, save, 4000, kill_after_events=40, game=shipped),
        play(spoorway_run.url, save, 4000, kill_after_events=60, game=shipped),
    ]

    def stored() -> list[str]:
        return [row["event_id"] for row in spoorway_run.query("SELECT event_id FROM atomic.events WHERE app_id = 'duck-hunt'")]

    spoorway_run.until(lambda: len(stored()) > 0, lambda: "the packed build's thread sent nothing")
    lives.append(play(spoorway_run.url, save, 250))
    assert lives[1].queued == len(lives[0].tracked) > 10, "offline, all of the first life waits"
    assert lives[2].queued >= len(lives[0].tracked) + 40, "and of the second, all that was tracked before it was killed"
    tracked = [id for life in lives for id in life.tracked]
    assert len(set(tracked)) == len(tracked)
    spoorway_run.until(
        lambda: set(tracked) <= set(stored()), lambda: f"lost: {len(set(tracked) - set(stored()))} of {len(tracked)}"
    )
    assert len(stored()) == len(set(stored()))
    assert spoorway_run.query("SELECT failed FROM atomic.totals") == [{"failed": 0}]
    (players,) = spoorway_run.query(
        "SELECT count(DISTINCT domain_userid) AS n, max(domain_sessionidx) AS sessions FROM atomic.events"
    )
    assert (players["n"], players["sessions"]) == (1, 4), "one player, four starts"
    _ask(spoorway_run)


def _ask(product: Running) -> None:
    """The three questions that lie beside the game."""
    funnel = product.query((GAME / "sql" / "funnel.sql").read_text())
    assert [row["level"] for row in funnel][:2] == ["meadow", "pond"]
    assert funnel[0]["began"] == 1 and funnel[0]["completed"] == 1 and funnel[1]["deaths"] >= 1
    (day,) = product.query((GAME / "sql" / "retention.sql").read_text())
    assert day["players"] == 1 and day["day_1"] == 0
    economy = product.query((GAME / "sql" / "economy.sql").read_text())
    assert {"earned", "spent"} == {row["flow"] for row in economy}
    assert next(row for row in economy if row["flow"] == "spent")["what"] == "boots"


def test_a_frame_is_never_held_up_by_a_gateway_that_is_not_there(save: Path) -> None:
    """The better of two runs: on a busy machine the processor may be taken away within a frame."""
    runs = [play(NOWHERE, save, 300).slowest_ms for _ in range(2)]
    assert all(each is not None for each in runs)
    assert min(each for each in runs if each is not None) < 50  # a call that blocks takes longer; figures: `benchmarks lua`
