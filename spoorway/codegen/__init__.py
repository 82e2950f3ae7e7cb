"""A template -> source text for a device: its constants and a function that writes its frames.

The encoders are the files beside this one, the same for every template; only constants and names are made here. What they write
is, byte for byte, what protocol.compact.encode writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from importlib.resources import files
from typing import Any

from protocol.iglu import parse
from protocol.templates import Field, Template

# Of C and C++, and those that the generated function uses itself.
_C_WORDS = """auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while and asm bool catch class
delete explicit export false friend mutable namespace new not operator or private protected public template this throw true try
typeid typename using virtual wchar_t xor frame uptime before"""


def _runtime(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


def _identifier(text: str) -> str:
    found = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return f"{found}_" if found in _C_WORDS.split() else f"_{found}" if found[0].isdigit() else found


def _name(template: Template) -> str:
    return _identifier(parse(template.schema).name)


def _title(template: Template) -> str:
    about = f": {template.about}" if template.about else ""
    return f"Template {template.id}, version {template.version}{about}. {template.schema}"


def _meaning(each: Field) -> str:
    """What a caller hands over as this value, in words."""
    unit = f" {each.unit}" if each.unit else ""
    match each.type:
        case "decimal":
            return f"in {Decimal(1).scaleb(-each.scale):f}{unit}"
        case "enum":
            return "one of the constants above"
        case "boolean":
            return "0 or 1"
        case "text" | "bytes":
            return f"at most {each.most} bytes"
        case _:
            return f"in{unit}" if unit else "a whole number"


# C ------------------------------------------------------------------------------------------------------------------


def _comment(text: str) -> str:
    return f"/* {text.replace('*/', '* /')} */"


def _c(template: Template) -> str:
    name = _name(template)
    parameters = ["sp_frame *frame", "uint32_t uptime"]
    lines: list[str] = []
    notes: list[str] = []
    constants = [f"#define {name.upper()}_TEMPLATE {template.number}u /* for sp_begin */"]
    taken: set[str] = set()
    for each in template.fields:
        own = _identifier(each.name)
        while own in taken:
            own += "_"
        taken.add(own)
        notes.append(f"   {own}: {_meaning(each)}")
        if each.type in ("text", "bytes"):
            parameters += [f"const void *{own}", f"uint8_t {own}_length"]
            lines.append(f"  sp_text(frame, {own}, {own}_length);")
            continue
        parameters.append(f"int32_t {own}")
        shifted = f"{own} == SP_ABSENT ? SP_ABSENT : {own} - ({each.offset})" if each.offset else own
        lines.append(f"  sp_value(frame, {shifted});")
        if each.values:
            pairs = ", ".join(f"{name}_{own}_{_identifier(value)} = {n}".upper() for n, value in enumerate(each.values))
            constants.append(f"enum {{ {pairs} }};")
    notes = ["Adds a reading; 0 = it did not fit. SP_ABSENT, or 0 for a text, is a value that was not measured.", *notes]
    return "\n".join(
        [
            _runtime("compact.h"),
            _comment(_title(template)),
            *constants,
            "",
            _comment("\n".join(notes)),
            f"static uint8_t {name}_add({', '.join(parameters)}) {{",
            "  uint8_t before = sp_reading(frame, uptime);",
            *lines,
            "  return sp_added(frame, before);",
            "}",
            "",
        ]
    )


# The others: a table of the fields, and a function over it ----------------------------------------------------------


def _lua(template: Template) -> str:
    rows = [
        "  {" + ", ".join(f"{key} = {_lua_value(value)}" for key, value in _row(each).items()) + "},  -- " + _unit(each)
        for each in template.fields
    ]
    table = "\n".join([f"local template = {{number = {template.number}, fields = {{", *rows, "}}"])
    function = "return {template = template, encode = function(readings, frame) return encode(template, readings, frame) end}"
    return f"-- {_title(template)}\n{_runtime('compact.lua')}\n{table}\n\n{function}\n"


def _lua_value(value: str | int | list[str]) -> str:
    if isinstance(value, list):
        return "{" + ", ".join(_lua_value(each) for each in value) + "}"
    # Decimal escapes are the only ones that every Lua reads alike.
    if isinstance(value, str):
        escaped = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03d}" for b in value.encode())
        return f'"{"".join(escaped)}"'
    return str(value)


def _js(template: Template) -> str:
    rows = [f"  {json.dumps(_row(each), ensure_ascii=False)}, // {_unit(each)}" for each in template.fields]
    table = "\n".join([f"export const template = {{ number: {template.number}, fields: [", *rows, "] };"])
    function = "export function encode(readings, frame) {\n  return encodeFrame(template, readings, frame);\n}"
    return f"// {_title(template)}\n{_runtime('compact.js')}\n{table}\n\n{function}\n"


def _micropython(template: Template) -> str:
    rows = [
        f"    {(each.name, each.type, each.scale, each.offset, each.most, each.values)!r},  # {_unit(each)}"
        for each in template.fields
    ]
    table = "\n".join([f"TEMPLATE = {template.number}, (", *rows, ")"])
    function = (
        "def encode(readings, boot, sequence, mark_ms, device=None, earlier=False, seal=None):\n"
        "    return encode_frame(TEMPLATE, readings, boot, sequence, mark_ms, device, earlier, seal)\n"
    )
    return f"# {_title(template)}\n{_runtime('compact.micropython')}\n\n{table}\n\n\n{function}"


def _row(each: Field) -> dict[str, Any]:
    row: dict[str, Any] = {"name": each.name, "kind": each.type}
    if each.values:
        row["values"] = list(each.values)
    elif each.most:
        row["most"] = each.most
    else:
        row |= {"scale": each.scale, "offset": each.offset}
    return row


def _unit(each: Field) -> str:
    return each.unit or each.type


LANGUAGES: Mapping[str, Callable[[Template], str]] = {"c": _c, "lua": _lua, "micropython": _micropython, "js": _js}
