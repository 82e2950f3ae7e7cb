-- How far down are pages read?
--
-- From page pings, which tell how far the page was scrolled: the deepest of each visit and page counts. Reaching 90 percent is taken
-- for the end, because of footers.
--
-- group: web
-- events: page_ping
-- parameter: top integer 20  how many pages
-- column: page          host and path
-- column: readers       visits that looked at it for one ping at least
-- column: half          percent of them that saw half of it
-- column: end_percent   percent of them that saw the end
-- column: mean          the mean depth, percent
-- chart: bar x=page y=mean
WITH depths AS (
    SELECT @page(e) AS page, coalesce(CAST(e.domain_sessionid AS VARCHAR), @who(e)) AS visit,
        max(100.0 * (coalesce(e.pp_yoffset_max, 0) + e.br_viewheight) / e.doc_height) AS deepest
    FROM atomic.events AS e
    WHERE @asked(e) AND e.event = 'page_ping' AND e.doc_height > 0 AND e.br_viewheight > 0
    GROUP BY 1, 2
), capped AS (
    SELECT page, CASE WHEN deepest > 100 THEN 100.0 ELSE deepest END AS depth FROM depths
)
SELECT page, count(*) AS readers, @percent(count(CASE WHEN depth >= 50 THEN 1 END), count(*)) AS half,
    @percent(count(CASE WHEN depth >= 90 THEN 1 END), count(*)) AS end_percent, @round(avg(depth), 1) AS mean
FROM capped
GROUP BY page
ORDER BY readers DESC, page
LIMIT :top
