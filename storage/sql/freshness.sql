-- How fresh is what is stored: when came the last event of each application, and how long are events on their way?
--
-- On the way: from when it happened until it was received; a device that was offline makes that long. Stored: from receipt until it was
-- enriched. Whole seconds, nearest rank; clocks that are ahead count as 0.
--
-- group: pipeline
-- column: app_id        the application; empty where none was sent
-- column: events        in the period
-- column: last_event    received last, UTC
-- column: quiet_s       seconds since then, at the end of the period
-- column: way_s         seconds on the way, in the median
-- column: way_p95_s     and for the slowest twentieth
-- column: stored_p95_s  seconds until it was enriched, for the slowest twentieth
-- chart: bar x=app_id y=way_p95_s
WITH ways AS MATERIALIZED (
    SELECT coalesce(e.app_id, '') AS app_id, @ms(e.derived_tstamp) AS began_ms, @ms(e.collector_tstamp) AS at_ms,
        @ms(e.etl_tstamp) AS stored_ms
    FROM atomic.events AS e
    WHERE @asked(e)
), delays AS (
    SELECT app_id, CASE WHEN at_ms > began_ms THEN @div(at_ms - began_ms, 1000) WHEN at_ms <= began_ms THEN 0 END AS way_s,
        CASE WHEN stored_ms > at_ms THEN @div(stored_ms - at_ms, 1000) WHEN stored_ms <= at_ms THEN 0 END AS stored_s,
        count(*) AS events, max(at_ms) AS at_ms
    FROM ways
    GROUP BY 1, 2, 3
), summed AS (
    SELECT app_id, sum(events) AS events, max(at_ms) AS at_ms FROM delays GROUP BY app_id
), seconds AS (
    SELECT app_id, 'way' AS what, way_s AS s, sum(events) AS events FROM delays WHERE way_s IS NOT NULL GROUP BY 1, 2, 3
    UNION ALL
    SELECT app_id, 'stored', stored_s, sum(events) FROM delays WHERE stored_s IS NOT NULL GROUP BY 1, 2, 3
), ranked AS (
    SELECT app_id, what, s, sum(events) OVER (PARTITION BY app_id, what ORDER BY s ROWS UNBOUNDED PRECEDING) AS upto,
        sum(events) OVER (PARTITION BY app_id, what) AS events
    FROM seconds
), ranks AS (
    SELECT app_id, min(CASE WHEN what = 'way' AND upto >= 0.5 * events THEN s END) AS way_s,
        min(CASE WHEN what = 'way' AND upto >= 0.95 * events THEN s END) AS way_p95_s,
        min(CASE WHEN what = 'stored' AND upto >= 0.95 * events THEN s END) AS stored_p95_s
    FROM ranked
    GROUP BY app_id
)
SELECT s.app_id, s.events, @stamp_of(s.at_ms) AS last_event, @div(@ms(:until) - s.at_ms, 1000) AS quiet_s, r.way_s, r.way_p95_s,
    r.stored_p95_s
FROM summed AS s LEFT JOIN ranks AS r ON r.app_id = s.app_id
ORDER BY s.events DESC, s.app_id
