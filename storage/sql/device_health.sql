-- How are the devices: when were they heard last, how often did they start, what is missing, how sure is the time?
--
-- From the entity device_time of the events in the period, so losses before its first and after its last event of a start are not seen.
-- In the SQLite store the view device_health knows all of it.
--
-- group: devices
-- parameter: top integer 100  how many devices, the longest silent first
-- column: device          its name
-- column: last_seen       when it was heard last, UTC
-- column: silent_s        seconds since then, at the end of the period
-- column: starts          different boot ids
-- column: events          stored
-- column: missing         event numbers between those that arrived
-- column: exact_percent   events whose time is known and not bounded
-- column: widest_s        the widest bounds of a time
-- chart: bar x=device y=missing
WITH told AS MATERIALIZED (
    SELECT @item(e.derived_contexts, x, 'device') AS device, @item(e.derived_contexts, x, 'boot_id') AS boot_id,
        CAST(@item(e.derived_contexts, x, 'sequence') AS BIGINT) AS sequence, @item(e.derived_contexts, x, 'method') AS method,
        @item_number(e.derived_contexts, x, 'uncertainty_ms') AS uncertainty_ms, e.collector_tstamp AS moment
    FROM @entities(e, derived_contexts, x, 'iglu:io.spoorway/device_time/jsonschema/1-')
    WHERE @asked(e) AND @is(e.derived_contexts, x, 'iglu:io.spoorway/device_time/jsonschema/1-')
), boots AS (
    SELECT device, boot_id, max(moment) AS moment, count(*) AS events,
        max(sequence) - min(sequence) + 1 - count(DISTINCT sequence) AS missing,
        count(CASE WHEN method IN ('true', 'difference', 'wall_clock') THEN 1 END) AS exact, max(uncertainty_ms) AS widest_ms
    FROM told
    WHERE device IS NOT NULL
    GROUP BY device, boot_id
), summed AS (
    SELECT device, max(moment) AS moment, count(boot_id) AS starts, sum(events) AS events, sum(coalesce(missing, 0)) AS missing,
        sum(exact) AS exact, max(widest_ms) AS widest_ms
    FROM boots
    GROUP BY device
)
SELECT device, @stamp(moment) AS last_seen, @div(@ms(:until) - @ms(moment), 1000) AS silent_s, starts, events, missing,
    @percent(exact, events) AS exact_percent, @round(widest_ms / 1000.0, 1) AS widest_s
FROM summed
ORDER BY silent_s DESC, device
LIMIT :top
