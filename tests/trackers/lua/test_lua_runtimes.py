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
SOURCE_BYTES = 24 * 1024
# hardly more than they are: growth is a decision
BUILD_BYTES = {"min": 14_400, "core": 12 * 1024, "packed": 9_800, "packed_core": 11_200}

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
    for build, most in BUILD_BYTES.items():
        assert len((builds / f"spoorway.{build}.lua").read_bytes()) <= most, build


def _put(builds: Path, build: str, folder: Path) -> None:
    """Where `require "spoorway"` finds that build ("": as it is written) and the parts beside it."""
    source = builds / f"spoorway.{build}.lua" if build else TRACKER / "spoorway.lua"
    (folder / "spoorway.lua").write_bytes(source.read_bytes())
    for other in TRACKER.glob("spoorway_*.lua"):
        (folder / other.name).write_bytes(other.read_bytes())


@pytest.mark.parametrize(("build", "lua"), [("min", "luajit"), ("packed", "lua5.1"), ("packed", "lua5.4"), ("packed", "luajit")])
def test_a_build_is_the_same_program(build: str, lua: str, builds: Path, tmp_path: Path) -> None:
    _put(builds, build, tmp_path)
    specs = Path(__file__).with_name("spec")
    where = shutil.which(lua) or lua
    said = run(["busted", f"--lua={where}", "-o", "plainTerminal", str(specs)], SPOORWAY_LUA=str(tmp_path))
    assert " 0 failures / 0 errors / 0 pending" in said


@pytest.mark.parametrize("runtime", ["lua5.2", "lua51", "lua55", "luajit20"])
def test_the_packed_build_runs_every_vector(runtime: str, builds: Path, tmp_path: Path) -> None:
    _put(builds, "packed", tmp_path)
    _runs_every_vector(command(runtime, ADAPTER, tmp_path))


_ODD_HOST = """
    package.path = arg[1] .. "/?.lua;" .. package.path
    {taken}
    local loaded, spoorway = pcall(require, "spoorway")
    if not loaded then return print(spoorway) end
    local sent
    local function transport(request, done) sent = request done(200) end
    local tracker = spoorway.new({{ url = "http://127.0.0.1:9", transport = transport }})
    tracker:track_page_view("x")
    print(tracker:close(5), sent.body:find("x", 1, true) ~= nil)
"""


@pytest.mark.parametrize("lua", ["lua5.1", "lua5.2", "lua5.4", "luajit"])
@pytest.mark.parametrize(
    ("build", "taken", "said"),
    [
        *((build, "load, loadstring = nil, nil", "true\ttrue") for build in ("", "min", "core")),
        ("packed", "load, loadstring = nil, nil", "a packed build of spoorway needs load: take spoorway.min.lua"),
        ("packed", "load = function() end loadstring = load", "a packed build of spoorway needs load: take spoorway.min.lua"),
        ("packed", "string.dump = nil", "true\ttrue"),
        ("packed", "string.dump = function() return 'no bytecode' end", "true\ttrue"),
        ("packed", "local old = string.dump string.dump = function(...) return old(...):sub(1, -9) end", "true\ttrue"),
        ("packed", "local old = string.dump string.dump = function(...) return '\\27Lua' .. old(...) end", "true\ttrue"),
        (
            "packed",
            "local d = string.dump string.dump = function(f) return d(f):sub(1, 12) .. ('\\0'):rep(24) .. ('\\255'):rep(9) end",
            "true\ttrue",
        ),
    ],
    ids=[
        "plain",
        "min",
        "core",
        "packed",
        "no parser",
        "no dump",
        "text for a dump",
        "a dump cut off",
        "a dump of another kind",
        "a dump of millions",
    ],
)
def test_a_host_that_lacks_something(build: str, taken: str, said: str, lua: str, builds: Path, tmp_path: Path) -> None:
    """Without `load` all but the packed build work, and that says so; without good bytecode it does with what it compiled."""
    _put(builds, build, tmp_path)
    program = tmp_path / "host.lua"
    program.write_text(_ODD_HOST.format(taken=taken))
    assert run([lua, str(program), str(tmp_path)]) == said + "\n"


@pytest.mark.parametrize("lua", ["lua5.1", "lua5.4", "luajit"])
def test_the_packed_build_compiles_in_new_and_in_no_frame(lua: str, builds: Path, tmp_path: Path) -> None:
    _put(builds, "packed", tmp_path)
    program = tmp_path / "host.lua"
    program.write_text("""
        package.path = arg[1] .. "/?.lua;" .. package.path
        local count, compile = 0, loadstring or load
        local function counted(...) count = count + 1 return compile(...) end
        load, loadstring = counted, loadstring and counted
        local spoorway = require("spoorway")
        io.write(count, " ")
        local tracker = spoorway.new({ url = "http://127.0.0.1:9", transport = function(_, done) done(200) end })
        io.write(count, " ")
        for _ = 1, 100 do tracker:track_level_end("one", "failed", { x = "\\255" }) tracker:update(10) end
        tracker:opt_out() tracker:opt_in() tracker:track_session_start() spoorway.new({}) tracker:close(5)
        print(count)
    """)
    assert run([lua, str(program), str(tmp_path)]) == "1 3 3\n"


@pytest.mark.parametrize("build", ["", "packed"])
def test_a_tracker_goes_on_without_its_module(build: str, builds: Path, tmp_path: Path) -> None:
    """package.loaded.spoorway = nil frees the module, and what was tracked before is there in its next life."""
    _put(builds, build, tmp_path)
    program = tmp_path / "host.lua"
    program.write_text("""
        package.path = arg[1] .. "/?.lua;" .. package.path
        local module = setmetatable({ require("spoorway") }, { __mode = "v" })
        local tracker = module[1].new({ url = "http://127.0.0.1:9", folder = arg[1] })
        tracker:track_page_view("x")
        package.loaded.spoorway = nil
        collectgarbage() collectgarbage()
        print(module[1], tracker:track_level_end("one", "failed") ~= nil, tracker:close(0.1))
        tracker = require("spoorway").new({ url = "http://127.0.0.1:9", folder = arg[1] })
        print(tracker:status().queued)
    """)
    assert run(["luajit", str(program), str(tmp_path)]).split() == ["nil", "true", "nil", "pending", "2"]


@pytest.mark.parametrize("core", ["core", "packed_core"])
def test_the_core_is_the_same_program_without_transports_of_its_own(core: str, builds: Path, tmp_path: Path) -> None:
    _put(builds, core, tmp_path)
    assert (tmp_path / "spoorway.lua").read_bytes().isascii()
    _runs_every_vector(["lua5.1", str(ADAPTER), str(tmp_path)])
    program = tmp_path / "alone.lua"
    program.write_text("""
        package.path = arg[1] .. "/?.lua;" .. package.path
        local spoorway = require("spoorway")
        print(spoorway.new({ url = "http://127.0.0.1:9" }))
        local sent
        local tracker = spoorway.new({ folder = arg[1], transport = function(request, done) sent = request done(200) end })
        tracker:track_page_view("x")
        print(tracker:close(5), sent.body:find('"url":"x"', 1, true) ~= nil)
    """)
    assert run(["lua5.1", str(program), str(tmp_path)]).split() == ["nil", "transport", "true", "true"]


@pytest.mark.parametrize(
    ("source", "small"),
    [
        ("local function long(name) return name, 0.5 end", "local function a(a)return a,.5 end"),
        ("local one = 1 local two = one local three = 3", "local a=1 a=a a=3"),
        ('local f = print f("x") f({ f = f, }) f({ 1 }, 2)', 'local a=print a"x"a{f=a}a({1},2)'),
        ("local kept = 1 do local inner = kept + other inner = a - -kept end", "local b,c=1 do c=b+other c=a- -b end"),
        (
            "for key in pairs(t) do key = key end repeat local x = 1 until x",
            "for a in pairs(t)do a=a end repeat local a=1 until a",
        ),
        ("function f(one) local two = one return two end", "function f(a)a=a return a end"),
        ("function f(one) local two = g() return one, two end", "function f(b,a)a=g()return b,a end"),
        ("function f(...) local one = ... return one end", "function f(...)local a=...return a end"),
        ("x = { order = y.order, kept = y.kept }", "x={a=y.a,kept=y.kept}"),
        ('x = "one\\\ntwo" .. "\\\\"', 'x="one\\ntwo".."\\\\"'),
        ("a(setmetatable, 1) b(setmetatable, 2)", "local c=setmetatable a(c,1)b(c,2)"),
    ],
    ids=[
        "names",
        "one variable",
        "brackets",
        "globals keep theirs",
        "blocks",
        "a parameter is free",
        "a parameter more",
        "varargs",
        "fields",
        "lines of a text",
        "globals",
    ],
)
def test_what_the_minifier_writes(source: str, small: str) -> None:
    assert _minified(source) == small + "\n"


_TRAPS = """
local function counters() -- a variable of its own for each turn
    local made = {}
    for i = 1, 3 do
        local n = i * 10
        made[i] = function() n = n + 1 return n end
    end
    return made[1]() + made[1](), made[2](), made[3]()
end
local function turns(limit) -- read in a later turn than it was written in
    local before, out = 0, ""
    local step = limit > 3 and 2 or 1
    while before < limit do
        local double = before * 2
        out = out .. double .. " "
        local more = double + step
        before = before + step
        if more > 100 then break end
    end
    local last = out .. "end"
    return last
end
local function given(a, b) -- an argument too many is never read
    local c
    if a then c = b end
    local d = c or "none"
    return d, c
end
local function deep(n)
    local here = n
    if n > 0 then
        local below = deep(n - 1)
        here = here + below
    end
    return here
end
local function swap(a, b)
    local x, y = b, a
    local z = x .. y
    return z, x, y
end
local function until_seen(list)
    local at = 0
    repeat
        at = at + 1
        local item = list[at]
    until item == "stop" or not item
    return at
end
local function later()
    local first = 1
    local get = function() return first end
    local second = 2
    return get(), second
end
local function pack_up(...)
    local a, b = ...
    local rest = select("#", ...)
    return a, b, rest
end
print(counters())
print(turns(7))
print(given(nil, 1, 2, 3), given(true, 5))
print(deep(4))
print(swap("a", "b"))
print(until_seen({ "x", "y", "stop" }))
print(later())
print(pack_up(1, 2, 3))
"""


@pytest.mark.parametrize("lua", ["lua5.1", "lua5.4", "luajit"])
def test_a_minified_program_does_the_same(lua: str, tmp_path: Path) -> None:
    for name, text in (("plain", _TRAPS), ("small", _minified(_TRAPS))):
        (tmp_path / f"{name}.lua").write_text(text)
    said = run([lua, str(tmp_path / "small.lua")])
    assert said == run([lua, str(tmp_path / "plain.lua")]) and len(said.splitlines()) == 8


def _minified(source: str) -> str:
    program = "import sys; from minify import minified; print(end=minified(sys.stdin.read(), ['order']))"
    return run([sys.executable, "-c", program], source, PYTHONPATH=str(TRACKER))


@pytest.mark.parametrize(
    ("lua", "build", "load", "tracker", "alone"),
    [
        ("lua5.1", "", 66, 77, 60),
        ("lua5.4", "", 59, 68, 55),
        ("luajit", "", 46, 62, 46),
        ("lua5.4", "min", 57, 66, 53),
        ("luajit", "core", 41, 57, 41),
        *((lua, "packed", 16, 54, 43) for lua in ("lua5.1", "lua51")),
        *((lua, "packed", 16, 58, 47) for lua in ("lua5.2", "lua52")),
        *((lua, "packed", 16, 57, 46) for lua in ("lua5.3", "lua5.4", "lua55")),
        *((lua, "packed", 14, 55, 42) for lua in ("luajit", "luajit21")),
        *((lua, "packed_core", 17, 54, 42) for lua in ("lua5.1", "lua5.3", "lua5.4")),
    ],
)
def test_memory_in_kilobytes(lua: str, build: str, load: int, tracker: int, alone: int, builds: Path, tmp_path: Path) -> None:
    """After load, with a tracker, and of a tracker alone; a little above what it is: growth is a decision."""
    _put(builds, build, tmp_path)
    program = command(lua, ROOT / "benchmarks" / "lua_frames.lua", tmp_path, "memory", tmp_path, "http://127.0.0.1:9")
    figures = [float(word) for word in run(program).split()[:3]]
    for most, figure in zip((load, tracker, alone), figures, strict=True):
        assert most - 6 < figure < most, figures


def test_the_pages_samples_run(tmp_path: Path) -> None:
    """Each block of the README, in its order, in one program: LÖVE's callbacks called once, no gateway there."""
    blocks = re.findall(r"```lua\n(.*?)```", (TRACKER / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    first = blocks[1].replace("tracker:close(2)", "tracker:close(0.1)")
    page = tmp_path / "page.lua"
    page.write_text(f"""
        package.path = arg[1] .. "/?.lua;" .. package.path
        do
            {blocks[0]}
            print(tracker:track_page_view("x") ~= nil, package.loaded.spoorway)
        end
        local host = {{}}
        do
            local love = host
            {first}
            host.load() host.update(0.016) host.quit()
            print(tracker:status().queued, next(tracker:status().dropped))
        end
        local spoorway = require("spoorway")
        {blocks[2]}
        tracker:track_page_view("x")
        print(tracker:close(5))
    """)
    assert run(["luajit", str(page), str(TRACKER)]).split() == ["true", "nil", "6", "nil", "true", "nil"]


def run(words: list[str], text: str = "", **environment: str) -> str:
    if words[0] != sys.executable and shutil.which(words[0]) is None:
        missing = pytest.fail if os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1" else pytest.skip
        missing(f"{words[0]} is not installed")
    done = subprocess.run(
        words, input=text.encode(), capture_output=True, timeout=60, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-3000:]
    return done.stdout.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("runtime", BINARIES + MODULES)
def test_every_vector_on_every_lua(runtime: str) -> None:
    _runs_every_vector(command(runtime, ADAPTER, TRACKER))


def _runs_every_vector(program: list[str]) -> None:
    lines = "".join(conformance.line_of(case) + "\n" for case in conformance.CASES)
    answers = run(program, lines).splitlines()
    assert len(answers) == len(conformance.CASES)
    for case, answer in zip(conformance.CASES, answers, strict=True):
        assert conformance.differences(case, answer, VERSION) == [], f"{case.id}: {case.fields['why']}"


@pytest.mark.parametrize("runtime", ["lua5.1", "lua5.3", "lua5.4", "luajit"])
def test_specs(runtime: str) -> None:
    where = shutil.which(runtime) or runtime
    specs = Path(__file__).with_name("spec")
    said = run(["busted", f"--lua={where}", "-o", "plainTerminal", str(specs)], SPOORWAY_LUA=str(TRACKER))
    assert " 0 failures / 0 errors / 0 pending" in said


def test_luajit_compiles_no_walk_through_a_table(builds: Path) -> None:
    """Compiled by LuaJIT 2.1 of 2022, next and pairs() garbled one event in thousands: 15 of 23,600 of the vectors."""
    for program in (TRACKER / "spoorway.lua", builds / "spoorway.min.lua", builds / "spoorway.core.lua"):
        listing = run(["luajit", "-bl", str(program)])
        assert "ITERC" in listing and not re.search(r"\b(ITERN|ISNEXT)\b", listing), program.name
    program = builds / "hot.lua"
    program.write_text("""
        package.path = arg[1] .. "/?.lua;" .. package.path
        local spoorway = require("spoorway")
        local tracker = spoorway.new({ transport = function(_, done) done(200) end })
        for i = 1, 2000 do tracker:track_self_describing("iglu:a/b/jsonschema/1-0-0", { a = i, b = { i }, c = "x" }) end
    """)
    events = run(["luajit", "-jdump=im", str(program), str(TRACKER)])
    assert "---- TRACE" in events and "lj_vm_next" not in events


def test_luajit_compiles_a_verb_a_few_times_and_not_for_ever(tmp_path: Path) -> None:
    """`{ ... }` of three arguments and more: compiled anew each time that it had run ten times, until 100 of it filled 90 KB."""
    program = tmp_path / "hot.lua"
    program.write_text("""
        package.path = arg[1] .. "/?.lua;" .. package.path
        local spoorway = require("spoorway")
        local tracker = spoorway.new({ transport = function(_, done) done(200) end })
        for i = 1, 4000 do tracker:track_structured("shop", "buy", "boots", "red", i, { true_ms = i }) end
    """)
    run(["luajit", f"-jv={tmp_path / 'traces'}", str(program), str(TRACKER)])
    assert 5 < len(re.findall(r"^\[TRACE +\d", (tmp_path / "traces").read_text(), re.MULTILINE)) < 75


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
