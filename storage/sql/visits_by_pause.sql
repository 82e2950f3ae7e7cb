-- How many visits were there each day, where nothing but a long pause ends one?
--
-- For senders without session ids of their own: apps, servers, devices. A visitor is domain_userid, else user_id, else network_userid;
-- events without any are left out.
--
-- group: web
-- parameter: pause_min integer 30  minutes without an event after which another visit begins
-- column: day        on which the visit began, UTC
-- column: visits     how many
-- column: visitors   different visitors among them
-- column: events     for each visit
-- column: seconds    from the first to the last event of a visit, on average
-- chart: line x=day y=visits
WITH hits AS (
    SELECT @who(e) AS visitor, @ms(e.derived_tstamp) AS at_ms
    FROM atomic.events AS e
    WHERE @asked(e) AND @who(e) IS NOT NULL AND e.derived_tstamp IS NOT NULL
), pauses AS (
    SELECT visitor, at_ms, at_ms - lag(at_ms) OVER (PARTITION BY visitor ORDER BY at_ms) AS pause_ms
    FROM hits
), numbered AS (
    SELECT visitor, at_ms, sum(CASE WHEN pause_ms IS NULL OR pause_ms > :pause_min * 60000 THEN 1 ELSE 0 END)
        OVER (PARTITION BY visitor ORDER BY at_ms ROWS UNBOUNDED PRECEDING) AS visit
    FROM pauses
), visits AS (
    SELECT visitor, visit, min(at_ms) AS began, max(at_ms) AS ended, count(*) AS events
    FROM numbered
    GROUP BY visitor, visit
)
SELECT @day_of(@div(began, 86400000)) AS day, count(*) AS visits, count(DISTINCT visitor) AS visitors,
    @round(1.0 * sum(events) / count(*), 1) AS events, @round(avg(ended - began) / 1000.0, 1) AS seconds
FROM visits
GROUP BY 1
ORDER BY day
