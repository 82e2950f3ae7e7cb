"""The SQL pack: one question per file, file name = its name, written once and rendered for the dialect of a store.

A file opens with what it answers, in a sentence that stands alone, then what one should know, then lines of `key: value`:

    group:      where it belongs; GROUPS says which there are
    parameter:  name kind default  what it does; kind is time, text, integer or number
    column:     name  what it holds
    chart:      kind x=column y=column [color=column]; kind is line, bar or heat
    reads:      a table besides atomic.events; not every store has it
    events:     event_name, :parameter, …  nothing but these is asked about, so where events lie by name others are not opened

Below it stands one SELECT that means the same everywhere, but for macros (`@day(e.derived_tstamp)`, see dialects) and `:name`
of parameters. Every question has the parameters `since`, `until` and `app`. Pure: no store is asked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, cast, get_args

from storage.sql.dialect import Asked, Dialect
from storage.sql.dialects import FUNCTIONS

Kind = Literal["time", "text", "integer", "number"]
ChartKind = Literal["line", "bar", "heat"]

GROUPS: dict[str, str] = {
    "web": "Website",
    "acquisition": "Where visitors come from",
    "shop": "Shop",
    "email": "Emails",
    "game": "Game",
    "devices": "Devices and sensors",
    "pipeline": "The pipeline itself",
}


# Those that one asks first, before the others of their group.
_FIRST = (
    "sessions",
    "pages",
    "sources",
    "orders",
    "funnel",
    "email_campaigns",
    "levels",
    "sensor_series",
    "device_health",
    "volume",
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """default: as a person would type it; a time is a moment in UTC, "now", or how long ago: 30m, 24h, 7d, 4w."""

    name: str
    kind: Kind
    default: str
    about: str


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Chart:
    """x, y, color: names of columns; color = "" without one."""

    kind: ChartKind
    x: str
    y: str
    color: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """notes: what one should know before believing the answer. reads: tables besides events. sql: with macros, see `render`.

    events: names of the events it can be about, or :parameter; all of them where there is none.
    """

    name: str
    about: str
    notes: str
    group: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    chart: Chart | None
    reads: tuple[str, ...]
    events: tuple[str, ...]
    sql: str

    def parameter(self, name: str) -> Parameter:
        """Raises KeyError."""
        return {parameter.name: parameter for parameter in self.parameters}[name]

    def about_events(self, values: Mapping[str, str | int | float]) -> frozenset[str]:
        """The names in `events`, with what is asked for; empty = it may be about any."""
        return frozenset(str(values[name[1:]]) if name.startswith(":") else name for name in self.events)


_EVERYWHERE = (
    Parameter("since", "time", "7d", "received then or later"),
    Parameter("until", "time", "now", "received earlier than that"),
    Parameter("app", "text", "", "app_id; empty for every application"),
)
_KEY = re.compile(r"(group|parameter|column|chart|reads|events):\s+(.*)")
_TOKEN = re.compile(
    r"'(?:[^']|'')*'|--[^\n]*|@(?P<macro>\w+)\(|(?<![:\w]):(?P<parameter>[a-z]\w*)|\b(?:(?P<room>atomic\.)|(?P<fence>MATERIALIZED)\b)"
)


@cache
def questions() -> dict[str, Question]:
    """All of them by name, in the order of the groups. Raises ValueError for a file that breaks the form."""
    found = [
        parse(file.name.removesuffix(".sql"), file.read_text("utf-8"))
        for file in files(__name__).iterdir()
        if file.name.endswith(".sql")
    ]
    order = list(GROUPS)
    return {one.name: one for one in sorted(found, key=lambda one: (order.index(one.group), one.name not in _FIRST, one.name))}


def parse(name: str, text: str) -> Question:
    """One file. Raises ValueError with the line that breaks the form."""
    head: list[str] = []
    lines = text.splitlines()
    while lines and lines[0].startswith("--"):
        head.append(lines.pop(0)[2:].strip())
    prose: list[str] = []
    said: dict[str, list[str]] = {key: [] for key in ("group", "parameter", "column", "chart", "reads", "events")}
    for line in head:
        if match := _KEY.fullmatch(line):
            said[match[1]].append(match[2].strip())
        elif any(said.values()) and line:
            raise ValueError(f"{name}.sql: {line!r} is no `key: value`")
        else:
            prose.append(line)
    about, _, notes = "\n".join(prose).strip().partition("\n\n")
    if not about or len(said["group"]) != 1 or said["group"][0] not in GROUPS or not said["column"]:
        raise ValueError(f"{name}.sql: needs what it answers, one group of {', '.join(GROUPS)}, and its columns")
    own = [_parameter(name, line) for line in said["parameter"]]
    common = [one for one in _EVERYWHERE if one.name not in {parameter.name for parameter in own}]
    columns = tuple(Column(*_two(name, line)) for line in said["column"])
    return Question(
        name,
        " ".join(about.split()),
        " ".join(notes.split()),
        said["group"][0],
        (*sorted([*common, *[p for p in own if p.name in ("since", "until", "app")]], key=_place), *_others(own)),
        columns,
        _chart(name, said["chart"][0], {column.name for column in columns}) if said["chart"] else None,
        tuple(said["reads"]),
        tuple(name for line in said["events"] for name in line.split(", ")),
        "\n".join(lines).strip().removesuffix(";"),
    )


def _place(parameter: Parameter) -> int:
    return [one.name for one in _EVERYWHERE].index(parameter.name)


def _others(own: list[Parameter]) -> list[Parameter]:
    return [parameter for parameter in own if parameter.name not in {one.name for one in _EVERYWHERE}]


def _two(name: str, line: str) -> tuple[str, str]:
    first, _, rest = line.partition(" ")
    if not rest.strip():
        raise ValueError(f"{name}.sql: {line!r} says nothing about it")
    return first, rest.strip()


def _parameter(name: str, line: str) -> Parameter:
    match = re.fullmatch(r"(\w+)\s+(\w+)\s+('[^']*'|\S+)\s+(\S.*)", line)
    if match is None or match[2] not in get_args(Kind):
        raise ValueError(f"{name}.sql: parameter {line!r} is not `name kind default  about`")
    return Parameter(match[1], cast(Kind, match[2]), match[3].strip("'"), match[4])


def _chart(name: str, line: str, columns: set[str]) -> Chart:
    kind, *options = line.split()
    given = {key: value for key, _, value in (option.partition("=") for option in options)}
    unknown = (set(given) - {"x", "y", "color"}) | (set(given.values()) - columns)
    if kind not in get_args(ChartKind) or unknown or not {"x", "y"} <= set(given):
        raise ValueError(f"{name}.sql: chart {line!r} is not `kind x=column y=column [color=column]`")
    return Chart(cast(ChartKind, kind), given["x"], given["y"], given.get("color", ""))


def render(question: Question, dialect: Dialect, values: Mapping[str, str | int | float] | None = None) -> str:
    """The statement as the dialect's store takes it, with the dialect's own way to write each parameter.

    values: what is asked for by name, defaults otherwise; a dialect may choose tables and columns by them, no more.
    Raises ValueError for a macro or parameter that does not exist.
    """
    kinds = {parameter.name: parameter for parameter in question.parameters}

    def parameter(name: str) -> str:
        if name not in kinds:
            raise ValueError(f"{question.name}.sql: there is no parameter {name}")
        return dialect.parameter(name, kinds[name].kind, kinds[name].default)

    asked = Asked(question.sql, parameter, {name: one.default for name, one in kinds.items()} | dict(values or {}))

    def expand(text: str) -> str:
        out: list[str] = []
        at = 0
        while (token := _TOKEN.search(text, at)) is not None:
            out.append(text[at : token.start()])
            at = token.end()
            if token["macro"]:
                arguments, at = _arguments(text, at)
                made = dialect.functions.get(token["macro"])
                out.append(made(asked, *arguments) if made else expand(_macro(question, dialect, token["macro"], arguments)))
            elif token["parameter"]:
                out.append(parameter(token["parameter"]))
            elif token["fence"]:
                out.append(dialect.fence)
            else:
                out.append(dialect.schema if token["room"] else token[0])
        return "".join([*out, text[at:]])

    return expand(question.sql)


def _macro(question: Question, dialect: Dialect, name: str, arguments: list[str]) -> str:
    """From the outside in: what it makes may hold macros again."""
    if name in FUNCTIONS:
        return FUNCTIONS[name](*arguments)
    template = dialect.macros.get(name)
    if template is None or int(max(re.findall(r"\$(\d)", template), default="0")) > len(arguments):
        raise ValueError(f"{question.name}.sql: there is no macro @{name} of {len(arguments)} arguments")
    return re.sub(r"\$(\d)", lambda place: arguments[int(place[1]) - 1], template)


def _arguments(text: str, at: int) -> tuple[list[str], int]:
    """What stands between the parentheses, taken apart at its commas; and where it ends. at: after the opening one."""
    depth, begin, found = 1, at, list[str]()
    for token in re.finditer(r"'(?:[^']|'')*'|[(),]", text[at:]):
        if token[0] == "(":
            depth += 1
        elif token[0] == ")":
            depth -= 1
        if depth == 0 or (depth == 1 and token[0] == ","):
            found.append(text[begin : at + token.start()].strip())
            begin = at + token.end()
        if depth == 0:
            return found, begin
    raise ValueError(f"unbalanced: {text[at - 20 : at + 40]!r}")
