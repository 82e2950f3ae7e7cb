"""SQL as Redshift takes it -> SQL that gives the same on PostgreSQL; what Redshift refuses is refused. Pure.

Rules and their sources: redshift_double.md. What this file does not know it refuses as well, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.peers import redshift_super

CATALOG = "redshift_catalog"  # where the double keeps what in Redshift is part of the system

_TOKEN = re.compile(r"""\s+|--[^\n]*|'(?:[^'\\]|''|\\.)*'|"(?:[^"]|"")*"|[A-Za-z_][\w$]*|\d+(?:\.\d+)?|.""", re.DOTALL)
_TYPES = {
    "smallint": "smallint", "int2": "smallint", "integer": "integer", "int": "integer", "int4": "integer", "bigint": "bigint",
    "int8": "bigint", "real": "real", "float4": "real", "float": "double precision", "float8": "double precision",
    "double precision": "double precision", "boolean": "boolean", "bool": "boolean", "date": "date", "timestamp": "timestamp",
    "timestamptz": "timestamptz", "super": "jsonb",
}  # fmt: skip
_SIZED = {"char": "char", "character": "char", "nchar": "char", "varchar": "varchar", "character varying": "varchar",
          "nvarchar": "varchar", "decimal": "numeric", "numeric": "numeric", "dec": "numeric"}  # fmt: skip
_MOST_BYTES = {"char": 4096, "varchar": 65535}
_ENCODINGS = {"raw", "az64", "bytedict", "delta", "delta32k", "lzo", "mostly8", "mostly16", "mostly32", "runlength", "text255",
              "text32k", "zstd"}  # fmt: skip
_NO_AZ64 = {"char", "varchar", "boolean", "real", "double precision", "jsonb"}
_REFUSED = {
    r"\bcreate (unique )?index\b": "SQL command CREATE INDEX is not supported on Redshift tables",
    r"\bon conflict\b": 'syntax error at or near "CONFLICT"',
    r"\breturning\b": 'syntax error at or near "RETURNING"',
    r"\bdistinct on\b": 'syntax error at or near "ON"',
    r"\bfilter \(": 'syntax error at or near "("',
    r"\blateral\b": 'syntax error at or near "LATERAL"',
    r"\bcreate (sequence|trigger|rule|extension|type|domain)\b": "the command is not supported",
    r": : jsonb?\b|\bas jsonb?\b": 'type "jsonb" does not exist',
    r": : uuid\b|\bas uuid\b": 'type "uuid" does not exist',
    r"\badd column if\b": 'syntax error at or near "IF"',
    r"\bstring_agg ?\(": "function string_agg does not exist",
    r"\bjsonb?_\w+ ?\(": "the function does not exist",
    r"= ?any ?\(": "op ANY/ALL (array) is not supported",
    r"\bas (not )?materialized\b": 'syntax error at or near "MATERIALIZED"',
    r"\bfor update\b": "SELECT FOR UPDATE is not supported",
}
# Reserved by Redshift and free in PostgreSQL; without those that a SELECT may have for their own sake.
_RESERVED = {
    "aes128", "aes256", "allowoverwrite", "az64", "backup", "blanksasnull", "bytedict", "bzip2", "credentials", "deflate",
    "defrag", "delta", "delta32k", "disable", "emptyasnull", "enable", "encode", "encrypt", "encryption", "explicit",
    "globaldict256", "globaldict64k", "gzip", "identity", "lun", "luns", "lzo", "lzop", "mostly16", "mostly32", "mostly8",
    "new", "off", "offline", "old", "open", "parallel", "percent", "permissions", "raw", "readratio", "recover", "rejectlog",
    "resort", "restore", "snapshot", "system", "tag", "tdes", "text255", "text32k", "truncatecolumns", "wallet",
}  # fmt: skip
_OURS = {"json_parse", "json_serialize", "json_size", "json_typeof"}
_SETTING = re.compile(r"\s*SET\s+enable_case_sensitive_identifier\s+(?:TO|=)\s+(?P<value>true|on|false|off)\s*", re.IGNORECASE)


class Refused(Exception):
    """code: SQLSTATE. The message is Redshift's as far as it is known."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def tokens(sql: str) -> list[str]:
    """Without blanks and comments; literals whole, quotes included."""
    return [token for token in _TOKEN.findall(sql) if not token.isspace() and not token.startswith("--")]


def text_of(literal: str) -> str:
    """What a literal stands for: backslash escapes are read, as Redshift does in every literal."""
    escapes = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
    body = literal[1:-1].replace("''", "'")
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), body, flags=re.DOTALL)


def case_sensitivity(sql: str) -> bool | None:
    """What a SET of enable_case_sensitive_identifier sets it to; None for any other statement."""
    found = _SETTING.fullmatch(sql)
    return found["value"].lower() in ("true", "on") if found else None


def translate(sql: str, in_transaction: bool = False, case_sensitive: bool = False) -> str:
    """case_sensitive: enable_case_sensitive_identifier, as the session has it. Raises Refused."""
    if case_sensitivity(sql) is not None:
        return "SET redshift.case_sensitive TO 'set'"
    words = tokens(sql)
    bare = " ".join({"'": "''", '"': '"x"'}.get(word[0], word) for word in words).lower()
    for pattern, message in _REFUSED.items():
        found = re.search(pattern, bare)
        if found and not any(found[0].startswith(name) for name in _OURS):
            raise Refused("0A000" if "not supported" in message else "42601", message)
    lower = [word.lower() for word in words]
    if lower[:1] in (["select"], ["with"]) and (taken := _RESERVED.intersection(lower)):
        raise Refused("42601", f'syntax error at or near "{min(taken)}"')
    if lower[:1] == ["create"] and "table" in lower[:4]:
        return _create_table(words)
    if lower[:2] == ["alter", "table"]:
        return _alter_table(words, in_transaction)
    if lower[:1] == ["lock"] and len(words) > 1 and lower[1] != "table":
        sql = "LOCK TABLE " + " ".join(words[1:])
    if lower[:1] in (["select"], ["with"]):
        sql = redshift_super.translate(_TOKEN.findall(sql), CATALOG, case_sensitive)
    return re.sub(r"\bpg_catalog\.(svv_\w+)", rf"{CATALOG}.\1", sql, flags=re.IGNORECASE)


def _create_table(words: list[str]) -> str:
    start = words.index("(")
    end = _closing(words, start)
    head = [word for word in words[:start] if word.lower() != "local"]
    body = words[start + 1 : end]
    _table_attributes(words[end + 1 :])
    if body and body[0].lower() == "like":
        return f"{_joined(head)} (LIKE {_joined(body[1:])} INCLUDING CONSTRAINTS)"
    columns = [made for part in _parts(body) if (made := _column(part)) is not None]
    return f"{_joined(head)} ({', '.join(columns)})"


def _column(words: list[str]) -> str | None:
    """A column's definition; None for a table constraint, which Redshift notes and does not enforce."""
    lower = [word.lower() for word in words]
    if lower[0] in ("primary", "unique", "foreign", "constraint"):
        return None
    name, at = words[0], 1
    kind, at = _type(words, at)
    made = f"{name} {kind}"
    while at < len(words):
        word = lower[at]
        if word == "not" and lower[at + 1 : at + 2] == ["null"]:
            made, at = made + " NOT NULL", at + 2
        elif word == "null":
            at += 1
        elif word == "encode":
            encoding = lower[at + 1]
            if encoding not in _ENCODINGS or (encoding == "az64" and kind.split("(")[0] in _NO_AZ64):
                raise Refused("0A000", f"invalid encoding type specified for column {name}")
            at += 2
        elif word in ("distkey", "sortkey", "unique"):
            at += 1
        elif word == "primary" and lower[at + 1 : at + 2] == ["key"]:
            at += 2
        elif word == "default":
            stop = next(
                (i for i in range(at + 1, len(words)) if lower[i] in ("not", "null", "encode", "distkey", "sortkey")), None
            )
            made, at = f"{made} DEFAULT {_joined(words[at + 1 : stop])}", stop or len(words)
        elif word == "references":
            at = _closing(words, words.index("(", at)) + 1 if "(" in words[at:] else at + 2
        elif word == "identity":
            made, at = made + " GENERATED BY DEFAULT AS IDENTITY", _closing(words, at + 1) + 1
        else:
            raise Refused("42601", f'syntax error at or near "{words[at]}"')
    if kind.startswith("varchar("):  # Redshift counts bytes, PostgreSQL characters
        made += f" CONSTRAINT {_constraint(name)} CHECK (octet_length({name}) <= {kind[8:-1]})"
    return made


def _constraint(column: str) -> str:
    return '"bytes of ' + column.strip('"').replace('"', '""') + '"'


def _type(words: list[str], at: int) -> tuple[str, int]:
    name = words[at].lower()
    if f"{name} {words[at + 1].lower() if at + 1 < len(words) else ''}" in {*_TYPES, *_SIZED}:
        name, at = f"{name} {words[at + 1].lower()}", at + 1
    at += 1
    if name in _TYPES:
        return _TYPES[name], at
    if name == "text":  # what Redshift makes of it
        return "varchar(256)", at
    if name not in _SIZED:
        raise Refused("0A000", f'type "{name}" is not supported by Redshift, or not known to the double')
    kind = _SIZED[name]
    size = {"char": "1", "varchar": "256", "numeric": "18,0"}[kind]
    if at < len(words) and words[at] == "(":
        end = _closing(words, at)
        size, at = "".join(words[at + 1 : end]).lower(), end + 1
    if kind == "numeric":
        precision, _, scale = size.partition(",")
        if not 1 <= int(precision) <= 38 or int(scale or 0) > 37:
            raise Refused("22023", f"DECIMAL precision {precision} must be between 1 and 38")
    else:
        size = str(_MOST_BYTES[kind]) if size == "max" else size
        if not 1 <= int(size) <= _MOST_BYTES[kind]:
            raise Refused("22023", f"length for type {kind} cannot exceed {_MOST_BYTES[kind]}")
    return f"{kind}({size})", at


def _table_attributes(words: list[str]) -> None:
    lower = [word.lower() for word in words if word != ";"]
    at = 0
    while at < len(lower):
        word = lower[at]
        if word == "diststyle" and lower[at + 1] in ("auto", "even", "key", "all"):
            at += 2
        elif word == "distkey":
            if _closing(lower, at + 1) != at + 3:
                raise Refused("42601", "only one column may be the distribution key")
            at += 4
        elif word in ("compound", "interleaved") and lower[at + 1] == "sortkey":
            at += 1
        elif word == "sortkey":
            at = _closing(lower, at + 1) + 1 if lower[at + 1] == "(" else at + 2
        elif (word == "backup" and lower[at + 1] in ("yes", "no")) or (word == "encode" and lower[at + 1] == "auto"):
            at += 2
        else:
            raise Refused("42601", f'syntax error at or near "{words[at]}"')


def _alter_table(words: list[str], in_transaction: bool) -> str:
    """ADD COLUMN (one), ALTER COLUMN ... TYPE VARCHAR(n), RENAME and DROP COLUMN."""
    words = [word for word in words if word != ";"]
    lower = [word.lower() for word in words]
    at = next((i for i, word in enumerate(lower) if word in ("add", "alter", "rename", "drop", "owner") and i > 1), len(lower))
    table = _joined(words[2:at])
    if lower[at : at + 2] == ["add", "column"]:
        if len(_parts(words[at + 2 :])) > 1:
            raise Refused("42601", 'syntax error at or near ","')
        made = _column(words[at + 2 :])
        if "not null" in str(made).lower() and "default" not in str(made).lower():
            raise Refused("0A000", "ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression")
        return f"ALTER TABLE {table} ADD COLUMN {made}"
    if lower[at : at + 2] == ["alter", "column"] and lower[at + 3 : at + 4] == ["type"]:
        if in_transaction:
            raise Refused("25001", "ALTER TABLE ALTER COLUMN cannot run inside a transaction block")
        column = words[at + 2]
        kind, end = _type(words, at + 4)
        if not kind.startswith("varchar(") or end != len(words):
            raise Refused("0A000", "only the size of a VARCHAR column can be altered")
        rule = _constraint(column)
        return (
            f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind}, DROP CONSTRAINT {rule},"
            f" ADD CONSTRAINT {rule} CHECK (octet_length({column}) <= {kind[8:-1]})"
        )
    if lower[at : at + 1] in (["rename"], ["drop"], ["owner"]):
        return _joined(words)
    raise Refused("0A000", "an ALTER TABLE that the double does not know")


def _parts(words: list[str]) -> list[list[str]]:
    """Between the commas that stand in no brackets."""
    parts: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if word == "," and not depth:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _closing(words: list[str], start: int) -> int:
    depth = 0
    for at in range(start, len(words)):
        depth += (words[at] == "(") - (words[at] == ")")
        if not depth:
            return at
    raise Refused("42601", "syntax error at end of input")


def _joined(words: list[str]) -> str:
    return re.sub(r" ?([.(),]) ?", r"\1", " ".join(words)).replace(",", ", ")


def statements(sql: str) -> Iterator[str]:
    """A script's statements, without their semicolons."""
    found: list[str] = []
    for token in _TOKEN.findall(sql):
        if token == ";":
            yield "".join(found).strip()
            found = []
        elif not token.startswith("--"):
            found.append(token)
    if rest := "".join(found).strip():
        yield rest
