"""PartiQL on SUPER columns -> SQL that gives the same on PostgreSQL, where they are jsonb. Pure.

Known are ways from an alias (`e.contexts.data`, `x.data."k"`), arrays in FROM (`t AS e, e.contexts.data AS x AT place`), and
casts of a way to text or a number. Rules and their sources: redshift_double.md.
"""

from __future__ import annotations

from collections.abc import Sequence

_CLAUSES = {"select", "where", "group", "order", "having", "limit", "union", "on", "qualify"}
_WORDS = _CLAUSES | {"from", "as", "at", "and", "or", "join", "left", "inner", "cross", "outer", "full", "right"}


def translate(tokens: Sequence[str], catalog: str, case_sensitive: bool) -> str:
    """tokens: of a SELECT, blanks included. catalog: where super_text() and its like are.

    case_sensitive: what enable_case_sensitive_identifier is; without it names in quotes are read in small letters.
    """
    return "".join(_Select(tokens, catalog, case_sensitive).written())


class _Select:
    def __init__(self, tokens: Sequence[str], catalog: str, case_sensitive: bool) -> None:
        self._tokens, self._catalog, self._case_sensitive = list(tokens), catalog, case_sensitive
        self._aliases, self._items = self._named()

    def written(self) -> list[str]:
        out: list[str] = []
        at = 0
        clauses = [""]
        while at < len(self._tokens):
            token = self._tokens[at]
            self._follow(clauses, token)
            path, end = self._path(at)
            if clauses[-1] == "from" and path and path[0] in self._aliases and self._before(at) == ",":
                made, end = self._array(path, end)
                out.append(made)
            elif path and (path[0] in self._items or (len(path) > 2 and path[0] in self._aliases)):
                out.append(self._way(path, at, end))
            else:
                end = at + 1
                out.append(token)
            at = end
        return out

    def _named(self) -> tuple[set[str], set[str]]:
        """The aliases of what is in a FROM, and of those the ones of array elements."""
        aliases: set[str] = set()
        items: set[str] = set()
        clauses = [""]
        for at, token in enumerate(self._tokens):
            self._follow(clauses, token)
            path, end = self._path(at)
            if clauses[-1] != "from" or not path:
                continue
            if self._before(at) == "as":
                aliases.add(token)
            elif self._before(at) == "," and path[0] in aliases:
                items.add(self._tokens[self._next(self._next(end) + 1)])
        return aliases, items

    @staticmethod
    def _follow(clauses: list[str], token: str) -> None:
        """Which clause it is in, at each depth of brackets."""
        if token == "(":
            clauses.append("")
        elif token == ")" and len(clauses) > 1:
            clauses.pop()
        elif token.lower() in ("from", "join"):
            clauses[-1] = "from"
        elif token.lower() in _CLAUSES:
            clauses[-1] = token.lower()

    def _path(self, at: int) -> tuple[list[str], int]:
        """The names of `a.b."c"` that begins here, and where it ends; () when none does."""
        names: list[str] = []
        if self._before(at) == "." or not _is_name(self._tokens[at]):
            return [], at + 1
        while True:
            names.append(self._tokens[at])
            if at + 2 < len(self._tokens) and self._tokens[at + 1] == "." and _is_name(self._tokens[at + 2]):
                at += 2
            else:
                return names, at + 1

    def _before(self, at: int) -> str:
        """The last token before that is no blank."""
        return next((token.lower() for token in reversed(self._tokens[:at]) if not token.isspace()), "")

    def _next(self, at: int) -> int:
        """The place of the next token that is no blank."""
        while at < len(self._tokens) and self._tokens[at].isspace():
            at += 1
        return at

    def _array(self, path: list[str], end: int) -> tuple[str, int]:
        """`e.contexts.data AS x AT place` in a FROM."""
        at = self._next(self._next(end) + 1)
        alias, place = self._tokens[at], "place_in_array"
        end = at + 1
        after = self._next(end)
        if after < len(self._tokens) and self._tokens[after].lower() == "at":
            end = self._next(after + 1) + 1
            place = self._tokens[end - 1]
        array = f"{self._catalog}.super_array({self._navigated(path)})"
        elements = f"jsonb_array_elements({array}) WITH ORDINALITY AS u(value, place)"
        return f"LATERAL (SELECT u.value AS {alias}, u.place - 1 AS {place} FROM {elements}) AS {alias}", end

    def _way(self, path: list[str], at: int, end: int) -> str:
        """Into a column or an element; where it is cast, by Redshift's rules and not by PostgreSQL's."""
        made = self._navigated(path)
        as_, kind = self._next(end), self._next(self._next(end) + 1)
        if kind < len(self._tokens) and self._tokens[as_].lower() == "as" and self._before(at) == "(":
            name = {"varchar": "super_text", "double": "super_number"}.get(self._tokens[kind].lower())
            if name:
                return f"{self._catalog}.{name}({made})"
        return made

    def _navigated(self, path: list[str]) -> str:
        base, keys = ([path[0], path[0]], path[1:]) if path[0] in self._items else (path[:2], path[2:])
        steps = [".".join(base), *("'" + self._key(key).replace("\\", "\\\\").replace("'", "''") + "'" for key in keys)]
        return f"({' -> '.join(steps)})"

    def _key(self, name: str) -> str:
        if name[0] != '"':
            return name.lower()
        inside = name[1:-1].replace('""', '"')
        return inside if self._case_sensitive else inside.lower()


def _is_name(token: str) -> bool:
    return token[0] == '"' or ((token[0].isalpha() or token[0] == "_") and token.lower() not in _WORDS)
