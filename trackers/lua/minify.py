"""Lua source -> the same program in fewer bytes.

Takes away comments and spaces, gives each local the shortest name that no other name in its sight has, joins neighbouring locals,
and leaves out the brackets around a lone string or table. Fields, globals and the order of what is done stay. Reads Lua 5.1
without `goto`, long strings and semicolons, as these trackers are written; anything else is an error.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"(?P<comment>--\[\[.*?\]\]|--[^\n]*)|(?P<space>\s+)|(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    r"|(?P<number>0x[0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\.\.\.|\.\.|==|~=|<=|>=|.)",
    re.DOTALL,
)
_WORDS = frozenset(
    re.findall(
        r"\w+", "and break do else elseif end false for function goto if in local nil not or repeat return then true until while"
    )
)
_UNARY = frozenset(("not", "-", "#"))
_BINARY = frozenset(["+", "-", "*", "/", "^", "%", "..", "<", "<=", ">", ">=", "==", "~=", "and", "or"])


@dataclass(eq=False)
class _Local:
    """uses: tokens that name it. near: locals that one of its uses sees above it, or that see it above them."""

    uses: list[int]
    near: set[_Local] = field(default_factory=lambda: set[_Local]())
    taken: set[str] = field(default_factory=lambda: set[str]())  # globals that are named where it is seen
    name: str = ""


class _Program:
    """Walks the tokens once and finds which local each name means, and which tokens may go."""

    def __init__(self, source: str) -> None:
        found = ((match.lastgroup or "", match.group()) for match in _TOKEN.finditer(source))
        self.kinds, self.texts = (
            list(each) for each in zip(*(one for one in found if one[0] not in ("comment", "space")), strict=True)
        )
        self.kinds.append("end")
        self.texts.append("")
        self.at = 0
        self.by_name: list[tuple[str, _Local]] = []
        self.locals: list[_Local] = []
        self._block()
        self._take("")

    @property
    def _text(self) -> str:
        return self.texts[self.at]

    def _take(self, *wanted: str) -> str:
        text = self._text
        if wanted and text not in wanted:
            raise ValueError(
                f"{' or '.join(wanted)} expected, not {text!r} behind {' '.join(self.texts[max(0, self.at - 9) : self.at])}"
            )
        self.at += 1
        return text

    def _taken(self, text: str) -> bool:
        if self._text != text:
            return False
        self.at += 1
        return True

    def _name(self) -> int:
        if self.kinds[self.at] != "name" or self._text in _WORDS:
            self._take("a name")
        self.at += 1
        return self.at - 1

    def _declare(self, at: int) -> _Local:
        new = _Local([at])
        self.locals.append(new)
        self.by_name.append((self.texts[at], new))
        return new

    def _use(self, at: int) -> None:
        for place in range(len(self.by_name) - 1, -1, -1):
            name, one = self.by_name[place]
            if name == self.texts[at]:
                one.uses.append(at)
                for _, inner in self.by_name[place + 1 :]:
                    one.near.add(inner)
                    inner.near.add(one)
                return
        for _, one in self.by_name:
            one.taken.add(self.texts[at])

    def _scope(self, *parts: Callable[[], object]) -> None:
        before = len(self.by_name)
        for part in parts:
            part()
        del self.by_name[before:]

    def _block(self) -> None:
        last: tuple[int, int, list[_Local]] | None = None
        while self._text not in ("end", "else", "elseif", "until", ""):
            last = self._statement(last)

    def _statement(self, before: tuple[int, int, list[_Local]] | None) -> tuple[int, int, list[_Local]] | None:
        """before: if the statement before was a local one that may be joined, its sign =, its end, and its locals."""
        word = self._text
        if word == "local" and self.texts[self.at + 1] != "function":
            return self._local(before)
        if word in ("if", "while"):
            self._take()
            self._expression()
            self._take("then", "do")
            self._scope(self._block)
            while self._taken("elseif"):
                self._expression()
                self._take("then")
                self._scope(self._block)
            if self._taken("else"):
                self._scope(self._block)
            self._take("end")
        elif self._taken("do"):
            self._scope(self._block)
            self._take("end")
        elif self._taken("for"):
            names = [self._name()]
            while self._taken(","):
                names.append(self._name())
            self._take("=", "in")
            self._expressions()
            self._take("do")
            self._scope(lambda: [self._declare(name) for name in names], self._block)
            self._take("end")
        elif self._taken("repeat"):
            self._scope(self._block, lambda: self._take("until"), self._expression)
        elif self._taken("function"):
            self._use(self._name())
            while self._taken("."):
                self._name()
            if self._text == ":":
                raise ValueError("a method is written function object.name(self)")
            self._function()
        elif self._taken("local"):
            self._take("function")
            self._declare(self._name())
            self._function()
        elif self._taken("return"):
            if self._text not in ("end", "else", "elseif", "until", ""):
                self._expressions()
        elif not self._taken("break"):
            self._suffixed()
            while self._taken(","):
                self._suffixed()
            if self._taken("="):
                self._expressions()
        return None

    def _local(self, before: tuple[int, int, list[_Local]] | None) -> tuple[int, int, list[_Local]] | None:
        start = self.at
        self._take()
        names = [self._name()]
        while self._taken(","):
            names.append(self._name())
        equals = self.at
        uses = {one: len(one.uses) for one in before[2]} if before else {}
        values = self._expressions() if self._taken("=") else 0
        end = self.at
        new = [self._declare(name) for name in names]
        if values != len(names):
            return None
        if before and all(len(one.uses) == count for one, count in uses.items()):  # local a = 1 local b = 2 -> local a, b = 1, 2
            self._move(before[0], before[1], start, equals, end)
            return before[0] + equals - start, end, before[2] + new
        return equals, end, new

    def _move(self, first_equals: int, first_end: int, start: int, equals: int, end: int) -> None:
        """Tokens [names = values] local [more = values] -> [names, more = values, values], where they stand."""
        order = [
            *range(first_equals),
            -1,
            *range(start + 1, equals),
            *range(first_equals, first_end),
            -1,
            *range(equals + 1, end),
            *range(end, len(self.texts)),
        ]
        place = {old: new for new, old in enumerate(order) if old >= 0}
        self.kinds = ["sign" if old < 0 else self.kinds[old] for old in order]
        self.texts = ["," if old < 0 else self.texts[old] for old in order]
        for one in self.locals:
            one.uses = [place[use] for use in one.uses]
        self.at = place[end]

    def _expressions(self) -> int:
        self._expression()
        count = 1
        while self._taken(","):
            self._expression()
            count += 1
        return count

    def _expression(self) -> None:
        while self._text in _UNARY:
            self._take()
        if self._taken("function"):
            self._function()
        elif self._text == "{":
            self._table()
        elif self.kinds[self.at] in ("string", "number") or self._text in ("nil", "true", "false", "..."):
            self._take()
        else:
            self._suffixed()
        if self._text in _BINARY:
            self._take()
            self._expression()

    def _suffixed(self) -> None:
        if self._taken("("):
            self._expression()
            self._take(")")
        else:
            self._use(self._name())
        while True:
            if self._taken("."):
                self._name()
            elif self._taken("["):
                self._expression()
                self._take("]")
            elif self._text == ":":
                self._take()
                self._name()
            elif self._text == "{":
                self._table()
            elif self.kinds[self.at] == "string":
                self._take()
            elif self._text == "(":
                self._arguments()
            else:
                return

    def _arguments(self) -> None:
        opened = closed = self.at
        self._take()
        if self.kinds[self.at] == "string":
            closed = self.at + 1
        elif self._text == "{":
            depth, closed = 1, self.at
            while depth:
                closed += 1
                depth += {"{": 1, "}": -1}.get(self.texts[closed], 0)
            closed += 1
        if self._text != ")":
            self._expressions()
        if closed == self.at:
            self.texts[opened] = self.texts[closed] = " "
            self.at += 1
        else:
            self._take(")")

    def _table(self) -> None:
        self._take("{")
        while not self._taken("}"):
            if self._taken("["):
                self._expression()
                self._take("]")
                self._take("=")
            elif self.kinds[self.at] == "name" and self.texts[self.at + 1] == "=":
                self.at += 2
            self._expression()
            if self._text != "}":
                self._take(",")

    def _function(self) -> None:
        def parameters() -> None:
            self._take("(")
            while not self._taken(")"):
                if not self._taken("..."):
                    self._declare(self._name())
                if self._text != ")":
                    self._take(",")

        self._scope(parameters, self._block)
        self._take("end")


def minified(source: str) -> str:
    """The same program in fewer bytes. Raises ValueError where the source uses more of Lua than these trackers do."""
    program = _Program(source)
    letters = string.ascii_letters + "_"
    short = ["".join(word) for n in (1, 2) for word in itertools.product(letters, repeat=n)]
    for one in sorted(program.locals, key=lambda one: -len(one.uses)):
        taken = one.taken | {other.name for other in one.near} | _WORDS
        one.name = next(word for word in short if word not in taken)
        for use in one.uses:
            program.texts[use] = one.name
    out, line = "", 0
    for kind, text in zip(program.kinds, program.texts, strict=True):
        if text == " " or not text:
            continue
        if kind == "number" and text.startswith("0."):
            text = text[1:]
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
