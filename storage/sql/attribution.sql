-- Which sources brought the orders: by the first source that a buyer came from, the last, and all of them alike?
--
-- A source is a page view that came from outside: with a campaign in its address, or from another site. Those of the days before the order
-- count, as far as they lie in the period that is asked for. Without any it is direct.
--
-- group: acquisition
-- events: :conversion, page_view, snowplow_ecommerce_action, transaction
-- parameter: since time 30d  received then or later
-- parameter: conversion text order  what counts: an event's name, or order for transactions of either kind
-- parameter: days integer 30  how long before the order a source still counts
-- column: medium     email, cpc, search, social, … or direct
-- column: source     who sent them
-- column: campaign   of the address; empty without one
-- column: first      orders of which it was the first source
-- column: last       orders of which it was the last source
-- column: shared     each order divided among all of its sources
-- column: value      the orders' value, divided in the same way
-- chart: bar x=source y=shared color=medium
WITH judged AS (
    SELECT e.event_id AS id, @who(e) AS visitor, @ms(e.derived_tstamp) AS at_ms,
        CASE WHEN e.event_name = :conversion OR (:conversion = 'order' AND (e.event = 'transaction'
            OR (e.event_name = 'snowplow_ecommerce_action' AND @data(e, 'type') = 'transaction'))) THEN
            coalesce(@real(e.tr_total), @real(@one(e.contexts, 'iglu:com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-',
                'revenue')), @real(e.se_value), 0) END AS value,
        CASE WHEN coalesce(e.event, '') <> 'page_view' THEN NULL
            WHEN e.mkt_medium IS NOT NULL OR e.mkt_source IS NOT NULL THEN coalesce(e.mkt_medium, 'campaign')
            WHEN e.refr_urlhost IS NOT NULL AND coalesce(e.refr_medium, '') <> 'internal' AND e.refr_urlhost <> coalesce(e.page_urlhost, '')
            THEN coalesce(e.refr_medium, 'unknown') END AS medium,
        coalesce(e.mkt_source, e.refr_source, e.refr_urlhost, '') AS source, coalesce(e.mkt_campaign, '') AS campaign
    FROM atomic.events AS e
        @told(e, 'com.snowplowanalytics.snowplow.ecommerce', 'snowplow_ecommerce_action')
        @first(e, 'iglu:com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-')
    WHERE @asked(e) AND @who(e) IS NOT NULL
), seen AS MATERIALIZED (
    SELECT id, visitor, at_ms, value, medium, source, campaign FROM judged WHERE value IS NOT NULL OR medium IS NOT NULL
), conversions AS (
    SELECT id, visitor, at_ms, value FROM seen WHERE value IS NOT NULL
), touches AS (
    SELECT id, visitor, at_ms, medium, source, campaign FROM seen WHERE medium IS NOT NULL
), ways AS (
    SELECT c.id, c.value, t.medium, t.source, t.campaign, count(t.id) OVER (PARTITION BY c.id) AS touches,
        row_number() OVER (PARTITION BY c.id ORDER BY t.at_ms, t.id) AS place
    FROM conversions AS c
    LEFT JOIN touches AS t ON t.visitor = c.visitor AND t.at_ms <= c.at_ms AND t.at_ms >= c.at_ms - :days * 86400000
), shares AS (
    SELECT coalesce(medium, 'direct') AS medium, coalesce(source, '') AS source, coalesce(campaign, '') AS campaign, value,
        place, CASE WHEN touches = 0 THEN 1 ELSE touches END AS touches
    FROM ways
)
SELECT medium, source, campaign, count(CASE WHEN place = 1 THEN 1 END) AS first, count(CASE WHEN place = touches THEN 1 END) AS last,
    @round(sum(1.0 / touches), 2) AS shared, @round(sum(value / touches), 2) AS value
FROM shares
GROUP BY medium, source, campaign
ORDER BY shared DESC, medium, source, campaign
