-- On which pages do visits begin, and how many end there?
--
-- group: web
-- events: page_view
-- parameter: top integer 20  how many pages
-- column: page             host and path
-- column: visits           that began there
-- column: one_page         of them, those that saw no other page
-- column: one_page_percent  the same in percent
-- chart: bar x=page y=visits
WITH views AS (
    SELECT @page(e) AS page,
        row_number() OVER (PARTITION BY e.domain_sessionid ORDER BY e.derived_tstamp, e.event_id) AS place,
        count(*) OVER (PARTITION BY e.domain_sessionid) AS views
    FROM atomic.events AS e
    WHERE @asked(e) AND e.event = 'page_view' AND e.domain_sessionid IS NOT NULL
)
SELECT page, count(*) AS visits, count(CASE WHEN views = 1 THEN 1 END) AS one_page,
    @percent(count(CASE WHEN views = 1 THEN 1 END), count(*)) AS one_page_percent
FROM views
WHERE place = 1
GROUP BY page
ORDER BY visits DESC, page
LIMIT :top
