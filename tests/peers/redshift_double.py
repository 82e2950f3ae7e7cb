"""A double of Redshift: its wire protocol and its rules over a real PostgreSQL and a real S3 server. See redshift_double.md.

    with RedshiftDouble(folder) as redshift:
        redshift.connect()                      # a redshift_connector connection
        redshift.s3.bucket("name")              # what COPY reads

A session is a thread between a client and a PostgreSQL session of its own, so a COPY is part of the client's transaction.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.peers import redshift_copy
from tests.peers.postgres_server import PostgresServer
from tests.peers.redshift_copy import Column, Copy, LoadError
from tests.peers.redshift_sql import CATALOG, Refused, case_sensitivity, translate
from tests.peers.s3_server import S3Server

ROLE = "arn:aws:iam::123456789012:role/loader"
USER, PASSWORD, DATABASE = "spoorway", "Right-1-horse", "dev"
_SSL_REQUEST, _CANCEL_REQUEST = 80877103, 80877102
_LOGGED = 20  # load errors that are logged of one COPY: more happen than are told

_SYSTEM = f"""
CREATE SCHEMA {CATALOG};
CREATE SEQUENCE {CATALOG}.query_ids START 1000;
CREATE TABLE {CATALOG}.load_errors (
    userid int, query bigint, session int, tbl int, starttime timestamp, filename char(256), line_number bigint,
    colname char(127),
    type char(10), col_length char(10), position int, raw_line char(1024), raw_field_value char(1024), err_code int,
    err_reason char(100));
CREATE VIEW {CATALOG}.stl_load_errors AS SELECT userid, 0 AS slice, tbl, starttime, session, query::int AS query, filename,
    line_number, colname, type, col_length, position, raw_line, raw_field_value, err_code, err_reason, 0 AS is_partial,
    0::bigint AS start_offset FROM {CATALOG}.load_errors;
CREATE VIEW {CATALOG}.sys_load_error_detail AS SELECT userid AS user_id, query AS query_id, 0::bigint AS transaction_id,
    session AS session_id, current_database()::char(64) AS database_name, tbl AS table_id, starttime AS start_time,
    filename AS file_name, line_number, colname AS column_name, type AS column_type, col_length AS column_length, position,
    err_code AS error_code, err_reason::char(512) AS error_message FROM {CATALOG}.load_errors;
CREATE VIEW {CATALOG}.svv_all_tables AS SELECT table_catalog AS database_name, table_schema AS schema_name, table_name,
    CASE table_type WHEN 'VIEW' THEN 'VIEW' ELSE 'TABLE' END AS table_type, '' AS table_acl, '' AS remarks
    FROM information_schema.tables;
CREATE VIEW {CATALOG}.svv_all_columns AS SELECT table_catalog AS database_name, table_schema AS schema_name, table_name,
    column_name, ordinal_position, column_default, is_nullable, data_type, character_maximum_length, numeric_precision,
    numeric_scale, '' AS remarks FROM information_schema.columns;
CREATE VIEW {CATALOG}.svv_columns AS SELECT * FROM information_schema.columns;
CREATE VIEW {CATALOG}.svv_tables AS SELECT * FROM information_schema.tables;
CREATE FUNCTION {CATALOG}.pg_last_copy_count() RETURNS int LANGUAGE sql AS
    $$ SELECT coalesce(nullif(current_setting('redshift.copied', true), ''), '0')::int $$;
CREATE FUNCTION {CATALOG}.pg_last_copy_id() RETURNS int LANGUAGE sql AS
    $$ SELECT coalesce(nullif(current_setting('redshift.copy_id', true), ''), '-1')::int $$;
CREATE FUNCTION {CATALOG}.getdate() RETURNS timestamp LANGUAGE sql AS
    $$ SELECT date_trunc('second', statement_timestamp() AT TIME ZONE 'UTC') $$;
CREATE FUNCTION {CATALOG}.json_parse(text) RETURNS jsonb LANGUAGE sql AS $$ SELECT $1::jsonb $$;
CREATE FUNCTION {CATALOG}.json_serialize(jsonb) RETURNS text LANGUAGE sql AS $$ SELECT $1::text $$;
CREATE FUNCTION {CATALOG}.json_size(jsonb) RETURNS int LANGUAGE sql AS $$ SELECT octet_length($1::text) $$;
CREATE FUNCTION {CATALOG}.json_typeof(jsonb) RETURNS text LANGUAGE sql AS $$ SELECT jsonb_typeof($1) $$;
CREATE FUNCTION {CATALOG}.super_array(jsonb) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT CASE WHEN jsonb_typeof($1) = 'array' THEN $1 END $$;
CREATE FUNCTION {CATALOG}.super_text(jsonb) RETURNS text LANGUAGE sql AS
    $$ SELECT CASE WHEN jsonb_typeof($1) NOT IN ('array', 'object') THEN $1 #>> '{{}}' END $$;
CREATE FUNCTION {CATALOG}.super_number(jsonb) RETURNS float8 LANGUAGE sql AS
    $$ SELECT CASE WHEN jsonb_typeof($1) = 'number' THEN $1::float8 END $$;
"""
_OPTIONS = f"-c search_path=public,{CATALOG} -c standard_conforming_strings=off -c escape_string_warning=off -c timezone=UTC"


@dataclass
class Cut:
    """The connection is lost at a statement: the nth whose text has `pattern`, before or after the database did it."""

    pattern: str
    after: bool = False
    nth: int = 1


class RedshiftDouble:
    def __init__(
        self,
        folder: Path,
        *,
        roles: tuple[str, ...] = (ROLE,),
        tls: tuple[Path, Path] | None = None,
        postgres: PostgresServer | None = None,
        s3: S3Server | None = None,
    ) -> None:
        """roles: what the cluster may take on to read S3. tls: (certificate, key); without it TLS is refused.

        postgres, s3: running ones; without them it runs its own.
        """
        self.postgres = postgres or PostgresServer(folder)
        self.s3 = s3 or S3Server()
        self.roles, self.tls = roles, tls
        self.admits: Callable[[str, str], bool] = lambda user, password: (user, password) == (USER, PASSWORD)
        self.cuts: list[Cut] = []
        self.statements: list[str] = []  # as the clients sent them
        self.port = 0
        self._stack = ExitStack()
        self._sessions: set[_Session] = set()

    def __enter__(self) -> RedshiftDouble:
        with ExitStack() as stack:
            if not self.postgres.port:
                stack.enter_context(self.postgres)
            if not self.s3.endpoint:
                stack.enter_context(self.s3)
            self.client = self.s3.client()
            self._log = stack.enter_context(self.query())
            if not self._log.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (CATALOG,)).fetchone():
                self._log.execute(_SYSTEM)
            self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, name="redshift", daemon=True).start()
            stack.callback(self.cut_all)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._stack.close()

    def connect(self, **options: Any) -> Any:
        connector: Any = import_module("redshift_connector")
        given = {"host": "127.0.0.1", "port": self.port, "database": DATABASE, "user": USER, "password": PASSWORD, "ssl": False}
        return connector.connect(**{**given, **options})

    def query(self) -> Any:
        """A psycopg connection to the PostgreSQL behind it, for what a test wants to see or break itself."""
        return import_module("psycopg").connect(self.postgres.dsn, autocommit=True)

    def cut_all(self) -> None:
        """Every connection is lost, as when the cluster is restarted."""
        for session in list(self._sessions):
            session.close()

    def load_error(self, query: int, session: int, table: int, error: LoadError) -> None:
        """Logged apart from any transaction, as Redshift's system tables are."""
        self._log.execute(
            f"INSERT INTO {CATALOG}.load_errors VALUES (100, %s, %s, %s, now(), %s, %s, %s, %s, %s, 0, %s, %s, %s, %s)",
            (query, session, table, error.file, error.line, error.column, *(_no_nul(one) for one in error[3:7]), *error[7:]),
        )

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            session = _Session(self, client)
            self._sessions.add(session)
            threading.Thread(target=session.run, args=(self._sessions.discard,), name="redshift-session", daemon=True).start()


class _Cut(Exception):
    pass


class _Session:
    def __init__(self, double: RedshiftDouble, client: socket.socket) -> None:
        self._double, self._client = double, client
        self._backend: socket.socket = client  # until there is one
        self._copies: dict[bytes, Copy] = {}  # prepared ones, by name
        self._texts: dict[bytes, str] = {}
        self._portals: dict[bytes, bytes] = {}
        self._status = b"I"
        self._case_sensitive = False
        self._pid = 0

    def run(self, ended: Callable[[_Session], None]) -> None:
        # A client that is gone, and a connection that was cut, end the session and nothing else.
        try:
            with contextlib.suppress(OSError, EOFError, _Cut):
                if self._start():
                    while self._turn():
                        pass
        finally:
            self.close()
            ended(self)

    def close(self) -> None:
        for one in (self._client, self._backend):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    # The beginning ----------------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        while True:
            (size,) = struct.unpack("!i", _exactly(self._client, 4))
            body = _exactly(self._client, size - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code != _SSL_REQUEST:
                break
            if self._double.tls is None:
                self._client.sendall(b"N")
                continue
            self._client.sendall(b"S")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._double.tls)
            self._client = context.wrap_socket(self._client, server_side=True)
        parts = body[4:].split(b"\0")
        given = dict(zip(parts[::2], parts[1::2], strict=False))
        user = given.get(b"user", b"").decode()
        self._client.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
        kind, answer = _message(self._client)
        if kind != b"p" or not self._double.admits(user, answer.rstrip(b"\0").decode()):
            self._client.sendall(_error("28000", f'password authentication failed for user "{user}"', "FATAL"))
            return False
        if given.get(b"database") != DATABASE.encode():
            self._client.sendall(_error("3D000", f"database {given.get(b'database', b'').decode()!r} does not exist", "FATAL"))
            return False
        self._backend = socket.create_connection(("127.0.0.1", self._double.postgres.port))
        options = b"user\0postgres\0database\0postgres\0options\0" + _OPTIONS.encode() + b"\0\0"
        self._backend.sendall(struct.pack("!ii", len(options) + 8, 196608) + options)
        self._relay()
        return True

    # A turn: everything up to a Sync, or a simple query ---------------------------------------------------------------

    def _turn(self) -> bool:
        group: list[tuple[bytes, bytes]] = []
        while not group or group[-1][0] not in b"SQX":
            group.append(_message(self._client))
        if group[-1][0] == b"X":
            return False
        try:
            cut = self._look(group)
            if any(self._is_copy(message) for message in group):
                self._copy_turn(group)
            else:
                self._backend.sendall(b"".join(_framed(*message) for message in map(self._translated, group)))
                self._relay(hold=cut)
        except Refused as refused:
            self._abort()
            self._client.sendall(_error(refused.code, str(refused)) + _framed(b"Z", self._status))
        else:
            if cut:
                raise _Cut
        return True

    def _look(self, group: list[tuple[bytes, bytes]]) -> bool:
        """Notes what is run, and whether the connection is to be lost now (raises _Cut) or after it was done (True)."""
        for kind, body in group:
            if kind == b"P":
                name, sql, _ = body.split(b"\0", 2)
                self._texts[name] = sql.decode()
            elif kind == b"B":
                portal, name, _ = body.split(b"\0", 2)
                self._portals[portal] = name
            if kind == b"E":
                text = self._texts.get(self._portals.get(body.split(b"\0", 1)[0], b""), "")
            elif kind == b"Q":
                text = body.rstrip(b"\0").decode()
            else:
                continue
            self._double.statements.append(text)
            for cut in list(self._double.cuts):
                if re.search(cut.pattern, text, re.IGNORECASE):
                    cut.nth -= 1
                    if cut.nth == 0:
                        self._double.cuts.remove(cut)
                        if not cut.after:
                            raise _Cut
                        return True
        return False

    def _is_copy(self, message: tuple[bytes, bytes]) -> bool:
        kind, body = message
        if kind in b"PQ":
            name, sql = body.split(b"\0", 2)[:2] if kind == b"P" else (b"", body)
            if re.match(rb"\s*copy\b", sql, re.IGNORECASE):
                self._copies[name] = redshift_copy.parse(sql.rstrip(b"\0").decode())
                return True
            self._copies.pop(name, None)
        elif kind == b"D":
            return body[:1] == b"S" and body[1:].rstrip(b"\0") in self._copies
        elif kind == b"B":
            return self._portals.get(body.split(b"\0", 1)[0]) in self._copies
        return False

    def _translated(self, message: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        kind, body = message
        in_transaction = self._status != b"I"
        if kind == b"P":
            name, sql, rest = body.split(b"\0", 2)
            return kind, name + b"\0" + self._rewritten(sql.decode(), in_transaction) + b"\0" + rest
        if kind == b"Q":
            return kind, self._rewritten(body.rstrip(b"\0").decode(), in_transaction) + b"\0"
        return message

    def _rewritten(self, sql: str, in_transaction: bool) -> bytes:
        if (found := case_sensitivity(sql)) is not None:
            self._case_sensitive = found
        return translate(sql, in_transaction, self._case_sensitive).encode()

    def _relay(self, hold: bool = False) -> None:
        """Answers of the database to the client, up to the one that says it is ready. hold: they are lost."""
        out: list[bytes] = []
        while True:
            kind, body = _message(self._backend)
            if kind == b"S" and body.startswith(b"server_version\0"):
                body = b"server_version\x008.0.2\x00"
            elif kind == b"K":
                (self._pid,) = struct.unpack("!i", body[:4])
            elif kind == b"E":
                kind, body = _as_redshift(body)
            out.append(_framed(kind, body))
            if kind == b"Z":
                self._status = body
            if kind == b"Z" or (kind == b"E" and not self._pid):
                break
        if not hold:
            self._client.sendall(b"".join(out))

    def _abort(self) -> None:
        """A refused statement ends the transaction it was in, as any error does."""
        if self._status == b"T":
            with contextlib.suppress(Refused):
                self._ask("SELECT 1/0")

    # COPY -------------------------------------------------------------------------------------------------------------

    def _copy_turn(self, group: list[tuple[bytes, bytes]]) -> None:
        out = b""
        for kind, body in group:
            if kind == b"P":
                out += _framed(b"1", b"")
            elif kind == b"D":
                out += (_framed(b"t", struct.pack("!h", 0)) if body[:1] == b"S" else b"") + _framed(b"n", b"")
            elif kind == b"B":
                out += _framed(b"2", b"")
            elif kind == b"C":
                out += _framed(b"3", b"")
            elif kind in b"EQ":
                name = b"" if kind == b"Q" else self._portals[body.split(b"\0", 1)[0]]
                out += _notice(self._copy(self._copies[name])) + _framed(b"C", b"COPY\0")
        self._client.sendall(out + _framed(b"Z", self._status))

    def _copy(self, copy: Copy) -> str:
        scheme, _, who = copy.credentials.partition(":")
        if scheme == "role" and who.lower() != "default" and who not in self._double.roles:
            raise Refused(
                "XX000", f"User arn:aws:redshift:us-east-1:123456789012:dbuser is not authorized to assume IAM Role {who}"
            )
        if scheme == "role" and who.lower() == "default" and not self._double.roles:
            raise Refused("XX000", "DEFAULT iam role is not set for this cluster")
        found = self._ask(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attrelid::int FROM pg_attribute a"
            f" WHERE attrelid = '{copy.table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        known = {str(row[0]): Column(str(row[0]), str(row[1]), row[2] == "t") for row in found}
        names = [_unquoted(name) for name in copy.columns] or list(known)
        if missing := [name for name in names if name not in known]:
            raise Refused("42703", f'column "{missing[0]}" of relation "{copy.table}" does not exist')
        ((query,),) = self._ask(f"SELECT nextval('{CATALOG}.query_ids')")
        errors: list[LoadError] = []
        copied = 0

        def feed() -> Iterator[bytes]:
            nonlocal copied
            columns = [known[name] for name in names]
            for values in redshift_copy.rows(copy, columns, self._double.client, errors.append):
                copied += 1
                yield "\t".join(map(_field, values)).encode() + b"\n"

        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        try:
            lines = b"".join(feed())
        finally:
            for error in errors[:_LOGGED]:
                self._double.load_error(int(str(query)), self._pid, int(str(found[0][3])), error)
        if errors and len(errors) >= max(1, copy.most_errors):
            raise Refused(
                "XX000", f"Load into table '{copy.table}' failed.  Check 'sys_load_error_detail' system table for details."
            )
        self._ask(f"COPY {copy.table} ({quoted}) FROM STDIN", lines)
        self._ask(f"SELECT set_config('redshift.copied', '{copied}', false), set_config('redshift.copy_id', '{query}', false)")
        return f"Load into table '{copy.table}' completed, {copied} record(s) loaded successfully."

    def _ask(self, sql: str, lines: bytes = b"") -> list[list[str | None]]:
        """A simple query of our own in the client's session. Raises Refused with the database's error."""
        self._backend.sendall(_framed(b"Q", sql.encode() + b"\0"))
        rows: list[list[str | None]] = []
        refused: Refused | None = None
        while True:
            kind, body = _message(self._backend)
            if kind == b"G":
                self._backend.sendall(_framed(b"d", lines) + _framed(b"c", b""))
            elif kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                fields = _fields(_as_redshift(body)[1])
                refused = Refused(fields["C"], fields["M"])
            elif kind == b"Z":
                self._status = body
                if refused:
                    raise refused
                return rows


# The wire --------------------------------------------------------------------------------------------------------------


def _exactly(source: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = source.recv(min(size, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    return head[:1], _exactly(source, struct.unpack("!i", head[1:])[0] - 4)


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _error(code: str, message: str, severity: str = "ERROR") -> bytes:
    return _framed(b"E", f"S{severity}\0C{code}\0M{message}\0\0".encode())


def _notice(message: str) -> bytes:
    return _framed(b"N", f"SINFO\0C00000\0M{message}\0\0".encode())


def _fields(body: bytes) -> dict[str, str]:
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def _as_redshift(body: bytes) -> tuple[bytes, bytes]:
    """The rule for bytes is a check here, and a property of the type there."""
    fields = _fields(body)
    if fields.get("C") == "23514" and "bytes of " in fields.get("M", ""):
        fields |= {"C": "22001", "M": "value too long for type character varying"}
    return b"E", "".join(f"{key}{value}\0" for key, value in fields.items()).encode() + b"\0"


def _row(body: bytes) -> list[str | None]:
    (count,) = struct.unpack("!h", body[:2])
    at, row = 2, list[str | None]()
    for _ in range(count):
        (size,) = struct.unpack("!i", body[at : at + 4])
        row.append(None if size < 0 else body[at + 4 : at + 4 + size].decode())
        at += 4 + max(size, 0)
    return row


def _field(value: str | None) -> str:
    if value is None:
        return "\\N"
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[0] == '"' else name.lower()


def _no_nul(text: str) -> str:
    return text.replace("\0", "")
