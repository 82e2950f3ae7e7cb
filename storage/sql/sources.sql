-- Where do visits come from?
--
-- By the first page view of each visit: its campaign if the address names one, else the page before it, else direct. A page of the same
-- site is no source.
--
-- group: acquisition
-- events: page_view
-- parameter: top integer 20  how many sources
-- column: medium     email, cpc, search, social, … or direct
-- column: source     who sent them
-- column: campaign   of the address; empty without one
-- column: visits     that began so
-- column: visitors   different visitors among them
-- column: pages      page views for each visit
-- chart: bar x=source y=visits color=medium
WITH views AS (
    SELECT e.domain_sessionid AS visit, @who(e) AS visitor, e.mkt_campaign AS campaign,
        CASE WHEN e.mkt_medium IS NOT NULL OR e.mkt_source IS NOT NULL THEN coalesce(e.mkt_medium, 'campaign')
            WHEN e.refr_urlhost IS NULL OR e.refr_medium = 'internal' OR e.refr_urlhost = e.page_urlhost THEN 'direct'
            ELSE coalesce(e.refr_medium, 'unknown') END AS medium,
        coalesce(e.mkt_source, e.refr_source, e.refr_urlhost, '') AS source,
        row_number() OVER (PARTITION BY e.domain_sessionid ORDER BY e.derived_tstamp, e.event_id) AS place,
        count(*) OVER (PARTITION BY e.domain_sessionid) AS views
    FROM atomic.events AS e
    WHERE @asked(e) AND e.event = 'page_view' AND e.domain_sessionid IS NOT NULL
)
SELECT medium, CASE WHEN medium = 'direct' THEN '' ELSE source END AS source, coalesce(campaign, '') AS campaign,
    count(*) AS visits, count(DISTINCT visitor) AS visitors, @round(1.0 * sum(views) / count(*), 1) AS pages
FROM views
WHERE place = 1
GROUP BY 1, 2, 3
ORDER BY visits DESC, medium, source, campaign
LIMIT :top
