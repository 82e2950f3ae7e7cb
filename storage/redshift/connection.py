"""One connection to Redshift, opened when it is needed and again when it was lost; the driver's errors -> ours.

Transactions are the driver's: the first statement begins one. Every transaction that writes locks the state's table first, so
writers of one schema take turns and none meets Redshift's serialization errors. A commit whose outcome is not known raises
TransientError like any other; who offers the same batch again is told what happened.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

from protocol.seams import ConfigurationError, PermanentError, TransientError

driver: Any = import_module("redshift_connector")

# Classes of SQLSTATE that another attempt meets again: who we are, what we may do, what there is, what was said.
_LASTING = {"28", "3D", "3F", "42", "0A"}
_LOST = (OSError, struct.error, EOFError)
_MOST_TRANSACTIONS = 500  # of one connection: the driver keeps the text of every statement that it ever ran


@dataclass(frozen=True, slots=True)
class Config:
    """host, port, database, user, password: of the cluster or workgroup. password_file: its text, read for each connection.

    iam: temporary credentials in place of a password, for `user` of the provisioned `cluster`, or of the serverless
    `workgroup`. tls: encrypted, the server's name and certificate checked. timeout_s: the longest a statement may take.
    schema: where the tables are. url: s3://BUCKET/PREFIX for what is loaded. endpoint: of a store that is not Amazon's.
    region: of the bucket, and with iam of the cluster; profile: in ~/.aws; both "" = as the AWS command line finds them.
    role: ARN of the role, or "default", by which Redshift reads the bucket; "" = with the keys that it is written with.
    entities: a table per schema, or SUPER columns in `events`. too_long: an event with a text that its column cannot hold
    fails, or the text is cut. every_s: less than a full batch waits so long for more. remember_days: so long an
    event that was erased or has expired is known as a duplicate when it comes again. batch_payloads, batch_bytes: of one load.
    """

    host: str = ""
    port: int = 5439
    database: str = "dev"
    user: str = ""
    password: str = ""
    password_file: str = ""
    iam: bool = False
    cluster: str = ""
    workgroup: str = ""
    tls: bool = True
    timeout_s: float = 900.0
    schema: str = "atomic"
    url: str = ""
    endpoint: str = ""
    region: str = ""
    profile: str = ""
    role: str = ""
    entities: Literal["tables", "super"] = "tables"
    too_long: Literal["fail", "cut"] = "fail"
    every_s: float = 60.0
    remember_days: float = 7.0
    batch_payloads: int = 20_000
    batch_bytes: int = 33_554_432


class Session:
    """What a transaction is used by."""

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()

    def run(self, sql: str, *values: object) -> None:
        self._cursor.execute(sql, values or None)

    def named(self, sql: str, values: Mapping[str, object]) -> tuple[list[str], list[list[Any]]]:
        """Of a statement with %(name)s in it: the names of its columns, and the rows."""
        self._cursor.paramstyle = "pyformat"
        self._cursor.execute(sql, dict(values))
        return [column[0] for column in self._cursor.description], [list(row) for row in self._cursor.fetchall()]

    def ask(self, sql: str, *values: object) -> list[list[Any]]:
        self._cursor.execute(sql, values or None)
        rows: list[list[Any]] = [list(row) for row in self._cursor.fetchall()]
        return rows


class Link:
    """Call order: `Link(config, prepare)` -> `transaction` repeatedly -> `close`. One thread at a time.

    prepare: called with each new connection before anything else. Nothing connects before the first transaction.
    """

    def __init__(self, config: Config, prepare: Callable[[Session], None]) -> None:
        """Raises ConfigurationError."""
        self._config, self._prepare = config, prepare
        self._connection: Any = None
        self._transactions = 0
        options(config)

    @contextmanager
    def transaction(self) -> Generator[Session]:
        """Commits at its end, or has changed nothing. Raises TransientError, PermanentError."""
        with self._translating():
            connection = self._connected()
            try:
                yield Session(connection)
                connection.commit()
            except BaseException:
                try:
                    connection.rollback()
                except (driver.Error, *_LOST):
                    self.close()  # which ends the transaction as well
                raise

    def alone(self, sql: str) -> None:
        """Runs a statement that Redshift takes outside of transactions only."""
        with self._translating():
            connection = self._connected()
            connection.autocommit = True
            try:
                Session(connection).run(sql)
            finally:
                connection.autocommit = False

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(driver.Error, *_LOST):
                connection.close()

    def _connected(self) -> Any:
        self._transactions += 1
        if self._transactions > _MOST_TRANSACTIONS:
            self.close()
        if self._connection is None:
            connection = driver.connect(**options(self._config))
            try:
                self._prepare(Session(connection))
                connection.commit()
            except BaseException:
                with suppress(driver.Error, *_LOST):
                    connection.close()
                raise
            self._connection, self._transactions = connection, 1
        return self._connection

    @contextmanager
    def _translating(self) -> Generator[None]:
        try:
            yield
        except driver.Error as error:
            if _fields(error).get("C") is None:
                self.close()
            raise self._translated(error) from error
        except _LOST as error:
            self.close()
            raise TransientError(f"redshift {self._config.host}: {error or type(error).__name__}") from error

    def _translated(self, error: Exception) -> TransientError | PermanentError:
        fields = _fields(error)
        code, text = fields.get("C"), " ".join(fields.get("M", str(error)).split())
        lasting = code is not None and code[:2] in _LASTING
        return (PermanentError if lasting else TransientError)(f"redshift {self._config.host}: {text}")


def options(config: Config) -> dict[str, Any]:
    """What the driver is handed. Raises ConfigurationError."""
    if not config.host and not (config.iam and (config.cluster or config.workgroup)):
        raise ConfigurationError("redshift: host is empty; name the endpoint, or iam = true with cluster or workgroup")
    if not config.user and not config.workgroup:
        raise ConfigurationError("redshift: user is empty; name the database user that owns the schema")
    if config.iam and not config.tls:
        raise ConfigurationError("redshift: iam needs tls = true")
    given: dict[str, Any] = {
        "host": config.host or None,
        "port": config.port,
        "database": config.database,
        "ssl": config.tls,
        "timeout": config.timeout_s,
        "application_name": "spoorway",
        "tcp_keepalive_idle": 30,
        "tcp_keepalive_interval": 10,
        "tcp_keepalive_count": 6,
        "max_prepared_statements": 0,
    }
    if config.tls:
        given["sslmode"] = "verify-full"
    if config.iam:
        # "" of host, cluster and region: the driver asks AWS, or takes them from the host's name.
        about = {"region": config.region, "profile": config.profile, "cluster_identifier": config.cluster}
        about |= {"serverless_work_group": config.workgroup, "db_user": config.user}
        given |= {"iam": True, "is_serverless": bool(config.workgroup)} | {name: value for name, value in about.items() if value}
        return given
    return given | {"user": config.user, "password": _password(config)}


def _password(config: Config) -> str:
    if not config.password_file:
        return config.password
    try:
        return Path(config.password_file).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"redshift: password_file: {config.password_file}: {cause}") from None


def _fields(error: Exception) -> dict[str, str]:
    """Of the server's error message; empty when the error is the driver's own."""
    about: Any = error.args[0] if error.args else None
    return cast(dict[str, str], about) if isinstance(about, dict) else {}
