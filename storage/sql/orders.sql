-- How many orders came in each day, and what were they worth?
--
-- Transactions of either kind: the event transaction, and the ecommerce action of that type. Currencies are not converted.
--
-- group: shop
-- events: snowplow_ecommerce_action, transaction
-- column: day        UTC
-- column: currency   as it was sent; empty where none was
-- column: orders     how many
-- column: revenue    altogether
-- column: mean       of an order
-- chart: line x=day y=revenue color=currency
WITH orders AS (
    SELECT @day(e.derived_tstamp) AS day,
        coalesce(e.tr_currency, @one(e.contexts, 'iglu:com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-', 'currency'),
            '') AS currency,
        coalesce(@real(e.tr_total), @real(@one(e.contexts, 'iglu:com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-',
            'revenue')), 0) AS value
    FROM atomic.events AS e
        @told(e, 'com.snowplowanalytics.snowplow.ecommerce', 'snowplow_ecommerce_action')
        @first(e, 'iglu:com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-')
    WHERE @asked(e) AND (e.event = 'transaction' OR (e.event_name = 'snowplow_ecommerce_action' AND @data(e, 'type') = 'transaction'))
)
SELECT day, currency, count(*) AS orders, @round(sum(value), 2) AS revenue, @round(avg(value), 2) AS mean
FROM orders
GROUP BY day, currency
ORDER BY day, currency
