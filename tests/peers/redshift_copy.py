"""COPY as Redshift does it: its text -> what it asks for, objects -> rows, fields -> values or load errors. Pure but for S3.

Rules and their sources: redshift_double.md. An option this file does not know is refused by name.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from tests.peers.redshift_sql import Refused, text_of, tokens

_FLAGS = {"GZIP", "MANIFEST", "EMPTYASNULL", "BLANKSASNULL", "FILLRECORD", "TRUNCATECOLUMNS", "ESCAPE", "ROUNDEC", "TRIMBLANKS"}
_VALUES = {"REGION", "DELIMITER", "TIMEFORMAT", "DATEFORMAT", "MAXERROR", "COMPUPDATE", "STATUPDATE", "NULL", "ACCEPTINVCHARS"}
_ROLE = re.compile(r"arn:aws(?:-cn|-us-gov)?:iam::\d{12}:role/[\w+=,.@/-]+")
_MOST_LINE_BYTES = 4 << 20
_INTEGERS = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}


@dataclass
class Copy:
    """table and columns as written. credentials: "role:ARN", "role:default" or "key:ID"."""

    table: str
    columns: list[str]
    url: str
    credentials: str
    flags: set[str] = field(default_factory=set[str])
    values: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def most_errors(self) -> int:
        return int(self.values.get("MAXERROR", "0"))


class Column(NamedTuple):
    """Of the table that is loaded. type: as PostgreSQL's format_type says."""

    name: str
    type: str
    not_null: bool


class LoadError(NamedTuple):
    """A row that was refused: a row of STL_LOAD_ERRORS."""

    file: str
    line: int
    column: str
    type: str
    length: str
    raw_line: str
    raw_value: str
    code: int
    reason: str


class Misfit(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def parse(sql: str) -> Copy:
    """Raises Refused."""
    words = [word for word in tokens(sql) if word != ";"]
    upper = [word.upper() for word in words]
    source = upper.index("FROM") if "FROM" in upper else _fail("end of input")
    target = words[1:source]
    columns: list[str] = []
    if "(" in target:
        start = target.index("(")
        columns = [word for word in target[start + 1 : -1] if word != ","]
        target = target[:start]
    if upper[source + 1 : source + 2] == ["STDIN"]:
        raise Refused("0A000", "COPY FROM STDIN is not supported by Redshift")
    url = text_of(words[source + 1]) if words[source + 1][0] == "'" else _fail(words[source + 1])
    if not url.startswith("s3://"):
        raise Refused("0A000", "the double copies from S3 only")
    copy = Copy("".join(target), columns, url, "")
    at = source + 2

    def value() -> str:
        nonlocal at
        if at < len(words) and upper[at] == "AS":
            at += 1
        at += 1
        if at > len(words):
            _fail("end of input")
        return text_of(words[at - 1]) if words[at - 1][0] == "'" else words[at - 1]

    while at < len(words):
        name = upper[at]
        at += 1
        if name == "IAM_ROLE":
            role = value()
            if role.lower() != "default" and not _ROLE.fullmatch(role):
                raise Refused("XX000", f"Invalid IAM role: {role}")
            copy.credentials = f"role:{role}"
        elif name == "ACCESS_KEY_ID":
            copy.credentials = f"key:{value()}"
            if at >= len(words) or upper[at] != "SECRET_ACCESS_KEY":
                _fail("ACCESS_KEY_ID without SECRET_ACCESS_KEY")
        elif name in ("SECRET_ACCESS_KEY", "SESSION_TOKEN"):
            value()
        elif name in _FLAGS:
            copy.flags.add(name)
        elif name == "ACCEPTINVCHARS" and (at == len(words) or (words[at][0] != "'" and upper[at] != "AS")):
            copy.values[name] = "?"
        elif name in _VALUES:
            copy.values[name] = value()
        elif name == "FORMAT" or name in ("CSV", "JSON", "PARQUET", "AVRO", "ORC"):
            raise Refused("0A000", f"the double knows delimited text only, not {name}")
        else:
            _fail(name)
    if not copy.credentials:
        raise Refused("42601", "COPY requires CREDENTIALS, IAM_ROLE or ACCESS_KEY_ID")
    if not 0 <= copy.most_errors <= 100_000:
        raise Refused("22023", "MAXERROR must be between 0 and 100000")
    if len(copy.values.get("DELIMITER", "|")) != 1:
        raise Refused("0A000", "the delimiter must be a single character")
    return copy


def _fail(word: str) -> Any:
    raise Refused("42601", f'syntax error at or near "{word}"')


def objects(copy: Copy, client: Any) -> Iterator[tuple[str, bytes]]:
    """(URL, body) of what it loads, by manifest or by prefix. client: of boto3. Raises Refused."""
    if "MANIFEST" not in copy.flags:
        bucket, _, prefix = copy.url[5:].partition("/")
        found = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        if not found:
            raise Refused("XX000", f"The specified S3 prefix '{prefix}' does not exist")
        entries: list[dict[str, Any]] = [{"url": f"s3://{bucket}/{one['Key']}", "mandatory": True} for one in found]
    else:
        try:
            entries = json.loads(_get(copy.url, client))["entries"]
        except (ValueError, KeyError) as error:
            raise Refused("XX000", f"Manifest file {copy.url} is not valid: {error}") from None
    for entry in entries:
        try:
            body = _get(entry["url"], client)
        except Refused:
            if entry.get("mandatory"):
                raise
            continue
        if "GZIP" in copy.flags:
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError, zlib.error) as error:
                raise Refused("XX000", f"Failed to inflate {entry['url']}: {error}") from None
        yield entry["url"], body


def _get(url: str, client: Any) -> bytes:
    bucket, _, key = url[5:].partition("/")
    try:
        body: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except Exception as error:
        raise Refused("XX000", f"Problem reading manifest file or object {url}: S3ServiceException: {error}") from None
    return body


def rows(copy: Copy, columns: Sequence[Column], client: Any, refused: Callable[[LoadError], None]) -> Iterator[list[str | None]]:
    """Rows as text for a PostgreSQL COPY of these columns; rows that do not fit go to `refused`. Raises Refused."""
    delimiter = copy.values.get("DELIMITER", "|")
    for url, body in objects(copy, client):
        for number, raw in enumerate(body.removesuffix(b"\n").split(b"\n") if body else [], 1):
            line = raw.decode("utf-8", "replace")
            try:
                if len(raw) > _MOST_LINE_BYTES:
                    raise Misfit(1216, "Invalid input line: longer than 4 MB")
                fields = _split(line, delimiter, "ESCAPE" in copy.flags)
                if len(fields) > len(columns):
                    raise Misfit(1202, "Extra column(s) found")
                if len(fields) < len(columns):
                    if "FILLRECORD" not in copy.flags:
                        raise Misfit(1214, "Delimiter not found")
                    fields += [""] * (len(columns) - len(fields))
            except Misfit as misfit:
                refused(LoadError(url, number, "", "", "", line[:1024], "", misfit.code, str(misfit)[:100]))
                continue
            values: list[str | None] = []
            for column, text in zip(columns, fields, strict=True):
                try:
                    values.append(value_of(copy, column, text))
                except Misfit as misfit:
                    kind, _, length = column.type.partition("(")
                    about = (kind[:10], length.rstrip(")")[:10], line[:1024], text[:1024], misfit.code, str(misfit)[:100])
                    refused(LoadError(url, number, column.name, *about))
                    break
            else:
                yield values


def _split(line: str, delimiter: str, escape: bool) -> list[str]:
    if not escape:
        return line.split(delimiter)
    fields = [""]
    for part in re.findall(r"\\.|[^\\]", line, re.DOTALL):
        if part == delimiter:
            fields.append("")
        else:
            fields[-1] += part if part == "\\N" else part[-1]
    return fields


def value_of(copy: Copy, column: Column, text: str) -> str | None:
    kind, _, size = column.type.partition("(")
    character = kind in ("character varying", "character")
    null = text == copy.values.get("NULL", "\\N")
    null = null or (not text and (not character or "EMPTYASNULL" in copy.flags))
    if null:
        if column.not_null:
            raise Misfit(1213, "Missing data for not-null field")
        return None
    if character:
        return _characters(copy, kind, int(size.rstrip(")")), text)
    text = text.strip()
    if kind in _INTEGERS:
        return _integer(kind, text)
    if kind == "numeric":
        return _decimal(copy, size.rstrip(")"), text)
    if kind in ("double precision", "real"):
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) or float(text) in (float("inf"), float("-inf")):
            raise Misfit(1208, f"Invalid float value '{text}'")
        return text
    if kind == "boolean":
        if text.lower() not in ("t", "true", "y", "yes", "1", "f", "false", "n", "no", "0"):
            raise Misfit(1210, "Unknown boolean format")
        return text
    if kind.startswith("timestamp") or kind == "date":
        return _moment(copy, kind, text)
    if kind == "jsonb":
        try:
            json.loads(text, parse_constant=_no_constant)
        except ValueError:
            raise Misfit(1224, "Invalid JSON format. Invalid value.") from None
        if "\\u0000" in text:
            raise Misfit(1220, "String contains invalid or unsupported UTF-8 codepoints")
        return text
    raise Refused("0A000", f"the double copies no {column.type}")


def _characters(copy: Copy, kind: str, size: int, text: str) -> str:
    if "\ufffd" in text and "ACCEPTINVCHARS" not in copy.values and kind == "character":
        raise Misfit(1220, "Multibyte character not supported for CHAR (Hint: try using VARCHAR).")
    if kind == "character" and not text.isascii():
        first = next(char for char in text if not char.isascii())
        hexed = " ".join(f"{byte:02x}" for byte in first.encode())
        raise Misfit(1220, f"Multibyte character not supported for CHAR (Hint: try using VARCHAR). Invalid char: {hexed}")
    if len(text.encode()) > size:
        if "TRUNCATECOLUMNS" not in copy.flags:
            raise Misfit(1204, "String length exceeds DDL length")
        text = text.encode()[:size].decode("utf-8", "ignore")
    return text


def _integer(kind: str, text: str) -> str:
    if not re.fullmatch(r"[+-]?\d+", text):
        wrong = next((i for i, char in enumerate(text) if not (char.isdigit() or (char in "+-" and not i))), 0)
        raise Misfit(1207, f"Invalid digit, Value '{text[wrong : wrong + 1]}', Pos {wrong}, Type: {kind.capitalize()}")
    if not -_INTEGERS[kind] <= int(text) < _INTEGERS[kind]:
        raise Misfit(1207, f"Overflow, Value {text[:30]}, Type: {kind.capitalize()}")
    return text


def _decimal(copy: Copy, size: str, text: str) -> str:
    """Digits beyond the scale are cut, or rounded with ROUNDEC; exponents are not read."""
    try:
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", text):
            raise InvalidOperation
        number = Decimal(text)
    except InvalidOperation:
        raise Misfit(1207, f"Invalid digit, Value '{text[:30]}', Type: Decimal") from None
    precision, scale = map(int, size.split(","))
    rounding = "ROUND_HALF_UP" if "ROUNDEC" in copy.flags else "ROUND_DOWN"
    if abs(number) >= Decimal(10) ** (precision - scale):
        raise Misfit(1209, "Overflow for NUMERIC")
    return str(number.quantize(Decimal(1).scaleb(-scale), rounding=rounding))


def _moment(copy: Copy, kind: str, text: str) -> str:
    if kind != "date" and copy.values.get("TIMEFORMAT", "auto").lower() != "auto":
        raise Refused("0A000", "the double knows TIMEFORMAT 'auto' only")
    try:
        datetime.fromisoformat(text)
    except ValueError:
        code, name = (1205, "Date") if kind == "date" else (1206, "timestamp")
        raise Misfit(code, f"Invalid {name} format or value [YYYY-MM-DD HH24:MI:SS]") from None
    return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)
