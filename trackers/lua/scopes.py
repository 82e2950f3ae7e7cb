"""Lua source -> its tokens, and which local each name means.

Reads Lua 5.1 without `goto`, long strings and semicolons, as these trackers are written; anything else is an error. Changes
nothing but what may go without a second thought: comments, spaces, the brackets around a lone string or table, and a table's
last comma.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"(?P<comment>--\[\[.*?\]\]|--[^\n]*)|(?P<space>\s+)|(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    r"|(?P<number>0x[0-9a-fA-F]+|\d*\.?\d+(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\.\.\.|\.\.|==|~=|<=|>=|.)",
    re.DOTALL,
)
WORDS = frozenset(
    re.findall(
        r"\w+", "and break do else elseif end false for function goto if in local nil not or repeat return then true until while"
    )
)
_UNARY = frozenset(("not", "-", "#"))
_BINARY = frozenset(["+", "-", "*", "/", "^", "%", "..", "<", "<=", ">", ">=", "==", "~=", "and", "or"])
_ENDS = ("end", "else", "elseif", "until", "")


@dataclass(eq=False)
class Function:
    """close: the token behind its parameters. varargs: it takes more than it names; so does a whole program, without brackets."""

    close: int
    varargs: bool
    parameters: list[Local] = field(default_factory=lambda: list[Local]())
    statements: list[Statement] = field(default_factory=lambda: list[Statement]())


@dataclass(eq=False)
class Local:
    """uses: tokens that name it, its declaration first. captured: a function within its own names it.

    near: locals that one of its uses sees above it, or that see it above them. taken: globals that are named where it is seen.
    """

    function: Function
    uses: list[int]
    captured: bool = False
    near: set[Local] = field(default_factory=lambda: set[Local]())
    taken: set[str] = field(default_factory=lambda: set[str]())


@dataclass(eq=False)
class Statement:
    """A `local` statement: tokens [start, end); first: with it its function begins; looped: it is within a loop."""

    start: int
    end: int
    names: list[Local]
    valued: bool
    first: bool
    looped: bool


class Program:
    """Walks the tokens once.

    kinds, texts: of each token, the text empty where it may go. loops: tokens [start, end) that are done more than once.
    globals: uses by name. fields: tokens behind a dot or a colon, and keys in a table.
    """

    def __init__(self, source: str) -> None:
        found = ((match.lastgroup or "", match.group()) for match in _TOKEN.finditer(source))
        tokens = [one for one in found if one[0] not in ("comment", "space")] + [("end", "")]
        self.kinds = [kind for kind, _ in tokens]
        self.texts = [text for _, text in tokens]
        self.locals: list[Local] = []
        self.functions = [Function(-1, True)]
        self.loops: list[tuple[int, int]] = []
        self.globals: dict[str, list[int]] = {}
        self.fields: list[int] = []
        self._at = 0
        self._seen: list[tuple[str, Local]] = []
        self._within = self.functions[:]
        self._looping = [0]
        self._block(first=True)
        self._take("")

    @property
    def _text(self) -> str:
        return self.texts[self._at]

    def _take(self, *wanted: str) -> str:
        text = self._text
        if wanted and text not in wanted:
            behind = " ".join(self.texts[max(0, self._at - 9) : self._at])
            raise ValueError(f"{' or '.join(wanted)} expected, not {text!r} behind {behind}")
        self._at += 1
        return text

    def _taken(self, text: str) -> bool:
        if self._text != text:
            return False
        self._at += 1
        return True

    def _name(self) -> int:
        if self.kinds[self._at] != "name" or self._text in WORDS:
            self._take("a name")
        self._at += 1
        return self._at - 1

    def _names(self) -> list[int]:
        names = [self._name()]
        while self._taken(","):
            names.append(self._name())
        return names

    def _field(self) -> None:
        self.fields.append(self._name())

    def _declare(self, at: int) -> Local:
        new = Local(self._within[-1], [at])
        self.locals.append(new)
        self._seen.append((self.texts[at], new))
        return new

    def _use(self, at: int) -> None:
        for place in range(len(self._seen) - 1, -1, -1):
            name, one = self._seen[place]
            if name == self.texts[at]:
                one.uses.append(at)
                one.captured |= one.function is not self._within[-1]
                for _, inner in self._seen[place + 1 :]:
                    one.near.add(inner)
                    inner.near.add(one)
                return
        self.globals.setdefault(self.texts[at], []).append(at)
        for _, one in self._seen:
            one.taken.add(self.texts[at])

    def _scope(self, *parts: Callable[[], object]) -> None:
        before = len(self._seen)
        for part in parts:
            part()
        del self._seen[before:]

    def _loop(self, *parts: Callable[[], object]) -> None:
        start = self._at
        self._looping[-1] += 1
        self._scope(*parts)
        self._looping[-1] -= 1
        self.loops.append((start, self._at))

    def _block(self, first: bool = False) -> None:
        while self._text not in _ENDS:
            self._statement(first)
            first = False

    def _statement(self, first: bool) -> None:
        if self._taken("local"):
            self._local(first)
        elif self._taken("if"):
            self._expression()
            self._take("then")
            self._scope(self._block)
            while self._taken("elseif"):
                self._expression()
                self._take("then")
                self._scope(self._block)
            if self._taken("else"):
                self._scope(self._block)
            self._take("end")
        elif self._taken("while"):
            self._loop(self._expression, lambda: self._take("do"), self._block)
            self._take("end")
        elif self._taken("do"):
            self._scope(self._block)
            self._take("end")
        elif self._taken("for"):
            names = self._names()
            self._take("=", "in")
            self._expressions()
            self._take("do")
            self._loop(lambda: [self._declare(name) for name in names], self._block)
            self._take("end")
        elif self._taken("repeat"):
            self._loop(self._block, lambda: self._take("until"), self._expression)
        elif self._taken("function"):
            self._use(self._name())
            while self._taken("."):
                self._field()
            if self._text == ":":
                raise ValueError("a method is written function object.name(self)")
            self._function()
        elif self._taken("return"):
            if self._text not in _ENDS:
                self._expressions()
        elif not self._taken("break"):
            self._suffixed()
            while self._taken(","):
                self._suffixed()
            if self._taken("="):
                self._expressions()

    def _local(self, first: bool) -> None:
        start = self._at - 1
        valued = True
        if self._taken("function"):
            new = [self._declare(self._name())]
            end = self._at
            self._function()
        else:
            names = self._names()
            valued = self._taken("=")
            if valued:
                self._expressions()
            end = self._at
            new = [self._declare(name) for name in names]
        self._within[-1].statements.append(Statement(start, end, new, valued, first, self._looping[-1] > 0))

    def _expressions(self) -> None:
        self._expression()
        while self._taken(","):
            self._expression()

    def _expression(self) -> None:
        while self._text in _UNARY:
            self._take()
        if self._taken("function"):
            self._function()
        elif self._text == "{":
            self._table()
        elif self.kinds[self._at] in ("string", "number") or self._text in ("nil", "true", "false", "..."):
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
                self._field()
            elif self._taken("["):
                self._expression()
                self._take("]")
            elif self._taken(":"):
                self._field()
            elif self._text == "{":
                self._table()
            elif self.kinds[self._at] == "string":
                self._take()
            elif self._text == "(":
                self._arguments()
            else:
                return

    def _arguments(self) -> None:
        opened = lone = self._at
        self._take("(")
        if self._text == "{" or self.kinds[self._at] == "string":
            depth, lone = 0, opened + 1
            while depth or lone == opened + 1:
                depth += {"{": 1, "}": -1}.get(self.texts[lone], 0)
                lone += 1
        if self._text != ")":
            self._expressions()
        if lone == self._at:
            self.texts[opened] = self.texts[lone] = ""
            self._at += 1
        else:
            self._take(")")

    def _table(self) -> None:
        self._take("{")
        while not self._taken("}"):
            if self._taken("["):
                self._expression()
                self._take("]")
                self._take("=")
            elif self.kinds[self._at] == "name" and self.texts[self._at + 1] == "=":
                self._field()
                self._take("=")
            self._expression()
            if self._text == "," and self.texts[self._at + 1] == "}":
                self.texts[self._at] = ""
                self._at += 1
            elif self._text != "}":
                self._take(",")

    def _function(self) -> None:
        new = Function(0, False)
        self.functions.append(new)
        self._within.append(new)
        self._looping.append(0)

        def parameters() -> None:
            self._take("(")
            while self._text != ")":
                if self._taken("..."):
                    new.varargs = True
                else:
                    new.parameters.append(self._declare(self._name()))
                if self._text != ")":
                    self._take(",")
            new.close = self._at
            self._take(")")

        self._scope(parameters, lambda: self._block(first=True))
        self._within.pop()
        self._looping.pop()
        self._take("end")
