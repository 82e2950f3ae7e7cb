"""Lua scripts: what they can do, and everything they try that they must not, refused with a reason in bounded time."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.enrichments import RawEvent
from enrich.enrichments.script_lua import Config, Plugin
from protocol.seams import ConfigurationError, Decimal, Event, RawPayload, Reason
from spoorway.world import World

RAW = RawEvent(RawPayload("0" * 32, 1, "http", "/i"), 0, {"e": "pv", "aid": "shop"})
EVENT: Event = {
    "event_id": "e1",
    "app_id": "shop",
    "page_url": "http://example.com/a/b",
    "tr_total": Decimal("42.50"),
    "contexts": [{"schema": "iglu:com.acme/x/jsonschema/1-0-0", "data": {"list": [1, 2], "none": [], "object": {}, "text": "ä"}}],
}
TIMEOUT_S = 0.4  # of what does not end by itself
# The time-out, and the start of the process that takes the place of the ended one.
BOUND_S = TIMEOUT_S + 10

Run = Callable[..., Event | Reason]


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    def run(script: str, event: Event = EVENT) -> Event | Reason:
        return plugin(tmp_path, script)(event, RAW)

    return run


def plugin(tmp_path: Path, script: str, **options: Any) -> Plugin:
    file = tmp_path / "script.lua"
    file.write_text(script)
    return Plugin(Config(file=str(file), **{"timeout_s": 10.0, **options}), World())


def body(lines: str) -> str:
    return f"function enrich(event, parameters)\n{lines}\nend"


def message(answer: Event | Reason) -> str:
    assert isinstance(answer, Reason), answer
    assert answer.step == "script_lua"
    return answer.message


def test_script_adds_columns_and_entities(run: Run) -> None:
    answer = run(
        body("""
        local data = event.contexts[1].data
        return {mkt_medium = event.page_url:match("^http://([%w.]+)"), tr_total_base = event.tr_total * 2,
                br_cookies = true, mkt_source = parameters.aid,
                derived_contexts = {{schema = "iglu:com.acme/y/jsonschema/1-0-0", data = data}}}""")
    )
    assert answer == {
        "mkt_medium": "example.com",
        "tr_total_base": Decimal("85"),
        "br_cookies": True,
        "mkt_source": "shop",
        "derived_contexts": [{"schema": "iglu:com.acme/y/jsonschema/1-0-0", "data": EVENT["contexts"][0]["data"]}],
    }


@pytest.mark.parametrize("lines", ["", "return nil", "return {}", "return {mkt_medium = nil}", "return {geo_latitude = 0/0}"])
def test_script_may_have_nothing_to_add(run: Run, lines: str) -> None:
    assert run(body(lines)) == {}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('return nil, "a robot"', "a robot"),
        ('error("no", 0)', "no"),
        ("error({})", "an error that is no text"),
        ("error()", "an error that is no text"),
        ("return event.nothing.there", "script.lua:2: attempt to index a nil value (field 'nothing')"),
        ("return 7", "something that is no table of columns"),
        ("return {1, 2}", "something that is no table of columns"),
        ("return {app_id = function() end}", "the script answered with a function"),
        ("return {nonsense = 1}", "is no column"),
        ("return {event_id = 'x'}", "is not for an enrichment to change"),
        ("return {collector_tstamp = 1}", "is not for an enrichment to change"),
        ("return {geo_latitude = 'north'}", "expected a decimal number"),
        ("return {derived_contexts = 5}", "expected a list of entities"),
        ("return {derived_contexts = {{schema = 1, data = {}}}}", "expected entities with the keys schema and data"),
        ("return {app_id = string.char(255)}", "text that is not UTF-8"),
        ("local t = {} t.t = t return {derived_contexts = t}", "deeper than 40 levels"),
        ("local t = {} for i = 1, 20000 do t[i] = i end return {derived_contexts = t}", "more than 10000 values"),
        ("return {derived_contexts = {[1] = 1, [3] = 3}}", "a list that has holes"),
        ("return {derived_contexts = {[1] = 1, a = 3}}", "neither a list nor an object"),
    ],
)
def test_refusal_is_a_reason(run: Run, lines: str, expected: str) -> None:
    assert expected in message(run(body(lines)))


@pytest.mark.parametrize(
    "name",
    [
        "os",
        "io",
        "debug",
        "package",
        "require",
        "load",
        "loadstring",
        "loadfile",
        "dofile",
        "coroutine",
        "collectgarbage",
        "python",
        "lupa",
        "print",
        "_G",
        "newproxy",
        "string.dump",
        "math.random",
        "math.randomseed",
    ],
)
def test_way_out_is_not_there(run: Run, name: str) -> None:
    assert run(body(f"return {{mkt_medium = type({name})}}")) == {"mkt_medium": "nil"}


@pytest.mark.parametrize(
    "lines",
    [
        "return io.open('/etc/passwd')",
        "return os.execute('true')",
        "return os.getenv('HOME')",
        "return debug.getregistry()",
        "return require('os')",
        "return load('return 1')()",
        "return load(string.dump(function() end))",
        "return ('').dump(function() end)",
        "return getmetatable('').__index",
        "getmetatable('').__index = nil",
        "return python.eval('1')",
        "return python.builtins.open('/etc/passwd')",
        "return setmetatable({}, {__gc = function() while true do end end})",
        "return rawset(_ENV, 'x', _G.os.exit)()",
        "local e = _ENV; return e.os.exit(1)",
        "return rawget(_ENV, 'io').popen('id')",
        "return (function(...) return ... end)(debug.getupvalue(enrich, 1))",
        "array.x = 1",
        "setmetatable(array({}), {})",
        "return coroutine.wrap(function() while true do end end)()",
        "error(setmetatable({}, {__tostring = function() while true do end end}))",
        "goto nowhere",
    ],
)
def test_attempt_to_get_out_is_refused(tmp_path: Path, lines: str) -> None:
    start = time.monotonic()
    try:
        assert message(plugin(tmp_path, body(lines))(EVENT, RAW))
    except ConfigurationError:
        assert "goto" in lines
    assert time.monotonic() - start < BOUND_S


def test_bytecode_is_no_script(tmp_path: Path) -> None:
    import lupa.lua54  # pyright: ignore[reportMissingTypeStubs]

    code: Any = lupa.lua54.LuaRuntime(encoding=None).eval(b"string.dump(load('function enrich() end'))")
    (tmp_path / "script.lua").write_bytes(code)
    with pytest.raises(ConfigurationError, match=r"script\.lua"):
        Plugin(Config(file=str(tmp_path / "script.lua")), World())


ENDLESS = {
    "loop": "while true do end",
    "goto": "::again:: goto again",
    "recursion": "local function f() return f() end return f()",
    "pcall in a loop": "while true do pcall(function() while true do end end) end",
    "pcalls in pcalls": "local function f() while true do pcall(f) end end while true do pcall(f) end",
    "xpcall and handler": "local function f() while true do end end while true do xpcall(f, f) end",
    "a handler that loops": "return xpcall(error, function() while true do end end)",
    "__index": "local t = setmetatable({}, {__index = function(t, k) while true do end end}) return t.x",
    "a comparison": "table.sort({3, 2, 1, 5, 4}, function() while true do end end)",
    "gsub's function": "('a'):gsub('a', function() while true do end end)",
    "__close": "local x <close> = setmetatable({}, {__close = function() while true do end end})",
    "__tostring": "tostring(setmetatable({}, {__tostring = function() while true do end end}))",
    "__pairs": "for k in pairs(setmetatable({}, {__pairs = function() while true do end end})) do end",
    # What no hook reaches, because it is inside one call of C.
    "backtracking": "local s = ('a'):rep(40) return s:find(('a-'):rep(40) .. 'b')",
    "backtracking in pcall": "while true do pcall(string.find, ('a'):rep(40), ('a-'):rep(40) .. 'b') end",
    "gsub backtracking": "return ('a'):rep(5000):gsub(('.-'):rep(20) .. 'b', '')",
    "an empty repetition": "return (''):rep(2^62)",
    "table.move": "local t = setmetatable({}, {__index = rawlen, __newindex = rawequal}) table.move({}, 1, 2^60, 2)",
    "table.insert": "table.insert(setmetatable({}, {__len = function() return 2^60 end}), 1, 1)",
    "table.concat": "return table.concat(setmetatable({}, {__index = math.type, __len = rawlen}), '', 1, 2^60)",
}
BOMBS = {
    "rep": "return {app_id = ('x'):rep(1e9)}",
    "rep of rep": "local s = 'x' while true do s = s .. s end",
    "table": "local t = {} for i = 1, 1e9 do t[i] = {i} end",
    "rep in pcall": "local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(1e6) end) end",
    "rep again and again": "while true do pcall(string.rep, 'x', 14e6) end",
    "concat": "local t = {} for i = 1, 1e4 do t[i] = ('x'):rep(1e4) end return {app_id = table.concat(t)}",
    "format": "return {app_id = ('%99s'):rep(1e6):format()}",
    "recursion": "local function f(a) return 1 + f(a) end return f(1)",
    "arguments": "return select('#', table.unpack({}, 1, 1e8))",
    "closures": "local f = function() end for i = 1, 1e9 do local g = f f = function() return g() end end",
    "a large answer": "local t = {} for i = 1, 9e5 do t[i] = i end return {derived_contexts = t}",
}


@pytest.mark.parametrize("lines", [*ENDLESS.values(), *BOMBS.values()], ids=[*ENDLESS, *BOMBS])
def test_what_takes_all_there_is_is_ended_and_the_next_event_is_served(tmp_path: Path, lines: str) -> None:
    text = body(f"if event.app_id == 'good' then return {{mkt_medium = 'served'}} end\n{lines}")
    script = plugin(tmp_path, text, timeout_s=TIMEOUT_S)
    start = time.monotonic()
    assert message(script(EVENT, RAW))
    assert time.monotonic() - start < BOUND_S
    assert script({"app_id": "good"}, RAW) == {"mkt_medium": "served"}


def test_script_that_never_loads_is_refused_when_it_runs(tmp_path: Path) -> None:
    script = plugin(tmp_path, "while true do end")
    assert "more than 1000000 instructions" in message(script(EVENT, RAW))


@pytest.mark.parametrize(
    "script",
    [
        "count = 0 function enrich(e) count = count + 1 return {mkt_medium = tostring(count)} end",
        "local count = 0 function enrich(e) count = count + 1 return {mkt_medium = tostring(count)} end",
        body("string.n = (string.n or 0) + 1 return {mkt_medium = tostring(string.n)}"),
        body("math.n = (math.n or 0) + 1 return {mkt_medium = tostring(math.n)}"),
        body("local _ENV = _ENV; n = (n or 0) + 1 return {mkt_medium = tostring(n)}"),
        body("event.n = (event.n or 0) + 1 return {mkt_medium = tostring(event.n)}"),
    ],
)
def test_nothing_is_kept_from_one_event_to_the_next(tmp_path: Path, script: str) -> None:
    made = plugin(tmp_path, script)
    assert [made(EVENT, RAW) for _ in range(3)] == [{"mkt_medium": "1"}] * 3


def test_memory_is_given_back_after_each_event(tmp_path: Path) -> None:
    made = plugin(tmp_path, body("local s = ('x'):rep(6e6) return {mkt_medium = tostring(#s)}"))
    assert [made(EVENT, RAW) for _ in range(50)] == [{"mkt_medium": "6000000"}] * 50


def test_changed_script_is_read_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "script.lua"
    file.write_text(body("return {mkt_medium = 'old'}"))
    made = Plugin(Config(file=str(file)), World(lambda: now[0]))
    for text, expected in ((body("return {mkt_medium = 'new'}"), "new"), ("function enrich(", "new")):
        file.write_text(text)
        now[0] += 10
        assert made(EVENT, RAW) == {"mkt_medium": expected}


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (Config(), "name a script"),
        (Config(file="x", max_instructions=1), "no script runs"),
        (Config(file="/nonexistent.lua"), "No such file"),
    ],
)
def test_mistake_is_found_at_the_start(config: Config, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Plugin(config, World())


def test_script_that_is_no_lua_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"script\.lua:1: .*expected"):
        plugin(tmp_path, "function (")


def test_process_sees_no_environment_and_opens_no_file(tmp_path: Path) -> None:
    made = plugin(tmp_path, body("return {mkt_medium = 'x'}"))
    made(EVENT, RAW)
    process: Any = made._script()._process  # type: ignore[attr-defined]  # nothing of this shows from outside
    pid = process.end.peek()[2][0].pid
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max open files")).split()[3:5] == ["0", "0"]


@pytest.fixture(name="echo", scope="module")
def _echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    lines = "return {derived_contexts = {{schema = 'iglu:com.acme/x/jsonschema/1-0-0', data = event.contexts[1].data}}}"
    yield plugin(tmp_path_factory.mktemp("echo"), body(lines))


LEAVES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text())
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=TREES)
def test_any_data_comes_through_or_is_refused(echo: Plugin, data: Any) -> None:
    event: Event = {"contexts": [{"schema": "iglu:com.acme/x/jsonschema/1-0-0", "data": data}]}
    answer = echo(event, RAW)
    if isinstance(answer, Reason):
        assert "UTF-8" in answer.message
    else:
        assert orjson.loads(orjson.dumps(answer["derived_contexts"][0]["data"])) == data


def cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("lines", ["return {}", "return (''):rep(2^62)"], ids=["waiting", "in the middle of C"])
def test_process_does_not_outlive_us(tmp_path: Path, lines: str) -> None:
    (tmp_path / "script.lua").write_text(body(lines))
    program = (
        "import sys; from tests.unit.test_enrichment_script_lua import *\n"
        f"made = Plugin(Config(file={str(tmp_path / 'script.lua')!r}, timeout_s=1), World())\n"
        "print(made._script()._process.end.peek()[2][0].pid, flush=True)\n"
        "made(EVENT, RAW)\n"
        "sys.stdin.read()"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        child = os.pidfd_open(pid)
        if "rep" in lines:
            wait_until(lambda: cpu_ticks(pid) > 30)
        parent.kill()
    try:
        assert select.select([child], [], [], 10)[0]
    finally:
        os.close(child)
