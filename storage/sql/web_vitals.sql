-- How do pages feel: the web vitals, in the median and for the slowest quarter of views, and how the 75th percentile is rated?
--
-- From the event web_vitals. Rated as Google rates them: lcp good to 2,500 ms, poor above 4,000; inp 200 and 500 ms; cls 0.1 and 0.25;
-- fcp 1,800 and 3,000 ms; ttfb 800 and 1,800 ms. Nearest ranks.
--
-- group: web
-- events: web_vitals
-- column: vital      cls, fcp, inp, lcp or ttfb
-- column: measured   how often
-- column: median     milliseconds; cls has no unit
-- column: p75        the same
-- column: rating     good, middling or poor
-- chart: bar x=vital y=p75
WITH told AS (
    SELECT @data_number(e, 'cls') AS cls, @data_number(e, 'fcp') AS fcp, @data_number(e, 'inp') AS inp,
        @data_number(e, 'lcp') AS lcp, @data_number(e, 'ttfb') AS ttfb
    FROM atomic.events AS e @told(e, 'com.snowplowanalytics.snowplow', 'web_vitals')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'com.snowplowanalytics.snowplow' AND e.event_name = 'web_vitals'
), vitals AS (
    SELECT 'cls' AS vital, cls AS value, 0.1 AS good, 0.25 AS poor FROM told
    UNION ALL SELECT 'fcp', fcp, 1800, 3000 FROM told
    UNION ALL SELECT 'inp', inp, 200, 500 FROM told
    UNION ALL SELECT 'lcp', lcp, 2500, 4000 FROM told
    UNION ALL SELECT 'ttfb', ttfb, 800, 1800 FROM told
), ranked AS (
    SELECT vital, value, good, poor, row_number() OVER (PARTITION BY vital ORDER BY value) AS place,
        count(*) OVER (PARTITION BY vital) AS measured
    FROM vitals
    WHERE value IS NOT NULL
), summed AS (
    SELECT vital, max(measured) AS measured, min(CASE WHEN place >= 0.5 * measured THEN value END) AS median,
        min(CASE WHEN place >= 0.75 * measured THEN value END) AS p75, max(good) AS good, max(poor) AS poor
    FROM ranked
    GROUP BY vital
)
SELECT vital, measured, @round(median, 3) AS median, @round(p75, 3) AS p75,
    CASE WHEN p75 <= good THEN 'good' WHEN p75 <= poor THEN 'middling' ELSE 'poor' END AS rating
FROM summed
ORDER BY vital
