"""Files of an S3 target, or archived payloads -> tables in DuckDB, to be asked and not to be written; no extension is needed.

What is asked are the files that count at this moment (storage/lake), by columns and rows as far as the question goes. Nothing a
question says can read another file, write one or load code. Imports duckdb and pyarrow.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from protocol.seams import ConfigurationError, RawPayload
from storage import lake
from storage.archive import Archive, Entry
from storage.failed import FailedRow
from storage.objects import Objects
from storage.rows import timestamp

try:
    duckdb: Any = import_module("duckdb")
    pa: Any = import_module("pyarrow")
    dataset: Any = import_module("pyarrow.dataset")
    fs: Any = import_module("pyarrow.fs")
    pq: Any = import_module("pyarrow.parquet")
except ModuleNotFoundError as missing:
    raise ConfigurationError(f"this needs {missing.name}; install spoorway[duckdb]") from None

_ROWS = 10_000  # of an answer, or of payloads, in memory at a time
_FAILED = (*FailedRow._fields, "payload")


class Store(NamedTuple):
    """Where an S3 target keeps its files; see its Config."""

    url: str
    endpoint: str = ""
    region: str = ""
    profile: str = ""


class Asked:
    """`with Asked() as asked`, then `add` tables, then `ask` questions."""

    def __init__(self, space: str) -> None:
        """space: what the tables are known by, as in atomic.events; alone their names will do."""
        self._kept = ExitStack()
        self._db = self._kept.enter_context(duckdb.connect())
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute(f"ATTACH ':memory:' AS {space}")
        self._space = space

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kept.close()

    def folder(self) -> Path:
        """One of its own, which goes with it."""
        return Path(self._kept.enter_context(TemporaryDirectory(prefix="spoorway-")))

    def add(self, name: str, table: Any) -> None:
        """table: of Arrow, or a dataset of its."""
        self._db.register(f"{name}_files", table)
        self._db.execute(f"CREATE VIEW {self._space}.{name} AS SELECT * FROM temp.{name}_files")

    def ask(self, question: str) -> tuple[list[str], Iterator[list[object]]]:
        """The columns' names, and the rows, as they are told to people. Raises ConfigurationError."""
        try:
            self._db.execute(f"USE {self._space}")
            self._db.execute("SET python_enable_replacements = false; SET enable_external_access = false")
            self._db.execute("SET lock_configuration = true")
            statements = self._db.extract_statements(question)
            if len(statements) != 1 or statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
                raise ConfigurationError("that is no question: only one SELECT is answered here")
            answer = self._db.sql(question).to_arrow_reader(_ROWS)
        except duckdb.Error as error:
            raise ConfigurationError(_one_line(error)) from None
        return list(answer.schema.names), self._told(answer)

    def _told(self, answer: Any) -> Iterator[list[object]]:
        try:
            for batch in answer:
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield [_told(value) for value in row]
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise ConfigurationError(_one_line(error)) from None


def open_lake(objects: Objects, store: Store) -> Asked:
    """atomic.events, with `day` and `name` of its partition, and atomic.failed_events. Parquet only.

    Raises ConfigurationError, TransientError, PermanentError.
    """
    live, _ = lake.sorted_out(objects.list(f"{lake.EVENTS}/"))
    if not live and next(lake.pieces(objects.list(f"{lake.TSV}/")), None) is not None:
        raise ConfigurationError(f'{store.url} holds TSV alone; format = "parquet" or "both" is what can be asked here')
    asked = Asked("atomic")
    asked.add("events", _events(objects, store, [piece.name for piece in live]))
    asked.add("failed_events", pa.table(dict(zip(_FAILED, _failed(objects), strict=True)), schema=_failed_schema()))
    return asked


def open_archive(archive: Archive, told: Callable[[Sequence[Entry]], Iterable[Entry]] = iter) -> Asked:
    """archive.payloads: what was received, as it was received. told: goes over the segments, to show how far it is.

    The segments are unpacked into a temporary folder first, a few thousand payloads in memory at a time.
    """
    asked = Asked("archive")
    folder = asked.folder()
    paths: list[str] = []
    for number, entry in enumerate(told(list(archive.entries()))):
        segment, path = folder / "segment", folder / f"{number:08d}.parquet"
        archive.fetch(entry, segment)
        with pq.ParquetWriter(path, _payload_schema(), compression="zstd", compression_level=1) as writer:
            for rows in _in_pieces(_payloads(segment, entry.lane, entry.segment)):
                columns = dict(zip(_payload_schema().names, zip(*rows, strict=True), strict=True))
                writer.write_table(pa.table(columns, schema=_payload_schema()))
        paths.append(str(path))
    asked.add("payloads", dataset.dataset(paths, schema=_payload_schema(), format="parquet"))
    return asked


def _events(objects: Objects, store: Store, names: Sequence[str]) -> Any:
    from storage.lake.parquet import schema

    partition = pa.schema([("day", pa.date32()), ("name", pa.string())])
    files: Any = fs.LocalFileSystem()
    root = objects.url(lake.EVENTS)
    if store.url.startswith("s3://"):
        files, root = _s3(store), root.removeprefix("s3://")
    return dataset.dataset(
        [f"{root}{name.removeprefix(lake.EVENTS)}" for name in names],
        schema=pa.schema([*schema(), *partition]),
        format="parquet",
        filesystem=files,
        partitioning=dataset.partitioning(partition, flavor="hive"),
        partition_base_dir=root,
    )


def _s3(store: Store) -> Any:
    """Arrow's own S3, with the credentials that the rest of us use."""
    session: Any = import_module("boto3").Session(profile_name=store.profile or None, region_name=store.region or None)
    options: dict[str, Any] = {"region": session.region_name} if session.region_name else {}
    endpoint = urlsplit(store.endpoint or session.client("s3").meta.endpoint_url)
    if not (endpoint.hostname or "").endswith(".amazonaws.com"):
        options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
    found = session.get_credentials()
    if found is not None:
        keys = found.get_frozen_credentials()
        options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
    return fs.S3FileSystem(**options)


def _failed(objects: Objects) -> list[list[object]]:
    """A list per column."""
    columns: list[list[object]] = [[] for _ in _FAILED]
    for piece in lake.sorted_out(objects.list(f"{lake.FAILED}/"))[0]:
        for line in gzip.decompress(objects.get(piece.name)).splitlines():
            row = cast(dict[str, object], json.loads(line))
            for column, name in zip(columns, _FAILED, strict=True):
                column.append(row.get(name))
    return columns


def _failed_schema() -> Any:
    return pa.schema([(name, pa.int64() if name == "event_index" else pa.string()) for name in _FAILED])


def _payload_schema() -> Any:
    texts = ("transport", "path", "query", "content_type", "headers", "ip", "host", "network_userid", "device", "body")
    times = [("received_tstamp", pa.timestamp("ms", "UTC")), ("lane", pa.string()), ("segment", pa.int64())]
    return pa.schema([("id", pa.string()), *times, *((name, pa.string()) for name in texts), ("body_bytes", pa.binary())])


def _payloads(path: Path, lane: str, segment: int) -> Iterator[tuple[object, ...]]:
    from gateway.journal.disk import DISK
    from gateway.journal.lines import decode, decode_damage, pieces
    from gateway.journal.sealing import SealedSegment

    sealed = SealedSegment(path, DISK)
    try:
        size, at = sealed.size(), 0
        while at < size:
            block, at, whole = sealed.read(at, size)
            for start, end, good in pieces(block, True) if whole else ():
                if not good:
                    continue
                try:
                    _, payload = decode(block[start:end])
                except ValueError:
                    if decode_damage(block[start:end]) is None:
                        raise
                    continue
                yield _payload_row(payload, lane, segment)
    finally:
        sealed.close()


def _payload_row(payload: RawPayload, lane: str, segment: int) -> tuple[object, ...]:
    text: str | None = None
    if payload.body is not None:
        try:
            text = payload.body.decode()
        except UnicodeDecodeError:
            text = None  # then there are only the bytes
    headers = json.dumps(payload.headers, ensure_ascii=False)
    where = (payload.id, payload.received_ms, lane, segment, payload.transport, payload.path, payload.query)
    who = (payload.content_type, headers, payload.ip, payload.host, payload.network_userid, payload.device)
    return (*where, *who, text, payload.body)


def _in_pieces(rows: Iterable[tuple[object, ...]]) -> Iterator[list[tuple[object, ...]]]:
    piece: list[tuple[object, ...]] = []
    for row in rows:
        piece.append(row)
        if len(piece) == _ROWS:
            yield piece
            piece = []
    if piece:
        yield piece


def _told(value: Any) -> object:
    """Times and money as the SQLite store tells them; what SQLite does not have, as text."""
    if isinstance(value, datetime):
        return timestamp(round(value.timestamp() * 1000)) if value.tzinfo else str(value)
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, str | int | float | bytes) else str(cast(date, value))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
