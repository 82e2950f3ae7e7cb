"""The Lua tracker on every Lua: vectors, specs, what it leaves alone, and its sizes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import test_trackers as conformance

ROOT = Path(__file__).parents[3]
TRACKER = ROOT / "trackers" / "lua"
ADAPTER = ROOT / "tests" / "conformance" / "adapters" / "lua.lua"
VERSION = "lua-1.0.0"
SOURCE_BYTES, MINIFIED_BYTES, PACKED_BYTES = 24 * 1024, 15_200, 8_900  # hardly more than they are: growth is a decision

BINARIES = ("lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit")
MODULES = ("lua51", "lua52", "lua53", "lua54", "lua55", "luajit20", "luajit21")
_IN_LUPA = """
import importlib, sys
lua = importlib.import_module("lupa." + sys.argv[1]).LuaRuntime(unpack_returned_tuples=True)
lua.globals().arg = lua.table_from({i: text for i, text in enumerate(sys.argv[2:])})
lua.execute(open(sys.argv[2]).read())
"""


def command(runtime: str, program: Path | str, *arguments: Path | str) -> list[str]:
    start = [sys.executable, "-c", _IN_LUPA, runtime] if runtime in MODULES else [runtime]
    return [*start, str(program), *map(str, arguments)]


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    run([sys.executable, str(TRACKER / "build.py"), str(folder)])
    return folder


def test_the_sizes_are_those_we_state(builds: Path) -> None:
    assert len((TRACKER / "spoorway.lua").read_bytes()) <= SOURCE_BYTES
    assert len((builds / "spoorway.min.lua").read_bytes()) <= MINIFIED_BYTES
    assert len((builds / "spoorway.packed.lua").read_bytes()) <= PACKED_BYTES


@pytest.mark.parametrize(("build", "lua"), [("min", "luajit"), ("packed", "lua5.1"), ("packed", "lua5.4")])
def test_a_build_is_the_same_program(build: str, lua: str, builds: Path, tmp_path: Path) -> None:
    (tmp_path / "spoorway.lua").write_bytes((builds / f"spoorway.{build}.lua").read_bytes())
    for other in TRACKER.glob("spoorway_*.lua"):
        (tmp_path / other.name).write_bytes(other.read_bytes())
    specs = Path(__file__).with_name("spec")
    where = shutil.which(lua) or lua
    said = run(["busted", f"--lua={where}", "-o", "plainTerminal", str(specs)], SPOORWAY_LUA=str(tmp_path))
    assert " 0 failures / 0 errors / 0 pending" in said


@pytest.mark.parametrize(
    ("source", "small"),
    [
        ("local function long(name) return name, 0.5 end", "local function a(a)return a,.5 end"),
        ("local one = 1 local two = one local three = 3", "local a=1 local a,a=a,3"),
        ('local f = print f("x") f({ f = f }) f({ 1 }, 2)', 'local a=print a"x"a{f=a}a({1},2)'),
        ("local kept = 1 do local inner = kept + other inner = a - -kept end", "local b=1 do local c=b+other c=a- -b end"),
        (
            "for key in pairs(t) do key = key end repeat local x = 1 until x",
            "for a in pairs(t)do a=a end repeat local a=1 until a",
        ),
    ],
    ids=["names", "joined", "brackets", "globals keep theirs", "blocks"],
)
def test_what_the_minifier_writes(source: str, small: str) -> None:
    assert _minified(source) == small + "\n"


def _minified(source: str) -> str:
    program = "import sys; from minify import minified; print(end=minified(sys.stdin.read()))"
    return run([sys.executable, "-c", program], source, PYTHONPATH=str(TRACKER))


@pytest.mark.parametrize(("lua", "most"), [("lua5.1", 74), ("lua5.4", 65), ("luajit", 53)])
def test_memory_after_load_in_kilobytes(lua: str, most: int, tmp_path: Path) -> None:
    """A little above what it is: growth is a decision."""
    said = run([lua, str(ROOT / "benchmarks" / "lua_frames.lua"), str(TRACKER), "memory", str(tmp_path), "http://127.0.0.1:9"])
    assert most - 6 < float(said.split()[0]) < most


def test_the_pages_samples_run(tmp_path: Path) -> None:
    """Each block of the README, in its order, in one program: LÖVE's callbacks called once, no gateway there."""
    blocks = re.findall(r"```lua\n(.*?)```", (TRACKER / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    first = blocks[0].replace("tracker:close(2)", "tracker:close(0.1)")
    page = tmp_path / "page.lua"
    page.write_text(f"""
        package.path = arg[1] .. "/?.lua;" .. package.path
        local host = {{}}
        do
            local love = host
            {first}
            host.load() host.update(0.016) host.quit()
            print(tracker:status().queued, next(tracker:status().dropped))
        end
        local spoorway = require("spoorway")
        {blocks[1]}
        tracker:track_page_view("x")
        print(tracker:close(5))
    """)
    assert run(["luajit", str(page), str(TRACKER)]).split() == ["6", "nil", "true", "nil"]


def run(words: list[str], text: str = "", **environment: str) -> str:
    if words[0] != sys.executable and shutil.which(words[0]) is None:
        missing = pytest.fail if os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1" else pytest.skip
        missing(f"{words[0]} is not installed")
    done = subprocess.run(
        words, input=text.encode(), capture_output=True, timeout=60, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-3000:]
    return done.stdout.decode()


@pytest.mark.parametrize("runtime", BINARIES + MODULES)
def test_every_vector_on_every_lua(runtime: str) -> None:
    lines = "".join(conformance.line_of(case) + "\n" for case in conformance.CASES)
    answers = run(command(runtime, ADAPTER, TRACKER), lines).splitlines()
    assert len(answers) == len(conformance.CASES)
    for case, answer in zip(conformance.CASES, answers, strict=True):
        assert conformance.differences(case, answer, VERSION) == [], f"{case.id}: {case.fields['why']}"


@pytest.mark.parametrize("runtime", ["lua5.1", "lua5.3", "lua5.4", "luajit"])
def test_specs(runtime: str) -> None:
    where = shutil.which(runtime) or runtime
    specs = Path(__file__).with_name("spec")
    said = run(["busted", f"--lua={where}", "-o", "plainTerminal", str(specs)], SPOORWAY_LUA=str(TRACKER))
    assert " 0 failures / 0 errors / 0 pending" in said


@pytest.mark.parametrize("folder", ["trackers/lua", "examples/love2d-game"])
def test_luacheck_finds_nothing(folder: str) -> None:
    assert " 0 warnings / 0 errors" in run(
        ["luacheck", "--no-color", "--config", str(ROOT / folder / ".luacheckrc"), str(ROOT / folder)]
    )


@pytest.mark.parametrize("runtime", BINARIES + MODULES)
def test_the_host_is_left_alone(runtime: str, tmp_path: Path) -> None:
    """No global is written, nor read by mistake; math.random goes on as if nobody had been there."""
    program = tmp_path / "host.lua"
    program.write_text("""
        package.path = arg[1] .. "/?.lua;" .. package.path
        local function draws(with)
            math.randomseed(42)
            local out = {}
            for i = 1, 5 do
                out[i] = math.random(1000000)
                if with then with(i) end
            end
            return table.concat(out, " ")
        end
        local alone = draws()
        pcall(require, "socket") -- writes globals of its own in some versions
        local written = {}
        setmetatable(_G, { __newindex = function(_, name) error("global written: " .. tostring(name)) end,
            __index = function(_, name) error("global read: " .. tostring(name)) end })
        local names = { }
        for name in pairs(_G) do names[name] = true end
        local spoorway = require("spoorway")
        local device = require("spoorway_device")
        local status
        local tracker = assert(spoorway.new({ url = "http://127.0.0.1:9", app_id = "a", interval = 0, budget_ms = 1000,
            sign = device.signer("arcade", ("0b"):rep(32)), transport = function(_, done) done(status) end }))
        local with = draws(function(i)
            status = i % 2 == 0 and 200 or 503
            assert(tracker:track_session_start())
            assert(tracker:track_level_end("one", "failed", { score = 1.5 }))
            for _ = 1, 60 do tracker:update(20) end -- longer than any pause
        end)
        assert(alone == with, alone .. " / " .. with)
        assert(tracker:opt_out() and tracker:opt_in() and tracker:close(0))
        for name in pairs(_G) do assert(names[name], name) end
        print(tracker:status().sent > 0)
    """)
    assert run(command(runtime, program, TRACKER)) == "true\n"
