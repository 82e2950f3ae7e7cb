-- Which kinds of events are sent, in which versions, by whom, and when were they seen last?
--
-- group: pipeline
-- parameter: top integer 50  how many
-- column: vendor      of the schema
-- column: event       its name
-- column: version     of the schema
-- column: app_id      the application
-- column: events      how many
-- column: last_seen   received, UTC
-- chart: bar x=event y=events color=app_id
SELECT coalesce(e.event_vendor, '') AS vendor, coalesce(e.event_name, '') AS event, coalesce(e.event_version, '') AS version,
    coalesce(e.app_id, '') AS app_id, count(*) AS events, @stamp(max(e.collector_tstamp)) AS last_seen
FROM atomic.events AS e
WHERE @asked(e)
GROUP BY e.event_vendor, e.event_name, e.event_version, e.app_id
ORDER BY events DESC, vendor, event, version, app_id
LIMIT :top
