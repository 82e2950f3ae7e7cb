"""What a dialect is: macros for what stores say differently, as text or as functions, and how a parameter is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from storage.rows import CONTEXTS

# Entities as our targets write them, up to the schema of the first one: most have what is asked for there.
LEAD = f'{{"schema":"{CONTEXTS}","data":[{{"schema":"'


class Asked(NamedTuple):
    """A question that is being rendered. sql: with its macros. parameter: name -> as the dialect writes it.

    values: what is asked for by name, the default where nothing was given.
    """

    sql: str
    parameter: Callable[[str], str]
    values: Mapping[str, str | int | float]

    def value(self, argument: str) -> str:
        """Of a macro's argument, which is a text in quotes or a parameter."""
        text = literal(argument)
        return str(self.values[argument.removeprefix(":")]) if text is None else text

    def uses(self, macros: str, before: str) -> list[tuple[str, bool]]:
        """Every use of these macros in the question: the argument after `before`, and whether it is wanted as a number.

        macros, before: regular expressions.
        """
        use = rf"@(?P<macro>{macros})\({before}\s*(?P<path>'[^']*'|:\w+)\)"
        return [(found["path"], found["macro"].endswith("_number")) for found in re.finditer(use, self.sql)]


Function = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """schema: what stands for `atomic.`. parameter: (name, kind, default) -> how it is written in a statement.

    macros: text with $1, $2, … and other macros. functions: come before macros; what they make of an Asked and the arguments
    is final. fence: what stands for MATERIALIZED.
    """

    name: str
    schema: str
    parameter: Callable[[str, str, str], str]
    macros: Mapping[str, str]
    functions: Mapping[str, Function] = field(default_factory=dict[str, Function])
    fence: str = "MATERIALIZED"


def literal(argument: str) -> str | None:
    """The text of an argument that is a plain literal; None for any other expression."""
    return argument[1:-1] if argument.startswith("'") and "'" not in argument[1:-1] else None
