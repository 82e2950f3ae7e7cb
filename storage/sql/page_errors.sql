-- Which errors do scripts and apps report?
--
-- From the event application_error.
--
-- group: web
-- events: application_error
-- parameter: top integer 20  how many errors
-- column: app_id      the application
-- column: message     what it said
-- column: errors      how often
-- column: visitors    who saw it
-- column: last_seen   UTC
-- chart: bar x=message y=errors
SELECT coalesce(e.app_id, '') AS app_id, @data(e, 'message') AS message, count(*) AS errors, count(DISTINCT @who(e)) AS visitors,
    max(@stamp(e.derived_tstamp)) AS last_seen
FROM atomic.events AS e @told(e, 'com.snowplowanalytics.snowplow', 'application_error')
WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'com.snowplowanalytics.snowplow' AND e.event_name = 'application_error'
GROUP BY 1, 2
ORDER BY errors DESC, message, app_id
LIMIT :top
