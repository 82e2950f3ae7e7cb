"""The code that `template codegen` prints, compiled or run by the real languages: its frames are the codec's, byte for byte.

MicroPython's code runs under CPython here: it uses only what both have. Lua is real: five versions and LuaJIT, through lupa.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.compact import LARGEST_FRAME, Frame, encode, seal, split
from protocol.devices import LARGEST
from protocol.templates import Template, bundled, template
from spoorway.codegen import LANGUAGES

KEY = b"k" * 32
ENVIRONMENT = bundled()[1, 1]
ODD = template(
    {
        "id": 700,
        "version": 8,
        "schema": "iglu:com.acme/odd-names/jsonschema/1-0-0",
        "about": 'ends a comment */ and a text "',
        "fields": [
            {"name": "count", "type": "integer", "offset": -70_000, "unit": "*/"},
            {"name": "air.temperature", "type": "decimal", "scale": 3, "offset": 20.5},
            {"name": "int", "type": "boolean"},
            {"name": "door", "type": "enum", "values": ["open", "shut", "halb offen ä"]},
            {"name": "note", "type": "text", "most": 20},
            {"name": "tag", "type": "bytes", "most": 8},
        ],
    }
)
READING = {"temperature_celsius": 21.57, "humidity_percent": 45.2, "pressure_hpa": 1013.2}
COLD = {"temperature_celsius": -40.01, "humidity_percent": 0, "pressure_hpa": 953.7}
ODD_READING = {"count": -70_500, "air.temperature": -20.125, "int": True, "door": "halb offen ä", "note": "grün", "tag": "00ff7f"}
EMPTY = {"note": "", "tag": "", "int": False, "door": "open"}

# template, readings (uptime, field name -> value), frame: the calls that every language is given.
CASES: dict[str, tuple[Template, list[tuple[int, dict[str, Any]]], dict[str, Any]]] = {
    "at once": (ENVIRONMENT, [(5_000, READING)], {"boot": 300, "sequence": 20_000, "mark_ms": 5_000}),
    "waited": (ENVIRONMENT, [(5_000, READING)], {"boot": 0, "sequence": 1, "mark_ms": 4_294_967_295}),
    "largest": (ENVIRONMENT, [(LARGEST, READING)], {"boot": LARGEST, "sequence": LARGEST, "mark_ms": LARGEST}),
    "batch": (ENVIRONMENT, [(1_000, READING), (2_000, {}), (3_000, COLD)], {"boot": 1, "sequence": 9, "mark_ms": 90_000}),
    "named": (ENVIRONMENT, [(1_000, COLD)], {"boot": 1, "sequence": 9, "mark_ms": 1_000, "device": "green.house-7"}),
    "earlier": (ENVIRONMENT, [(1_000, READING)], {"boot": 1, "sequence": 9, "mark_ms": 2_000, "earlier": True}),
    "wrapped": (ENVIRONMENT, [(4_294_967_000, READING)], {"boot": 1, "sequence": 9, "mark_ms": 40}),
    "sealed": (ENVIRONMENT, [(1_000, READING)], {"boot": 1, "sequence": 9, "mark_ms": 1_000, "sealed": True}),
    "sealed batch": (ENVIRONMENT, [(1_000, READING)], {"boot": 1, "sequence": 9, "mark_ms": 1_001, "sealed": True}),
    "every type": (ODD, [(1_000, ODD_READING), (1_001, {})], {"boot": 1, "sequence": 9, "mark_ms": 2_000, "device": "a"}),
    "empty texts": (ODD, [(1_000, EMPTY)], {"boot": 1, "sequence": 9, "mark_ms": 1_000}),
}  # fmt: skip


def expected(of: Template, readings: list[tuple[int, dict[str, Any]]], frame: dict[str, Any]) -> bytes:
    rest = {key: value for key, value in frame.items() if key != "sealed"}
    return encode(
        of, [(uptime, nested(data)) for uptime, data in readings], **rest, sealed_by=("x", KEY) if "sealed" in frame else None
    )


def nested(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        *above, last = name.split(".")
        inner = found
        for level in above:
            inner = inner.setdefault(level, {})
        inner[last] = value
    return found


def flat(readings: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{**data, "uptime_ms": uptime} for uptime, data in readings]


def needs(program: str) -> pytest.MarkDecorator:
    """Skips where it is missing, unless that is to fail."""
    there = shutil.which(program) is not None or os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1"
    return pytest.mark.skipif(not there, reason=f"{program} is missing")


# C ------------------------------------------------------------------------------------------------------------------


def c_program(of: Template, readings: list[tuple[int, dict[str, Any]]], frame: dict[str, Any]) -> str:
    """Writes the frame to standard output; a seal is left away."""
    flags = [("device", "SP_NAMED"), ("sealed", "SP_SEALED"), ("earlier", "SP_EARLIER")]
    words = [word for key, word in flags if frame.get(key)]
    if len(readings) > 1 or readings[0][0] != frame["mark_ms"]:
        words.append("SP_BATCH")
    name = of.schema.split("/")[1].replace("-", "_")
    calls = [
        f"  if (!{name}_add(&frame, {', '.join([f'{uptime}u', *c_values(of, data)])})) return 1;" for uptime, data in readings
    ]
    return f"""
#include <stdio.h>
#include "template.h"
int main(void) {{
  uint8_t bytes[255];
  sp_frame frame = {{bytes, sizeof bytes, 0, 0, 0}};
  sp_begin(&frame, {" | ".join(words) or "0"}, {json.dumps(frame.get("device", ""))}, {name.upper()}_TEMPLATE, {frame["boot"]}u,
           {frame["sequence"]}u, {frame["mark_ms"]}u);
{chr(10).join(calls)}
  fwrite(bytes, 1, sp_end(&frame), stdout);
  return 0;
}}
"""


def c_values(of: Template, data: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for field in of.fields:
        value = data.get(field.name)
        if field.type in ("text", "bytes"):
            raw = b"" if value is None else bytes.fromhex(value) if field.type == "bytes" else value.encode()
            text = '"' + "".join(f"\\x{byte:02x}" for byte in raw) + '"'
            found += ["(const void *)0" if value is None else text, str(len(raw))]
        elif value is None:
            found.append("SP_ABSENT")
        elif field.values:
            found.append(str(field.values.index(value)))
        else:
            found.append(str(int(value) if field.type == "boolean" else round(value * 10**field.scale)))
    return found


def compiled(folder: Path, of: Template, source: str, *command: str) -> Path:
    (folder / "template.h").write_text(LANGUAGES["c"](of), "utf-8")
    (folder / "program.c").write_text(source, "utf-8")
    subprocess.run([*command, "-Wall", "-Wextra", "-Werror", "-o", "program", "program.c"], cwd=folder, check=True)
    return folder / "program"


@needs("gcc")
@needs("g++")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "command", [("gcc", "-std=c99", "-fsanitize=undefined", "-fno-sanitize-recover"), ("g++", "-x", "c++")], ids=["c", "c++"]
)
def test_c_writes_the_codecs_frames(name: str, command: tuple[str, ...], tmp_path: Path) -> None:
    of, readings, frame = CASES[name]
    program = compiled(tmp_path, of, c_program(of, readings, frame), *command)
    written = subprocess.run([program], check=True, capture_output=True).stdout
    assert (written + seal(KEY, "x", written) if "sealed" in frame else written) == expected(of, readings, frame)


@needs("gcc")
def test_c_leaves_out_the_reading_that_does_not_fit_and_nothing_overflows(tmp_path: Path) -> None:
    source = """
#include <stdio.h>
#include "template.h"
int main(void) {
  uint8_t bytes[64];
  sp_frame frame = {bytes, 60, 0, 0, 0};
  uint32_t n = 0;
  for (int i = 60; i < 64; i++) bytes[i] = 0xEE;
  sp_begin(&frame, SP_BATCH, 0, ENVIRONMENT_READING_TEMPLATE, 1, 1, 100);
  while (environment_reading_add(&frame, n, 2157, 452, 10132)) n++;
  fwrite(bytes, 1, sp_end(&frame), stdout);
  for (int i = 60; i < 64; i++) if (bytes[i] != 0xEE) return 1;
  return 0;
}
"""
    program = compiled(tmp_path, ENVIRONMENT, source, "gcc", "-std=c99", "-fsanitize=address,undefined")
    written = subprocess.run([program], check=True, capture_output=True).stdout
    (frame,) = split(written)
    assert isinstance(frame, Frame)
    assert written == encode(ENVIRONMENT, [(n, READING) for n in range(frame.readings)], 1, 1, 100)
    assert frame.readings == 6


# Lua, JavaScript, MicroPython ---------------------------------------------------------------------------------------

LUAS = ["lua51", "lua52", "lua53", "lua54", "lua55", "luajit21"]


@pytest.mark.parametrize("version", LUAS)
def test_lua_writes_the_codecs_frames(version: str) -> None:
    lua = importlib.import_module(f"lupa.{version}").LuaRuntime(encoding=None)
    before = set(lua.globals())
    modules = {of.id: lua.execute(LANGUAGES["lua"](of).encode()) for of in (ENVIRONMENT, ODD)}
    for name, (of, readings, frame) in CASES.items():
        told: dict[bytes, Any] = {key.encode(): in_lua(value) for key, value in frame.items() if key != "sealed"}
        if "sealed" in frame:
            told[b"seal"] = lambda covered: seal(KEY, "x", covered)
        rows = lua.table_from([lua.table_from({k.encode(): in_lua(v) for k, v in row.items()}) for row in flat(readings)])
        assert modules[of.id][b"encode"](rows, lua.table_from(told)) == expected(of, readings, frame), name
    too_much = lua.table_from([lua.table_from({b"uptime_ms": n}) for n in range(200)])
    answer = modules[1][b"encode"](too_much, lua.table_from({b"boot": 1, b"sequence": 1, b"mark_ms": 1}))
    assert answer == (None, b"large")
    wrong = lua.table_from([lua.table_from({b"uptime_ms": 1, b"door": b"gone"})])
    assert modules[700][b"encode"](wrong, lua.table_from({b"boot": 1, b"sequence": 1, b"mark_ms": 1})) == (None, b"door")
    assert set(lua.globals()) == before


def in_lua(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@needs("node")
def test_javascript_writes_the_codecs_frames(tmp_path: Path) -> None:
    for of in (ENVIRONMENT, ODD):
        (tmp_path / f"t{of.id}.mjs").write_text(LANGUAGES["js"](of), "utf-8")
    (tmp_path / "run.mjs").write_text(
        """
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
const modules = { 1: await import("./t1.mjs"), 700: await import("./t700.mjs") };
for (const { of, readings, frame } of JSON.parse(readFileSync(0, "utf8"))) {
  if (frame.sealed) {
    const key = Buffer.alloc(32, "k");
    frame.seal = (covered) => createHmac("sha256", key).update("x\\n").update(covered).digest().subarray(0, 4);
  }
  const found = modules[of].encode(readings, frame);
  console.log(found === null ? "null" : Buffer.from(found).toString("hex"));
}
""",
        "utf-8",
    )
    calls = [{"of": of.id, "readings": flat(readings), "frame": frame} for of, readings, frame in CASES.values()]
    plain = {"boot": 1, "sequence": 1, "mark_ms": 1}
    calls.append({"of": 1, "readings": [{"uptime_ms": n} for n in range(200)], "frame": plain})
    calls.append({"of": 700, "readings": [{"uptime_ms": 1, "door": "gone"}], "frame": plain})
    command = ["node", str(tmp_path / "run.mjs")]
    written = subprocess.run(command, input=json.dumps(calls), text=True, check=True, capture_output=True).stdout.split()
    assert written == [*(expected(*case).hex() for case in CASES.values()), "null", "null"]


def test_micropython_writes_the_codecs_frames() -> None:
    for name, (of, readings, frame) in CASES.items():
        write = python_encoder(of)
        told = {key: value for key, value in frame.items() if key != "sealed"}
        if "sealed" in frame:
            told["seal"] = lambda covered: seal(KEY, "x", covered)
        assert write(flat(readings), **told) == expected(of, readings, frame), name
    assert python_encoder(ENVIRONMENT)([{"uptime_ms": n} for n in range(200)], 1, 1, 1) is None
    assert python_encoder(ODD)([{"uptime_ms": 1, "door": "gone"}], 1, 1, 1) is None


def python_encoder(of: Template) -> Callable[..., bytes | None]:
    names: dict[str, Any] = {}
    source = LANGUAGES["micropython"](of)
    assert "import" not in re.sub(r'"""(?s:.*?)"""', "", source), "a board may have nothing to import"
    exec(compile(source, "template.py", "exec"), names)
    encoder: Callable[..., bytes | None] = names["encode"]
    return encoder


@pytest.mark.parametrize("of", bundled().values(), ids=lambda of: of.key)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_bundled_template_has_code(of: Template, language: str) -> None:
    assert str(of.number) in LANGUAGES[language](of)
    assert LARGEST_FRAME == 257
