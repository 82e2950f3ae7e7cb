-- How far do visitors get on a way of up to five steps, one after the other?
--
-- A step is an event's name, the type of an ecommerce action (add_to_cart, checkout_step, transaction), or the path of a page, which
-- begins with a slash. Each step is looked for at the time of the one before it or later; in between anything may happen.
--
-- group: shop
-- parameter: step_1 text page_view  the first step
-- parameter: step_2 text add_to_cart  the second; empty for none
-- parameter: step_3 text checkout_step  the third; empty for none
-- parameter: step_4 text transaction  the fourth; empty for none
-- parameter: step_5 text ''  the fifth; empty for none
-- column: step       1 to 5
-- column: name       what was looked for
-- column: visitors   who got there
-- column: percent    of those who took the first step
-- column: kept       percent of those who took the step before
-- chart: bar x=name y=visitors
WITH deeds AS (
    SELECT @who(e) AS visitor, @ms(e.derived_tstamp) AS at_ms,
        CASE WHEN e.event_name = 'snowplow_ecommerce_action' THEN @data(e, 'type') ELSE e.event_name END AS deed,
        CASE WHEN e.event = 'page_view' THEN coalesce(e.page_urlpath, '') ELSE '' END AS path
    FROM atomic.events AS e @told(e, 'com.snowplowanalytics.snowplow.ecommerce', 'snowplow_ecommerce_action')
    WHERE @asked(e) AND @who(e) IS NOT NULL
), steps AS (
    SELECT visitor, at_ms, deed, path
    FROM deeds
    WHERE deed IN (:step_1, :step_2, :step_3, :step_4, :step_5)
        OR (path <> '' AND path IN (:step_1, :step_2, :step_3, :step_4, :step_5))
), one AS (
    SELECT visitor, min(at_ms) AS at_ms FROM steps
    WHERE :step_1 <> '' AND :step_1 IN (deed, path) GROUP BY visitor
), two AS (
    SELECT s.visitor, min(s.at_ms) AS at_ms FROM steps AS s JOIN one AS p ON p.visitor = s.visitor AND s.at_ms >= p.at_ms
    WHERE :step_2 <> '' AND :step_2 IN (s.deed, s.path) GROUP BY s.visitor
), three AS (
    SELECT s.visitor, min(s.at_ms) AS at_ms FROM steps AS s JOIN two AS p ON p.visitor = s.visitor AND s.at_ms >= p.at_ms
    WHERE :step_3 <> '' AND :step_3 IN (s.deed, s.path) GROUP BY s.visitor
), four AS (
    SELECT s.visitor, min(s.at_ms) AS at_ms FROM steps AS s JOIN three AS p ON p.visitor = s.visitor AND s.at_ms >= p.at_ms
    WHERE :step_4 <> '' AND :step_4 IN (s.deed, s.path) GROUP BY s.visitor
), five AS (
    SELECT s.visitor, min(s.at_ms) AS at_ms FROM steps AS s JOIN four AS p ON p.visitor = s.visitor AND s.at_ms >= p.at_ms
    WHERE :step_5 <> '' AND :step_5 IN (s.deed, s.path) GROUP BY s.visitor
), counted AS (
    SELECT 1 AS step, :step_1 AS name, count(*) AS visitors FROM one
    UNION ALL SELECT 2, :step_2, count(*) FROM two
    UNION ALL SELECT 3, :step_3, count(*) FROM three
    UNION ALL SELECT 4, :step_4, count(*) FROM four
    UNION ALL SELECT 5, :step_5, count(*) FROM five
)
SELECT c.step, c.name, c.visitors, @percent(c.visitors, f.visitors) AS "percent", @percent(c.visitors, b.visitors) AS kept
FROM counted AS c JOIN counted AS f ON f.step = 1 LEFT JOIN counted AS b ON b.step = c.step - 1
WHERE c.name <> ''
ORDER BY c.step
