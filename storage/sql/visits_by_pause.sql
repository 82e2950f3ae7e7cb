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
), neighbours AS (
    SELECT visitor, at_ms, at_ms - lag(at_ms) OVER (PARTITION BY visitor ORDER BY at_ms) AS since_ms,
        lead(at_ms) OVER (PARTITION BY visitor ORDER BY at_ms) - at_ms AS until_ms,
        row_number() OVER (PARTITION BY visitor ORDER BY at_ms) AS place
    FROM hits
), edges AS (
    SELECT visitor, at_ms, place, CASE WHEN since_ms IS NULL OR since_ms > :pause_min * 60000 THEN 1 ELSE 0 END AS opens,
        CASE WHEN until_ms IS NULL OR until_ms > :pause_min * 60000 THEN 1 ELSE 0 END AS closes
    FROM neighbours
    WHERE since_ms IS NULL OR since_ms > :pause_min * 60000 OR until_ms IS NULL OR until_ms > :pause_min * 60000
), pairs AS (
    SELECT visitor, opens, at_ms AS began,
        CASE WHEN closes = 1 THEN at_ms ELSE lead(at_ms) OVER (PARTITION BY visitor ORDER BY place) END AS ended,
        CASE WHEN closes = 1 THEN 1 ELSE lead(place) OVER (PARTITION BY visitor ORDER BY place) - place + 1 END AS events
    FROM edges
)
SELECT @day_of(@div(began, 86400000)) AS day, count(*) AS visits, count(DISTINCT visitor) AS visitors,
    @round(1.0 * sum(events) / count(*), 1) AS events, @round(avg(ended - began) / 1000.0, 1) AS seconds
FROM pairs
WHERE opens = 1
GROUP BY 1
ORDER BY day
