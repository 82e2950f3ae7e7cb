-- Which trackers send, in which versions?
--
-- group: pipeline
-- parameter: top integer 50  how many
-- column: app_id      the application
-- column: platform    web, mob, iot, srv, …
-- column: tracker     name and version, as it tells it
-- column: events      how many
-- column: last_seen   received, UTC
-- chart: bar x=tracker y=events color=app_id
SELECT coalesce(e.app_id, '') AS app_id, coalesce(e.platform, '') AS platform, coalesce(e.v_tracker, '') AS tracker,
    count(*) AS events, @stamp(max(e.collector_tstamp)) AS last_seen
FROM atomic.events AS e
WHERE @asked(e)
GROUP BY e.app_id, e.platform, e.v_tracker
ORDER BY events DESC, app_id, platform, tracker
LIMIT :top
