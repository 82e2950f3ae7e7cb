"""The views email_opens, email_clicks and email_campaigns in PostgreSQL: the same columns and rows as storage/emails.py has.

SQL text only. `machine` is a boolean here, counts are bigint.
"""

from __future__ import annotations

_AGENT = "iglu:io.spoorway/email_agent/jsonschema/1-"
_REDIRECT = "iglu:com.snowplowanalytics.snowplow/uri_redirect/jsonschema/1-"
_BURST_MS, _TRAP_MS = 2_000, 60_000
_LABELS = ("human_likely", "privacy_proxy", "prefetch", "scanner", "unknown")

# Whatever fetched without a reader's doing: the mail had only arrived.
_MACHINE = (
    "(label IN ('prefetch', 'scanner') OR (label = 'privacy_proxy' AND fetched_at IS NOT DISTINCT FROM 'delivery')) AS machine"
)


def _events(name: str, *more: str) -> str:
    """Found by index events_self_describing."""
    sent = "round(extract(epoch FROM e.collector_tstamp) * 1000)::bigint"
    told_ms = "CASE WHEN jsonb_typeof(x.d -> 'sent_ms') = 'number' THEN (x.d -> 'sent_ms')::numeric END"
    columns = [
        *("e.event_id", "e.collector_tstamp", "e.app_id"),
        *(f"x.d ->> '{field}' AS {field}" for field in ("campaign", "message", "recipient")),
        f"(({sent} - {told_ms}) / 1000.0)::double precision AS seconds_after_sending",
        *more,
        "coalesce(a.d ->> 'label', 'unknown') AS label",
        *(f"a.d ->> '{field}' AS {field}" for field in ("rule", "provider", "fetched_at")),
        f"{sent} AS collector_ms",
    ]
    return (
        f"SELECT {', '.join(columns)} FROM events AS e"
        " CROSS JOIN LATERAL (SELECT e.unstruct_event #> '{data,data}' AS d OFFSET 0) AS x"
        " LEFT JOIN LATERAL (SELECT p.value -> 'data' AS d FROM jsonb_array_elements(e.derived_contexts -> 'data') AS p(value)"
        f" WHERE starts_with(p.value ->> 'schema', '{_AGENT}')) AS a ON true"
        f" WHERE e.event = 'unstruct' AND e.event_vendor = 'io.spoorway' AND e.event_name = '{name}'"
        " AND starts_with(e.event_version, '1-')"
    )


_TARGET = (
    "(SELECT c.value #>> '{data,uri}' FROM jsonb_array_elements(e.contexts -> 'data') AS c(value)"
    f" WHERE starts_with(c.value ->> 'schema', '{_REDIRECT}') LIMIT 1) AS target"
)
_SHOWN = "event_id, collector_tstamp, app_id, campaign, message, recipient, seconds_after_sending"


def _around(rules: str, ms: int) -> str:
    """Whether one of these rules labelled a click of the same copy at most so long before or after."""
    return (
        f"coalesce(bool_or(rule IN ({rules})) OVER (PARTITION BY app_id, campaign, message ORDER BY collector_ms"
        f" RANGE BETWEEN {ms} PRECEDING AND {ms} FOLLOWING), false)"
    )


def _counts(noun: str) -> str:
    mine, clean = f"kind = '{noun}'", f"kind = '{noun}' AND NOT machine"
    by_label = ", ".join(f"count(*) FILTER (WHERE {mine} AND label = '{label}') AS {noun}s_{label}" for label in _LABELS)
    return (
        f"count(*) FILTER (WHERE {mine}) AS {noun}s, count(*) FILTER (WHERE {clean}) AS {noun}s_without_machines,"
        f" count(DISTINCT message) FILTER (WHERE {mine}) AS messages_{noun}ed,"
        f" count(DISTINCT message) FILTER (WHERE {clean}) AS messages_{noun}ed_without_machines, {by_label}"
    )


VIEWS = (
    f"""CREATE VIEW email_opens AS
SELECT {_SHOWN}, label, rule, provider, fetched_at, {_MACHINE}
FROM ({_events("email_open")}) AS told""",
    f"""CREATE VIEW email_clicks AS
WITH told AS ({_events("email_click", "x.d ->> 'link' AS link", _TARGET)}),
around AS (
    SELECT *, message IS NOT NULL AND {_around("'honeypot'", _TRAP_MS)} AS trapped,
        message IS NOT NULL AND {_around("'burst'", _BURST_MS)} AS hurried
    FROM told
)
SELECT {_SHOWN}, link, target, label, rule, provider, fetched_at, {_MACHINE}
FROM (
    SELECT {_SHOWN}, link, target, provider, fetched_at,
        CASE WHEN trapped OR hurried THEN 'scanner' ELSE label END AS label,
        CASE WHEN rule = 'honeypot' THEN rule WHEN trapped THEN 'honeypot_nearby' WHEN hurried THEN 'burst' ELSE rule END AS rule
    FROM around
) AS seen""",
    f"""CREATE VIEW email_campaigns AS
SELECT app_id, campaign, {_counts("open")}, {_counts("click")}
FROM (
    SELECT 'open' AS kind, app_id, campaign, message, label, machine FROM email_opens
    UNION ALL
    SELECT 'click', app_id, campaign, message, label, machine FROM email_clicks
) AS told GROUP BY app_id, campaign""",
)
