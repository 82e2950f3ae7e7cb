"""The schema's tables, by version: the table `migrations` has a row for each step that was taken.

A step once released is never changed; a new version is a new step at the end. All names are unqualified: the connection's
search_path is the schema.
"""

from __future__ import annotations

from psycopg import sql

from protocol.seams import PermanentError
from protocol.tables import COLUMNS
from storage.failed import FailedRow
from storage.ledger import BOOT_COLUMNS, VIEWS
from storage.postgres import emails
from storage.postgres.connection import Config, Connection, take_turns

TABLES = (
    *("events", "failed_events", "failed_payloads", "dropped_events", "cursors", "schemas", "device_runs", "device_boots"),
    *("erasures", "gone_events"),
)

_FAILED_TYPES = {
    "failed_id": 'TEXT COLLATE "C" PRIMARY KEY',
    "payload_id": 'TEXT COLLATE "C" NOT NULL',
    "event_index": "INTEGER",
    **dict.fromkeys(("reasons", "parameters", "event"), "JSONB"),
    **dict.fromkeys(("collector_tstamp", "failed_tstamp", "replayed_tstamp"), "TIMESTAMP"),
}


def _event_type(postgres: str) -> str:
    # Lengths are enrichment's to watch, where they can be set; a column with one would stop the batch of a longer text.
    return "VARCHAR" if postgres.startswith("VARCHAR(") else postgres


def _boot_type(name: str, sqlite: str) -> str:
    if name.endswith("_tstamp"):
        return "TIMESTAMP"
    return sqlite.replace("TEXT", 'TEXT COLLATE "C"').replace("INTEGER", "BIGINT")


EVENTS = "CREATE TABLE events ({})".format(
    ", ".join(f'"{c.name}" {_event_type(c.postgres)}' + (" NOT NULL" if c.name == "event_id" else "") for c in COLUMNS)
)

_VERSION_1 = (
    "CREATE INDEX events_collector_tstamp ON events (collector_tstamp)",
    # What the typed views read by: partial, so that page views and the like pay nothing for them.
    "CREATE INDEX events_self_describing ON events (event_vendor, event_name, collector_tstamp) WHERE event = 'unstruct'",
    "CREATE INDEX events_stray_unstruct ON events (collector_tstamp)"
    " WHERE unstruct_event IS NOT NULL AND event IS DISTINCT FROM 'unstruct'",
    "CREATE TABLE failed_events ({})".format(
        ", ".join(f"{name} {_FAILED_TYPES.get(name, 'TEXT')}" for name in FailedRow._fields)
    ),
    "CREATE INDEX failed_events_failed_tstamp ON failed_events (failed_tstamp)",
    "CREATE INDEX failed_events_payload_id ON failed_events (payload_id, failed_id)",
    # payload: as text, because it may hold what jsonb refuses.
    'CREATE TABLE failed_payloads (payload_id TEXT COLLATE "C" PRIMARY KEY, payload TEXT NOT NULL)',
    # Failed events that somebody gave up: that they were, not what they held.
    'CREATE TABLE dropped_events (failed_id TEXT COLLATE "C" PRIMARY KEY, kind TEXT NOT NULL, collector_tstamp TIMESTAMP,'
    " dropped_tstamp TIMESTAMP)",
    'CREATE TABLE cursors (lane TEXT COLLATE "C" PRIMARY KEY, segment BIGINT NOT NULL, "offset" BIGINT NOT NULL,'
    " sequence BIGINT NOT NULL)",
    # mark: names the last batch, so that the same one offered again is known; the last_ columns are what it counted.
    "CREATE TABLE totals ({}, mark TEXT NOT NULL)".format(
        ", ".join(
            f"{name} BIGINT NOT NULL"
            for name in (
                *("payloads", "stored", "failed", "duplicate", "dropped", "erased", "expired"),
                *("last_payloads", "last_stored", "last_failed", "last_duplicate", "last_erased"),
            )
        )
    ),
    f"INSERT INTO totals VALUES ({'0, ' * 12}'')",
    'CREATE TABLE schemas (uri TEXT COLLATE "C" PRIMARY KEY, view_name TEXT NOT NULL, document JSONB)',
    # The ledger of devices, see storage/ledger.py: stretches of sequence numbers that arrived without a hole,
    'CREATE TABLE device_runs (device TEXT COLLATE "C", boot_id BIGINT, first_sequence BIGINT, last_sequence BIGINT NOT NULL,'
    " first_tstamp TIMESTAMP, last_tstamp TIMESTAMP, PRIMARY KEY (device, boot_id, first_sequence))",
    # and sums over each start of a device.
    "CREATE TABLE device_boots ({}, PRIMARY KEY (device, boot_id))".format(
        ", ".join(f"{name} {_boot_type(name, kind)}" for name, kind in BOOT_COLUMNS.items())
    ),
    *VIEWS,
    *emails.VIEWS,
)

# What was erased or has expired, see storage/postgres/removal.py.
_VERSION_2 = (
    'CREATE TABLE erasures (erasure_id TEXT COLLATE "C" PRIMARY KEY, events BIGINT NOT NULL, failed BIGINT NOT NULL)',
    "CREATE TABLE gone_events (event_id UUID PRIMARY KEY, event_fingerprint VARCHAR, gone_ms BIGINT NOT NULL)",
    "CREATE INDEX gone_events_gone_ms ON gone_events (gone_ms)",
)

STEPS = (_VERSION_1, _VERSION_2)


def migrate(db: Connection, config: Config) -> None:
    """Bring the schema to this version, in one transaction. Raises PermanentError for tables that are not ours or
    not as configured.
    """
    with db.transaction():
        version = _version(db, config.schema)
        if version < len(STEPS):
            take_turns(db, config.schema)
            # That a name is unknown is remembered until a table is opened: by now another process may have made everything.
            db.execute("SELECT FROM pg_class LIMIT 0")
            version = _version(db, config.schema)
        if version > len(STEPS):
            raise PermanentError(
                f"postgres {config.schema}: written by a newer Spoorway: version {version}, this one knows up to {len(STEPS)}"
            )
        if version == 0:
            _begin(db, config)
        for number, step in enumerate(STEPS[version:], version + 1):
            for statement in step:
                db.execute(statement.encode())
            db.execute("INSERT INTO migrations VALUES (%s, now())", (number,))
        partitioned = is_partitioned(db)
        if partitioned != (config.partition == "month"):
            made = 'with partitions; set partition = "month"' if partitioned else 'without partitions; set partition = ""'
            raise PermanentError(
                f"postgres {config.schema}: the table of events was made {made}, or name a new schema and fill it with"
                " `spoorway replay`"
            )


def is_partitioned(db: Connection) -> bool:
    """Whether `events` has a table per month. Raises psycopg.Error."""
    found = db.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = 'events'::regclass").fetchone()
    return bool(found and found[0])


def _begin(db: Connection, config: Config) -> None:
    """An empty schema, and what no later step makes."""
    if not db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (config.schema,)).fetchone():
        db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(config.schema)))
    if db.execute(
        "SELECT 1 FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relkind IN ('r', 'p', 'v', 'm', 'f')"
        " AND relname = ANY(%s)",
        (config.schema, ["migrations", "totals", *TABLES]),
    ).fetchone():
        raise PermanentError(f"postgres: the schema {config.schema} holds tables of another program; name a new one")
    db.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, taken TIMESTAMPTZ NOT NULL)")
    if config.partition:
        db.execute(f"{EVENTS} PARTITION BY RANGE (collector_tstamp)".encode())
    else:
        db.execute(EVENTS.encode())
        # One event, one row. A plain index of its own, because the table has exactly the canonical columns.
        db.execute("CREATE UNIQUE INDEX events_event_id ON events (event_id)")


def _version(db: Connection, schema: str) -> int:
    table = sql.SQL("{}.migrations").format(sql.Identifier(schema))
    found = db.execute("SELECT to_regclass(%s)", (table.as_string(db),)).fetchone()
    if found is None or found[0] is None:
        return 0
    row = db.execute(sql.SQL("SELECT coalesce(max(version), 0) FROM {}").format(table)).fetchone()
    return int(row[0]) if row else 0
