-- How fast do pages load, in the browsers of those who read them?
--
-- From the entity PerformanceTiming (the tracker's performanceTiming context), in milliseconds since the navigation began. A browser that
-- had not finished says 0; such views are left out. Each number is the nearest rank, not an interpolation.
--
-- group: web
-- events: page_view
-- parameter: top integer 20  how many pages, the most viewed first
-- column: page           host and path
-- column: views          that were timed to the end
-- column: first_byte_ms  until the answer began, in the median
-- column: ready_ms       until the document could be used, in the median
-- column: loaded_ms      until all of it was loaded, in the median
-- column: loaded_p95_ms  and for the slowest twentieth
-- chart: bar x=page y=loaded_ms
WITH told AS (
    SELECT @page(e) AS page, @item_number(e.contexts, x, 'navigationStart') AS began,
        @item_number(e.contexts, x, 'responseStart') AS first_byte, @item_number(e.contexts, x, 'domInteractive') AS ready,
        @item_number(e.contexts, x, 'loadEventEnd') AS loaded
    FROM @entities(e, contexts, x, 'iglu:org.w3/PerformanceTiming/jsonschema/1-')
    WHERE @asked(e) AND e.event = 'page_view' AND @is(e.contexts, x, 'iglu:org.w3/PerformanceTiming/jsonschema/1-')
), timed AS (
    SELECT page, first_byte - began AS first_byte_ms, ready - began AS ready_ms, loaded - began AS loaded_ms
    FROM told
    WHERE began > 0 AND loaded >= began
), ranked AS (
    SELECT page, first_byte_ms, ready_ms, loaded_ms, count(*) OVER (PARTITION BY page) AS views,
        row_number() OVER (PARTITION BY page ORDER BY first_byte_ms) AS of_first_byte,
        row_number() OVER (PARTITION BY page ORDER BY ready_ms) AS of_ready,
        row_number() OVER (PARTITION BY page ORDER BY loaded_ms) AS of_loaded
    FROM timed
)
SELECT page, max(views) AS views,
    @round(min(CASE WHEN of_first_byte >= 0.5 * views THEN first_byte_ms END), 0) AS first_byte_ms,
    @round(min(CASE WHEN of_ready >= 0.5 * views THEN ready_ms END), 0) AS ready_ms,
    @round(min(CASE WHEN of_loaded >= 0.5 * views THEN loaded_ms END), 0) AS loaded_ms,
    @round(min(CASE WHEN of_loaded >= 0.95 * views THEN loaded_ms END), 0) AS loaded_p95_ms
FROM ranked
GROUP BY page
ORDER BY views DESC, page
LIMIT :top
