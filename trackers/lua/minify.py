"""Lua source -> the same program in fewer bytes.

Lets a function's locals share a few variables, which are parameters that nobody gives; gives each the shortest name that no other
name in its sight has, and so to private fields; keeps a global that is named often in a local. Public fields, globals and the
order of what is done stay. An argument too many does no harm: its variable is written before it is read.
"""

from __future__ import annotations

import itertools
import math
import string
from collections import Counter
from collections.abc import Collection, Iterator

from scopes import WORDS, Local, Program

_LATE = frozenset(("io", "love", "os", "require"))  # a host may lack them, or look for their names in the text


def minified(source: str, private: Collection[str] = (), keep_globals: bool = True) -> str:
    """private: fields that only this program names. keep_globals: in locals, 200 bytes less of text but 1 KB more of memory.

    Raises ValueError where the source uses more of Lua than scopes.py reads.
    """
    names = ",".join(_often(Program(source))) if keep_globals else ""
    kept = f"local {names} = {names} " if names else ""
    return _short(_shared(kept + source), private)


def _often(program: Program) -> list[str]:
    """Globals for which one look-up costs fewer bytes than all; 8: of a declaration, with a name of two letters."""
    return [name for name, uses in program.globals.items() if name not in _LATE and (len(uses) - 1) * (len(name) - 1) > 8]


def _shared(source: str) -> str:
    """`local` becomes an assignment where a parameter more, or a variable that nobody needs any more, can be written instead.

    Not where a function keeps a variable of each turn of a loop for itself, and not where a local begins without a value.
    """
    program = Program(source)
    names = {one: f"L{number}" for number, one in enumerate(program.locals)}
    more: dict[int, list[str]] = {}  # written before a token
    for function in program.functions:
        statements, owners, place = list(function.statements), list(function.parameters), function.close
        if function.varargs and statements and statements[0].first:  # its first statement takes them instead
            owners += statements[0].names
            place = statements.pop(0).names[-1].uses[0] + 1
        elif function.varargs:
            place = -1
        needed = {names[one]: _last_need(program, one) for one in owners}
        for statement in statements:
            if not statement.valued or (statement.looped and any(one.captured for one in statement.names)):
                continue
            free = [name for name, last in needed.items() if last < statement.end]
            lack = len(statement.names) - len(free)
            if lack > 0 and (place < 0 or len(",x") * lack > len("local ")):
                continue
            program.texts[statement.start] = ""
            for one in statement.names:
                if free:
                    names[one] = free.pop()
                else:
                    more.setdefault(place, [""] if owners else []).append(names[one])
                needed[names[one]] = _last_need(program, one)
    for one, name in names.items():
        for use in one.uses:
            program.texts[use] = name
    return " ".join(",".join(more.get(at, ())) + " " + text for at, text in enumerate(program.texts))


def _last_need(program: Program, one: Local) -> float:
    """The token behind which its value is not read any more; the end of a loop that it was declared before and is read in."""
    if one.captured:
        return math.inf
    born, last = one.uses[0], max(one.uses)
    return max([last, *(end for start, end in program.loops if born < start <= last < end)])


def _short(source: str, private: Collection[str]) -> str:
    program = Program(source)
    for one in sorted(program.locals, key=lambda one: -len(one.uses)):
        taken = one.taken | {program.texts[other.uses[0]] for other in one.near} | WORDS
        name = next(word for word in _names() if word not in taken)
        for use in one.uses:
            program.texts[use] = name
    fields = Counter(program.texts[at] for at in program.fields)
    free = (word for word in _names() if word not in fields and word not in WORDS)
    shorter = {field: next(free) for field, _ in fields.most_common() if field in private}
    for at in program.fields:
        program.texts[at] = shorter.get(program.texts[at], program.texts[at])
    return _written(program)


def _names() -> Iterator[str]:
    letters = string.ascii_letters + "_"
    return ("".join(word) for n in (1, 2) for word in itertools.product(letters, repeat=n))


def _written(program: Program) -> str:
    """Its tokens with as few spaces as they bear, in lines that an editor bears."""
    out, line = "", 0
    for kind, text in zip(program.kinds, program.texts, strict=True):
        if not text:
            continue
        if kind == "number" and text.startswith("0."):
            text = text[1:]
        if kind == "string":  # a line's end in a text
            text = text.replace("\\\n", "\\n")
        wordy = out[-1:].isalnum() or out[-1:] == "_"
        if (
            (wordy and (text[0].isalnum() or text[0] == "_"))
            or (out[-1:].isdigit() and text[0] == ".")
            or (out[-1:] == "-" and text[0] == "-")
        ):
            out += " " if len(out) - line < 500 else "\n"
            line = len(out) if out[-1] == "\n" else line
        out += text
    return out + "\n"
