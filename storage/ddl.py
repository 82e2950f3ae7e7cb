"""The SQLite file's tables, by version: `PRAGMA user_version` counts the steps that were taken.

A step once released is never changed; a new version is a new step at the end.
"""

from __future__ import annotations

import sqlite3

from protocol.seams import PermanentError
from protocol.tables import COLUMNS
from storage import emails
from storage.failed import FailedRow
from storage.ledger import BOOT_COLUMNS, VIEWS

APPLICATION_ID = 0x53504F52  # "SPOR": tells our files from anybody else's

_FAILED_TYPES = {"event_index": "INTEGER", "failed_id": "TEXT PRIMARY KEY NOT NULL"}

_VERSION_1 = (
    "CREATE TABLE events ({})".format(
        ", ".join(f'"{c.name}" {c.sqlite}' + (" NOT NULL" if c.name == "event_id" else "") for c in COLUMNS)
    ),
    # One event, one row. A plain index of its own, because the table has exactly the canonical columns.
    "CREATE UNIQUE INDEX events_event_id ON events (event_id)",
    "CREATE INDEX events_collector_tstamp ON events (collector_tstamp)",
    # What the typed views read by: partial, so that page views and the like pay nothing for them.
    "CREATE INDEX events_self_describing ON events (event_vendor, event_name, collector_tstamp) WHERE event = 'unstruct'",
    "CREATE INDEX events_stray_unstruct ON events (collector_tstamp)"
    " WHERE unstruct_event IS NOT NULL AND event IS NOT 'unstruct'",
    "CREATE TABLE failed_events ({})".format(
        ", ".join(f"{name} {_FAILED_TYPES.get(name, 'TEXT')}" for name in FailedRow._fields)
    ),
    "CREATE INDEX failed_events_failed_tstamp ON failed_events (failed_tstamp)",
    "CREATE INDEX failed_events_payload_id ON failed_events (payload_id)",
    "CREATE TABLE failed_payloads (payload_id TEXT PRIMARY KEY NOT NULL, payload TEXT NOT NULL)",
    'CREATE TABLE cursors (lane TEXT PRIMARY KEY NOT NULL, segment INTEGER, "offset" INTEGER, sequence INTEGER)',
    # mark: names the last batch, so that the same one offered again is known; the last_ columns are what it counted.
    "CREATE TABLE totals (payloads INTEGER, stored INTEGER, failed INTEGER, duplicate INTEGER, mark TEXT,"
    " last_payloads INTEGER, last_stored INTEGER, last_failed INTEGER, last_duplicate INTEGER)",
    "INSERT INTO totals VALUES (0, 0, 0, 0, '', 0, 0, 0, 0)",
    "CREATE TABLE schemas (uri TEXT PRIMARY KEY NOT NULL, view_name TEXT NOT NULL, document TEXT)",
)

_VERSION_2 = (
    "ALTER TABLE totals ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0",
    # Failed events that somebody gave up: that they were, not what they held.
    "CREATE TABLE dropped_events (failed_id TEXT PRIMARY KEY NOT NULL, kind TEXT NOT NULL, collector_tstamp TEXT,"
    " dropped_tstamp TEXT)",
)

_VERSION_3 = (
    # The ledger of devices, see storage/ledger.py: stretches of sequence numbers that arrived without a hole,
    "CREATE TABLE device_runs (device TEXT NOT NULL, boot_id INTEGER NOT NULL, first_sequence INTEGER NOT NULL,"
    " last_sequence INTEGER NOT NULL, first_tstamp TEXT, last_tstamp TEXT, PRIMARY KEY (device, boot_id, first_sequence))"
    " WITHOUT ROWID",
    # and sums over each start of a device.
    "CREATE TABLE device_boots ({}, PRIMARY KEY (device, boot_id)) WITHOUT ROWID".format(
        ", ".join(f"{name} {kind}" for name, kind in BOOT_COLUMNS.items())
    ),
    *VIEWS,
)

# Openings and clicks of emails, see storage/emails.py.
_VERSION_4 = emails.VIEWS

# What was erased or has expired, see storage/removal.py.
_VERSION_5 = (
    "ALTER TABLE totals ADD COLUMN erased INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE totals ADD COLUMN expired INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE erasures (erasure_id TEXT PRIMARY KEY NOT NULL, events INTEGER NOT NULL, failed INTEGER NOT NULL)"
    " WITHOUT ROWID",
    # Ids of events that are gone, for as long as a tracker may send them again.
    "CREATE TABLE gone_events (event_id TEXT PRIMARY KEY NOT NULL, event_fingerprint TEXT, gone_ms INTEGER NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX gone_events_gone_ms ON gone_events (gone_ms)",
)

# The columns that people look at, newest first: what `spoorway explore` shows in place of 131.
_VERSION_6 = (
    """CREATE VIEW latest_events AS
SELECT collector_tstamp AS received, derived_tstamp AS happened, app_id, platform, event_name,
    coalesce(domain_userid, user_id, network_userid) AS visitor, coalesce(page_urlhost, '') || coalesce(page_urlpath, '') AS page,
    coalesce(mkt_source, refr_source, refr_urlhost) AS came_from, br_family AS browser, geo_country AS country, geo_city AS city,
    geo_latitude AS latitude, geo_longitude AS longitude, json_extract(unstruct_event, '$.data.data') AS data, event_id
FROM events ORDER BY collector_tstamp DESC""",
)

STEPS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6)


def migrate(db: sqlite3.Connection) -> None:
    """Bring the file to this version, inside the caller's transaction. Raises PermanentError for a file that is not ours."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    if version > len(STEPS):
        raise PermanentError(f"written by a newer Spoorway: file version {version}, this one knows up to {len(STEPS)}")
    if owner != APPLICATION_ID and db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        raise PermanentError("a database of another program; name a new file")
    for step in STEPS[version:]:
        for statement in step:
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(STEPS)}")
