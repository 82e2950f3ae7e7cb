-- Which pages are looked at, by how many visitors, and for how long?
--
-- Attention is counted in page pings: a ping every so many seconds says that the page was looked at meanwhile. An address is host
-- and path, without the query.
--
-- group: web
-- events: page_view, page_ping
-- parameter: heartbeat_s integer 10  seconds between two page pings, as the tracker was set up
-- parameter: top integer 20  how many pages
-- column: page       host and path
-- column: views      page views
-- column: visitors   different visitors among them
-- column: seconds    of attention altogether
-- column: per_view   seconds of attention for each view
-- chart: bar x=page y=views
SELECT @page(e) AS page,
    count(CASE WHEN e.event = 'page_view' THEN 1 END) AS views,
    count(DISTINCT CASE WHEN e.event = 'page_view' THEN @who(e) END) AS visitors,
    count(CASE WHEN e.event = 'page_ping' THEN 1 END) * :heartbeat_s AS seconds,
    @round(1.0 * count(CASE WHEN e.event = 'page_ping' THEN 1 END) * :heartbeat_s
        / nullif(count(CASE WHEN e.event = 'page_view' THEN 1 END), 0), 1) AS per_view
FROM atomic.events AS e
WHERE @asked(e) AND e.event IN ('page_view', 'page_ping')
GROUP BY 1
ORDER BY views DESC, page
LIMIT :top
