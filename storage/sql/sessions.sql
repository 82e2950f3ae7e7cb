-- How many visits were there each day, how long did they last, and how many saw one page only?
--
-- A visit is what the tracker says it is (domain_sessionid): browsers and games send one. For everything else see visits_by_pause.
--
-- group: web
-- column: day              on which the visit began, UTC
-- column: sessions         visits
-- column: visitors         different visitors among them
-- column: pages            page views for each visit
-- column: seconds          from the first to the last event of a visit, on average
-- column: bounces          visits that saw one page and did nothing else but look at it
-- column: bounce_percent   of the visits that saw a page
-- chart: line x=day y=sessions
WITH visits AS (
    SELECT e.domain_sessionid, min(e.domain_userid) AS visitor, @ms(min(e.derived_tstamp)) AS began, @ms(max(e.derived_tstamp)) AS ended,
        count(CASE WHEN e.event = 'page_view' THEN 1 END) AS pages,
        count(CASE WHEN e.event NOT IN ('page_view', 'page_ping') THEN 1 END) AS deeds
    FROM atomic.events AS e
    WHERE @asked(e) AND e.domain_sessionid IS NOT NULL
    GROUP BY e.domain_sessionid
)
SELECT @day_of(@div(began, 86400000)) AS day, count(*) AS sessions, count(DISTINCT visitor) AS visitors,
    @round(1.0 * sum(pages) / count(*), 1) AS pages,
    @round(avg(ended - began) / 1000.0, 1) AS seconds,
    count(CASE WHEN pages = 1 AND deeds = 0 THEN 1 END) AS bounces,
    @percent(count(CASE WHEN pages = 1 AND deeds = 0 THEN 1 END), count(CASE WHEN pages > 0 THEN 1 END)) AS bounce_percent
FROM visits
GROUP BY 1
ORDER BY day
