"""Runs a Lua script over one event at a time, as JSON in and JSON out, in a sandbox.

Law: the script sees the event and pure functions, nothing else; nothing it makes outlives its event. Too many instructions
and too much memory are errors here. What Lua cannot interrupt (a pattern that backtracks for ever) is ended from outside:
this runs in a process of its own (World.apart).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import orjson

lua54: Any = import_module("lupa.lua54")

_MOST_VALUES = 10_000
_DEEPEST = 40
# Called with the script, its name and how many instructions an event may cost.
# coroutine is absent because a new one would not inherit the instruction hook; __gc because finalizers run without it;
# load, string.dump and debug because bytecode is not checked; random because a rebuild must give the same rows.
_PRELUDE = r"""
local source, name, instructions = ...
local sethook, setupvalue, pcall, error, type = debug.sethook, debug.setupvalue, pcall, error, type
local pairs, rawget, getmetatable, setmetatable = pairs, rawget, getmetatable, setmetatable
local limit = "more than " .. instructions .. " instructions"
local chunk, message = load(source, "=" .. name, "t", {})
if not chunk then return nil, message end

local is_array = {__metatable = "array"}
local function array(t) return setmetatable(t, is_array) end
local plain = {}
for _, f in pairs{"assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawlen", "rawset", "select",
                  "tonumber", "tostring", "type", "xpcall", "_VERSION"} do
  plain[f] = _G[f]
end
function plain.setmetatable(t, m)
  if type(m) == "table" and rawget(m, "__gc") ~= nil then error("__gc is not for scripts", 2) end
  return setmetatable(t, m)
end
function plain.getmetatable(t)
  if type(t) == "table" then return getmetatable(t) end
end
plain.array = array
local libraries = {string = {}, table = {}, math = {}, utf8 = {}}
local without = {dump = true, random = true, randomseed = true}
for library, copy in pairs(libraries) do
  for key, value in pairs(_G[library]) do
    if not without[key] then copy[key] = value end
  end
end
string.dump = nil  -- reachable through any text otherwise
getmetatable("").__metatable = false

local function environment()
  local env = {}
  for key, value in pairs(plain) do env[key] = value end
  for library, functions in pairs(libraries) do
    local copy = {}
    for key, value in pairs(functions) do copy[key] = value end
    env[library] = copy
  end
  return env
end

-- From the limit on every instruction raises, so that no pcall of the script's can go on.
local function spent()
  sethook(spent, "", 1)
  error(limit, 0)
end

local function run(event, parameters)
  local env = environment()
  setupvalue(chunk, 1, env)
  chunk()
  local enrich = rawget(env, "enrich")
  if type(enrich) ~= "function" then error("the script has no function enrich(event, parameters)", 0) end
  return enrich(event, parameters)
end

local function call(event, parameters)
  sethook(spent, "", instructions)
  local ok, answer, refusal = pcall(run, event, parameters)
  sethook()
  if not ok then
    return nil, type(answer) == "string" and answer or "an error that is no text"
  end
  if answer == nil and refusal ~= nil then
    return nil, type(refusal) == "string" and refusal or "refused"
  end
  return answer
end

local function is_array_table(t) return getmetatable(t) == "array" end
return call, array, is_array_table, sethook
"""


class Refused(ValueError):
    """Why the script's answer is none."""


class Program:
    """setup: JSON of {source, name, memory_bytes, instructions}. Raises ValueError: the script does not compile."""

    def __init__(self, setup: bytes) -> None:
        given = orjson.loads(setup)
        self._lua = lua = lua54.LuaRuntime(
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            attribute_filter=_no_attributes,
            max_memory=given["memory_bytes"],
        )
        try:
            prelude: Any = lua.compile(_PRELUDE)
            made = prelude(given["source"], given["name"], given["instructions"])
        except (lua54.LuaError, lua54.LuaMemoryError) as error:
            raise ValueError(str(error)) from None
        if made[0] is None:
            raise ValueError(made[1])
        self._call, self._array, self._is_array, self._sethook = made

    def __call__(self, message: bytes) -> bytes:
        """message: JSON of [event, parameters] -> JSON of {"added": …} or {"refused": why}."""
        event, parameters = orjson.loads(message)
        try:
            answer = self._call(self._table(event), self._table(parameters))
            if isinstance(answer, tuple):
                return orjson.dumps({"refused": answer[1][:1_000]})
            self._left = _MOST_VALUES
            added: Any = {} if answer is None else self._json(answer, 0)
            if not isinstance(added, dict):
                raise Refused("the script answered with something that is no table of columns")
            return orjson.dumps({"added": added})
        except Refused as error:
            return orjson.dumps({"refused": str(error)})
        except UnicodeDecodeError:
            return orjson.dumps({"refused": "the script answered with text that is not UTF-8"})
        except (lua54.LuaError, lua54.LuaMemoryError) as error:
            self._sethook()
            return orjson.dumps({"refused": str(error).partition("\n")[0][:1_000].encode("utf-8", "replace").decode()})

    def _table(self, value: Any) -> Any:
        """null is absent in an object and false in a list."""
        if type(value) is dict:
            members = cast(dict[str, object], value)
            return self._lua.table_from({key: self._table(each) for key, each in members.items() if each is not None})
        if type(value) is list:
            items = cast(list[object], value)
            return self._array(self._lua.table_from([False if each is None else self._table(each) for each in items]))
        return value

    def _json(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise Refused(f"the script's answer is deeper than {_DEEPEST} levels or has more than {_MOST_VALUES} values")
        if value is None or isinstance(value, str | int | float | bool):
            return value
        if lua54.lua_type(value) != "table":
            raise Refused(f"the script answered with a {lua54.lua_type(value)}")
        found: dict[Any, Any] = {}
        for key, each in value.items():
            found[key] = self._json(each, depth + 1)
        if not found:
            return [] if self._is_array(value) else {}
        if all(type(key) is int for key in found):
            if not all(number in found for number in range(1, len(found) + 1)):
                raise Refused("the script answered with a list that has holes")
            return [found[number] for number in range(1, len(found) + 1)]
        if not all(type(key) is str for key in found):
            raise Refused("the script answered with a table that is neither a list nor an object")
        return found


def _no_attributes(thing: object, name: object, setting: bool) -> Any:
    raise AttributeError("closed")
