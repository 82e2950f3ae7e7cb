"""The tables of the schema that hold no entities: events, failed events, the manifest, and where the loader stands.

Pure: SQL text, a statement each. A table that exists already (of an earlier Snowplow loader, for instance) is left as it is; the
columns of `events` that it lacks are added. Redshift enforces NOT NULL, and no key.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.tables import COLUMNS
from storage.redshift.tables import Column, quoted

VERSION = 2
NAMES = frozenset(
    (
        *("events", "failed_events", "failed_payloads", "dropped_events", "manifest"),
        *("spoorway_columns", "spoorway_gone", "spoorway_erasures", "spoorway_state"),
    )
)

# All of the 131 columns; those that Redshift's canonical table has no place for are SUPER.
EVERY = tuple(Column(c.name, c.redshift or "super", ()) for c in COLUMNS)
CANONICAL = tuple(column for column in EVERY if column.kind != "super")
REQUIRED = frozenset(column.name for column in COLUMNS if column.required)

FAILED = (
    Column("failed_id", "varchar(128)", ()),
    Column("payload_id", "varchar(128)", ()),
    Column("event_index", "int", ()),
    Column("kind", "varchar(128)", ()),
    Column("reasons", "varchar(65535)", ()),
    Column("first_reason", "varchar(4096)", ()),
    Column("app_id", "varchar(255)", ()),
    Column("event_name", "varchar(1000)", ()),
    Column("v_tracker", "varchar(100)", ()),
    Column("collector_tstamp", "timestamp", ()),
    Column("failed_tstamp", "timestamp", ()),
    Column("parameters", "varchar(65535)", ()),
    Column("event", "varchar(65535)", ()),
    Column("replayed_tstamp", "timestamp", ()),
)
PAYLOADS = (
    Column("payload_id", "varchar(128)", ()),
    Column("part", "int", ()),
    Column("payload", "varchar(65535)", ()),
)


def create(schema: str, events: Sequence[Column]) -> list[str]:
    """The statements that make all tables in a schema. events: columns of that table, see CANONICAL and EVERY."""
    name = quoted(schema)
    return [
        f"CREATE TABLE IF NOT EXISTS {name}.events (\n    "
        + ",\n    ".join(map(_event_column, events))
        + ",\n    load_tstamp TIMESTAMP DEFAULT GETDATE() ENCODE ZSTD,\n    PRIMARY KEY (event_id)\n)\n"
        "DISTSTYLE KEY\nDISTKEY (event_id)\nSORTKEY (collector_tstamp)",
        f"CREATE TABLE IF NOT EXISTS {name}.failed_events ({_plain(FAILED)}) DISTSTYLE EVEN SORTKEY (failed_tstamp)",
        f"CREATE TABLE IF NOT EXISTS {name}.failed_payloads ({_plain(PAYLOADS)}) DISTSTYLE EVEN",
        f"CREATE TABLE IF NOT EXISTS {name}.dropped_events (failed_id VARCHAR(128) ENCODE ZSTD, kind VARCHAR(128) ENCODE ZSTD,"
        " collector_tstamp TIMESTAMP ENCODE ZSTD, dropped_tstamp TIMESTAMP ENCODE ZSTD) DISTSTYLE EVEN",
        # A row per load that brought events, in the shape the Snowplow loaders write it.
        f"CREATE TABLE IF NOT EXISTS {name}.manifest (base VARCHAR(512) NOT NULL, types VARCHAR(65535) NOT NULL,"
        " shredding_started TIMESTAMP, shredding_completed TIMESTAMP, min_collector_tstamp TIMESTAMP,"
        " max_collector_tstamp TIMESTAMP, ingestion_tstamp TIMESTAMP NOT NULL, compression VARCHAR(16) NOT NULL,"
        " processor_artifact VARCHAR(64) NOT NULL, processor_version VARCHAR(32) NOT NULL, count_good INT, PRIMARY KEY (base))"
        " DISTSTYLE EVEN",
        # The columns of the tables of entities, as they were made.
        f"CREATE TABLE IF NOT EXISTS {name}.spoorway_columns (family VARCHAR(512) NOT NULL, table_name VARCHAR(128) NOT NULL,"
        " position INT NOT NULL, column_name VARCHAR(128) NOT NULL, kind VARCHAR(64) NOT NULL, path VARCHAR(65535) NOT NULL)"
        " DISTSTYLE ALL",
        *_removals(schema),
        # One row. lanes: the cursor. mark: names the last batch, so that the same one offered again is known; the last_ columns
        # are what it counted. Last of all tables, so that where it exists all of them do.
        f"CREATE TABLE IF NOT EXISTS {name}.spoorway_state (version INT NOT NULL, lanes VARCHAR(65535) NOT NULL,"
        " payloads BIGINT NOT NULL, stored BIGINT NOT NULL, failed BIGINT NOT NULL, duplicate BIGINT NOT NULL,"
        " dropped BIGINT NOT NULL, erased BIGINT NOT NULL, mark VARCHAR(64) NOT NULL, last_payloads BIGINT NOT NULL,"
        " last_stored BIGINT NOT NULL, last_failed BIGINT NOT NULL, last_duplicate BIGINT NOT NULL, last_erased BIGINT NOT NULL,"
        " expired BIGINT NOT NULL)"
        " DISTSTYLE ALL",
        f"INSERT INTO {name}.spoorway_state SELECT {VERSION}, '{{}}', 0, 0, 0, 0, 0, 0, '', 0, 0, 0, 0, 0, 0"
        f" FROM (SELECT count(*) AS n FROM {name}.spoorway_state) AS there WHERE n = 0",
    ]


def upgrade(schema: str, version: int) -> list[str]:
    """From an older version to this one; to be run in the transaction that looked."""
    if version >= VERSION:
        return []
    state = f"{quoted(schema)}.spoorway_state"
    return [
        *_removals(schema),
        f"ALTER TABLE {state} ADD COLUMN expired BIGINT NOT NULL DEFAULT 0",
        f"UPDATE {state} SET version = {VERSION}",
    ]


def _removals(schema: str) -> list[str]:
    """Ids of what was erased or has expired lately, so that it does not come again; and what each erasure removed."""
    name = quoted(schema)
    return [
        f"CREATE TABLE IF NOT EXISTS {name}.spoorway_gone (event_id CHAR(36) NOT NULL ENCODE ZSTD, event_fingerprint VARCHAR(128)"
        " ENCODE ZSTD, gone_ms BIGINT NOT NULL) DISTSTYLE KEY DISTKEY (event_id) SORTKEY (gone_ms)",
        f"CREATE TABLE IF NOT EXISTS {name}.spoorway_erasures (erasure_id VARCHAR(128) NOT NULL, events BIGINT NOT NULL,"
        " failed BIGINT NOT NULL) DISTSTYLE ALL",
    ]


def _event_column(column: Column) -> str:
    encoding = {"collector_tstamp": " ENCODE RAW"}.get(column.name, "" if column.kind == "super" else " ENCODE ZSTD")
    return f"{column.name} {column.kind.upper()}{encoding}{' NOT NULL' if column.name in REQUIRED else ''}"


def _plain(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} {column.kind.upper()} ENCODE ZSTD" for column in columns)
