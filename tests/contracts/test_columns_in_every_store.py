"""The 131 columns in every store: each under its name, in its place, and with the store's type for it.

What a store calls a type stands here once more, so that nothing of it comes from the code that makes the tables. OpenSearch's
columns are asked for in test_opensearch.py, where its server runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.contracts import postgres_bench, redshift_bench, s3_bench
from tests.contracts.test_target_contract import SqliteBench, batch_of, event_of
from tests.peers.postgres_server import PostgresServer
from tests.peers.redshift_double import RedshiftDouble

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[2] / "protocol" / "columns.json"
CANONICAL: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["columns"]
Told = list[tuple[str, str]]  # name and type of each column, in their order

SQLITE = {
    "string": "TEXT",
    "uuid": "TEXT",
    "timestamp": "TEXT",
    "json": "TEXT",
    "integer": "INTEGER",
    "boolean": "INTEGER",
    "decimal": "NUMERIC",
    "float": "REAL",
}
PARQUET = {
    "string": "string",
    "uuid": "string",
    "timestamp": "timestamp[ms, tz=UTC]",
    "json": "string",
    "integer": "int32",
    "boolean": "bool",
    "decimal": "decimal128(18, 2)",
    "float": "double",
}
# Its text has no length: enrichment watches that, and here it would stop a batch.
POSTGRES = {
    "string": "character varying",
    "uuid": "uuid",
    "timestamp": "timestamp without time zone",
    "json": "jsonb",
    "integer": "integer",
    "boolean": "boolean",
    "decimal": "numeric(18,2)",
    "float": "double precision",
}
# The double keeps SUPER as jsonb.
REDSHIFT = {
    **POSTGRES,
    "string": "character varying({max_length})",
    "uuid": "character({max_length})",
}
# Texts of a length that is always the same, and those that Snowplow's table keeps shorter than the protocol lets them be.
REDSHIFT_OWN = {
    "geo_country": "character(2)",
    "geo_region": "character(3)",
    **dict.fromkeys(("tr_currency", "ti_currency", "base_currency"), "character(3)"),
    **dict.fromkeys(("page_url", "page_referrer"), "character varying(4096)"),
    "mkt_clickid": "character varying(128)",
}
# The one decimal that is no money: two decimals would not do for it.
NO_MONEY = {"se_value": "double precision"}
# When a row came is Redshift's own to tell, at the end.
LOADED = ("load_tstamp", "timestamp without time zone")


def wanted(types: Mapping[str, str], own: Mapping[str, str], without: tuple[str, ...] = ()) -> Told:
    """types: by canonical type. own: by name, of columns that have another. without: types that the store has no column of."""
    columns = [column for column in CANONICAL if column["type"] not in without]
    return [(column["name"], own.get(column["name"]) or types[column["type"]].format_map(column)) for column in columns]


def in_file(folder: Path, request: pytest.FixtureRequest) -> SqliteBench:
    return SqliteBench(folder)


def in_sqlite(bench: Any) -> Told:
    return [(row["name"], row["type"]) for row in bench.rows("PRAGMA table_info(events)")]


def in_parquet(bench: Any) -> Told:
    """As the file itself has them."""
    (name,) = [one.name for one in bench.objects().list("events/")]
    return [(field.name, str(field.type)) for field in pq.read_schema(pa.BufferReader(bench.objects().get(name)))]


def in_catalog(bench: Any) -> Told:
    rows = bench.rows(
        "SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute"
        " WHERE attrelid = 'events'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return [tuple(row.values()) if isinstance(row, dict) else row for row in rows]


def redshift_with(entities: str) -> Callable[[Path, pytest.FixtureRequest], Any]:
    return lambda _, request: redshift_bench.RedshiftBench(request.getfixturevalue("redshift"), entities=entities)


class Store(NamedTuple):
    bench: Callable[[Path, pytest.FixtureRequest], Any]
    told: Callable[[Any], Told]
    wanted: Told


STORES = {
    "sqlite": Store(in_file, in_sqlite, wanted(SQLITE, {})),
    "parquet": Store(s3_bench.in_folder, in_parquet, wanted(PARQUET, {"se_value": "double"})),
    "postgres": Store(postgres_bench.plain, in_catalog, wanted(POSTGRES, NO_MONEY)),
    "postgres_months": Store(postgres_bench.by_month, in_catalog, wanted(POSTGRES, NO_MONEY)),
    "redshift_super": Store(redshift_with("super"), in_catalog, [*wanted(REDSHIFT, NO_MONEY | REDSHIFT_OWN), LOADED]),
    # Self-describing parts have tables of their own there.
    "redshift_tables": Store(
        redshift_with("tables"), in_catalog, [*wanted(REDSHIFT, NO_MONEY | REDSHIFT_OWN, without=("json",)), LOADED]
    ),
}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def redshift(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    with RedshiftDouble(tmp_path_factory.mktemp("redshift"), postgres=postgres) as double, double.s3.in_environment():
        double.s3.bucket(redshift_bench.BUCKET)
        yield double


@pytest.mark.parametrize("name", STORES)
def test_the_columns_are_the_canonical_ones_in_its_own_types(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert len(CANONICAL) == 131
    store = STORES[name]
    bench = store.bench(tmp_path, request)
    target = bench.open()
    try:
        assert target.commit(batch_of(event_of(1))).stored == 1
        assert store.told(bench) == store.wanted
    finally:
        target.close()
