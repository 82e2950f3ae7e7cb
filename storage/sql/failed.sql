-- What could not be understood, and why?
--
-- One reason of each failed event, the first; what was solved by a replay since is counted beside it.
--
-- group: pipeline
-- parameter: top integer 30  how many reasons
-- column: kind        which phase refused it
-- column: reason      the first one
-- column: app_id      the application, as far as it was understood
-- column: events      failed events that wait
-- column: solved      those that a replay has solved
-- column: last_seen   received, UTC
-- chart: bar x=reason y=events color=kind
-- reads: failed_events
SELECT f.kind, coalesce(f.first_reason, '') AS reason, coalesce(f.app_id, '') AS app_id,
    count(CASE WHEN f.replayed_tstamp IS NULL THEN 1 END) AS events, count(CASE WHEN f.replayed_tstamp IS NOT NULL THEN 1 END) AS solved,
    max(@stamp(f.collector_tstamp)) AS last_seen
FROM atomic.failed_events AS f
WHERE @asked(f)
GROUP BY 1, 2, 3
ORDER BY events DESC, kind, reason, app_id
LIMIT :top
