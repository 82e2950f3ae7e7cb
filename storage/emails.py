"""The views email_opens, email_clicks and email_campaigns: openings and clicks of emails, with machines and without.

SQL text only. Every opening and click is a row; who made it is told by the entity email_agent, and by what was followed
around it: what a machine did a moment earlier, it cannot have said yet when that event was stored.
"""

from __future__ import annotations

_AGENT = "iglu:io.spoorway/email_agent/jsonschema/1-"
_REDIRECT = "iglu:com.snowplowanalytics.snowplow/uri_redirect/jsonschema/1-"
_BURST_MS, _TRAP_MS = 2_000, 60_000
_LABELS = ("human_likely", "privacy_proxy", "prefetch", "scanner", "unknown")

# Whatever fetched without a reader's doing: the mail had only arrived.
_MACHINE = "label IN ('prefetch', 'scanner') OR (label = 'privacy_proxy' AND fetched_at IS 'delivery')"


def _told(name: str) -> str:
    return f"json_extract(e.unstruct_event, '$.data.data.{name}')"


def _agent(name: str) -> str:
    return f"json_extract(a.value, '$.data.{name}')"


def _events(name: str, *more: str) -> str:
    """Found by index events_self_describing."""
    copy = [f"{_told(field)} AS {field}" for field in ("campaign", "message", "recipient")]
    sent = "CAST(julianday(e.collector_tstamp) * 86400000 - 210866760000000 + 0.5 AS INTEGER)"
    agent = [f"{_agent(field)} AS {field}" for field in ("rule", "provider", "fetched_at")]
    columns = [
        *("e.event_id", "e.collector_tstamp", "e.app_id"),
        *copy,
        f"({sent} - {_told('sent_ms')}) / 1000.0 AS seconds_after_sending",
        *more,
        f"coalesce({_agent('label')}, 'unknown') AS label",
        *agent,
        f"{sent} AS collector_ms",
    ]
    return (
        f"SELECT {', '.join(columns)} FROM events AS e LEFT JOIN json_each(e.derived_contexts, '$.data') AS a"
        f" ON substr(json_extract(a.value, '$.schema'), 1, {len(_AGENT)}) = '{_AGENT}'"
        f" WHERE e.event = 'unstruct' AND e.event_vendor = 'io.spoorway' AND e.event_name = '{name}'"
        " AND e.event_version GLOB '1-*'"
    )


_TARGET = (
    "(SELECT json_extract(x.value, '$.data.uri') FROM json_each(e.contexts, '$.data') AS x"
    f" WHERE substr(json_extract(x.value, '$.schema'), 1, {len(_REDIRECT)}) = '{_REDIRECT}' LIMIT 1) AS target"
)
_SHOWN = "event_id, collector_tstamp, app_id, campaign, message, recipient, seconds_after_sending"


def _around(rules: str, ms: int) -> str:
    """Whether one of these rules labelled a click of the same copy at most so long before or after."""
    return (
        f"max(rule IN ({rules})) OVER (PARTITION BY app_id, campaign, message ORDER BY collector_ms"
        f" RANGE BETWEEN {ms} PRECEDING AND {ms} FOLLOWING)"
    )


def _counts(noun: str) -> str:
    by_label = ", ".join(f"sum(kind = '{noun}' AND label = '{label}') AS {noun}s_{label}" for label in _LABELS)
    return (
        f"sum(kind = '{noun}') AS {noun}s, sum(kind = '{noun}' AND NOT machine) AS {noun}s_without_machines,"
        f" count(DISTINCT CASE WHEN kind = '{noun}' THEN message END) AS messages_{noun}ed,"
        f" count(DISTINCT CASE WHEN kind = '{noun}' AND NOT machine THEN message END) AS messages_{noun}ed_without_machines,"
        f" {by_label}"
    )


VIEWS = (
    f"""CREATE VIEW email_opens AS
SELECT {_SHOWN}, label, rule, provider, fetched_at, ({_MACHINE}) AS machine
FROM ({_events("email_open")})""",
    # MATERIALIZED: else SQLite takes the JSON of an event apart again for each time that a column is named.
    f"""CREATE VIEW email_clicks AS
WITH told AS MATERIALIZED ({_events("email_click", f"{_told('link')} AS link", _TARGET)}),
around AS MATERIALIZED (
    SELECT *, coalesce(message IS NOT NULL AND {_around("'honeypot'", _TRAP_MS)}, 0) AS trapped,
        coalesce(message IS NOT NULL AND {_around("'burst'", _BURST_MS)}, 0) AS hurried
    FROM told
)
SELECT {_SHOWN}, link, target, label, rule, provider, fetched_at, ({_MACHINE}) AS machine
FROM (
    SELECT {_SHOWN}, link, target, provider, fetched_at,
        CASE WHEN trapped OR hurried THEN 'scanner' ELSE label END AS label,
        CASE WHEN rule = 'honeypot' THEN rule WHEN trapped THEN 'honeypot_nearby' WHEN hurried THEN 'burst' ELSE rule END AS rule
    FROM around
)""",
    f"""CREATE VIEW email_campaigns AS
WITH told AS MATERIALIZED (
    SELECT 'open' AS kind, app_id, campaign, message, label, machine FROM email_opens
    UNION ALL
    SELECT 'click', app_id, campaign, message, label, machine FROM email_clicks
)
SELECT app_id, campaign, {_counts("open")}, {_counts("click")}
FROM told GROUP BY app_id, campaign""",
)
