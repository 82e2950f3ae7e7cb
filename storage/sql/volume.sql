-- How many events arrived, of which kind: day by day.
--
-- By the day of receipt, so that an event that waited on a device for a week counts on the day it came.
--
-- group: pipeline
-- column: day      of receipt, UTC
-- column: app_id   the application; empty where none was sent
-- column: event    event_name, or the kind of event where it has none
-- column: events   how many
-- chart: bar x=day y=events color=event
SELECT @day(e.collector_tstamp) AS day, coalesce(e.app_id, '') AS app_id, coalesce(e.event_name, e.event, '') AS event,
    count(*) AS events
FROM atomic.events AS e
WHERE @asked(e)
GROUP BY 1, 2, 3
ORDER BY day, events DESC, app_id, event
