-- Which links are followed?
--
-- group: web
-- events: link_click
-- parameter: top integer 20  how many links
-- column: target     where the link leads
-- column: clicks     how often it was followed
-- column: visitors   by how many
-- chart: bar x=target y=clicks
SELECT @data(e, 'targetUrl') AS target, count(*) AS clicks, count(DISTINCT @who(e)) AS visitors
FROM atomic.events AS e @told(e, 'com.snowplowanalytics.snowplow', 'link_click')
WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'com.snowplowanalytics.snowplow' AND e.event_name = 'link_click'
GROUP BY 1
ORDER BY clicks DESC, target
LIMIT :top
