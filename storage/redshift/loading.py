"""Lines of text -> objects in S3 -> COPY, inside the caller's transaction; what Redshift refuses of them is told line by line.

Every load has a folder of random name, which goes when the transaction is over, however it ended. A manifest names the very
objects that COPY reads, so that a listing that is late changes nothing.
"""

from __future__ import annotations

import gzip
import json
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from protocol.seams import PermanentError, TransientError
from storage.objects import Objects
from storage.redshift.connection import Session
from storage.redshift.tables import Column, quoted

LONGEST_URL = 256  # what SYS_LOAD_ERROR_DETAIL keeps of a file's name
NULL = "\\N"
_FOLDER_BYTES = 12
_MOST_ERRORS = 100_000
_is_ours = re.compile(r"[0-9a-f]{24}/\d+\.(?:tsv\.gz|manifest)").fullmatch
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


class LineError(NamedTuple):
    """A line that Redshift refused. line: its index, from 0. code: of the "load error reference"."""

    line: int
    column: str
    code: int
    message: str


def copy_sql(
    schema: str, table: str, columns: Sequence[Column], manifest: str, access: str, region: str, empty_is_null: bool
) -> str:
    """schema: "" = a temporary table. access: how Redshift may read S3. region: of the bucket, "" = the cluster's own."""
    names = ", ".join(quoted(column.name) for column in columns)
    return "\n".join(
        (
            f"COPY {place(schema, table)} ({names})",
            f"FROM {literal(manifest)}",
            access,
            *((f"REGION {literal(region)}",) if region else ()),
            "MANIFEST GZIP DELIMITER '\\t' TIMEFORMAT 'auto'",
            f"{'EMPTYASNULL ' if empty_is_null else ''}COMPUPDATE OFF STATUPDATE OFF MAXERROR {_MOST_ERRORS}",
        )
    )


class Load:
    """Call order: `Load(...)` -> `copy` for each table -> `clear`."""

    def __init__(self, objects: Objects, access: str, region: str, sleep: Callable[[float], None]) -> None:
        """access, region: as `copy_sql` has them. sleep: seconds."""
        self._objects, self._access, self._region, self._sleep = objects, access, region, sleep
        self._names: list[str] = []
        self.folder = secrets.token_hex(_FOLDER_BYTES)

    @property
    def base(self) -> str:
        return self._objects.url(self.folder)

    def copy(
        self,
        db: Session,
        schema: str,
        table: str,
        columns: Sequence[Column],
        lines: Sequence[str],
        *,
        empty_is_null: bool = False,
    ) -> list[LineError]:
        """Loads all lines but those that it returns. Raises TransientError, PermanentError."""
        name = f"{self.folder}/{len(self._names)}.tsv.gz"
        manifest = name.removesuffix(".tsv.gz") + ".manifest"
        url = self._objects.url(name)
        self._names += [name, manifest]
        # mtime: the same lines are the same bytes.
        self._objects.put(name, gzip.compress(("\n".join(lines) + "\n").encode(), 6, mtime=0))
        self._objects.put(manifest, json.dumps({"entries": [{"url": url, "mandatory": True}]}).encode())
        db.run(copy_sql(schema, table, columns, self._objects.url(manifest), self._access, self._region, empty_is_null))
        ((copied,),) = db.ask("SELECT pg_last_copy_count()")
        if copied == len(lines):
            return []
        told = self._errors(db, url)
        if not told:
            raise TransientError(f"redshift: COPY left out {len(lines) - copied} lines of {table} and does not say which")
        return told

    def _errors(self, db: Session, url: str) -> list[LineError]:
        """Of one object. The system's tables may be a little late."""
        for pause_s in (*_PAUSES_S, None):
            told = db.ask(
                "SELECT line_number, trim(column_name), error_code, trim(error_message) FROM sys_load_error_detail"
                " WHERE trim(file_name) = %s AND line_number > 0 ORDER BY line_number",
                url,
            )
            if told:
                return [LineError(line - 1, column, code, message) for line, column, code, message in told]
            if pause_s is not None:
                self._sleep(pause_s)
        return []

    def clear(self) -> None:
        """As far as it goes: what stays is for the bucket's own rule, see docs/redshift.md."""
        with suppress(TransientError, PermanentError):
            self._objects.delete(self._names)


def sweep(objects: Objects) -> None:
    """Takes away what a kill left of earlier loads. Nobody else may be loading. Raises TransientError, PermanentError."""
    objects.delete([found.name for found in objects.list() if _is_ours(found.name)])


def place(schema: str, table: str) -> str:
    """A table's quoted name; schema "" = of the session, a temporary one."""
    return f"{quoted(schema)}.{quoted(table)}" if schema else quoted(table)


def literal(text: str) -> str:
    """Redshift reads backslashes in every literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
