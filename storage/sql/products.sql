-- Which products are looked at, put into the basket and bought?
--
-- From the product entities of ecommerce actions.
--
-- group: shop
-- events: snowplow_ecommerce_action
-- parameter: top integer 20  how many products
-- column: product   its id
-- column: name      as it was sent last in the alphabet
-- column: views     product views
-- column: added     times it was put into a basket
-- column: bought    pieces in orders
-- column: revenue   price times pieces
-- chart: bar x=product y=revenue
WITH told AS (
    SELECT @item(e.contexts, x, 'id') AS product, @item(e.contexts, x, 'name') AS name, @data(e, 'type') AS deed,
        @item_number(e.contexts, x, 'price') AS price, coalesce(@item_number(e.contexts, x, 'quantity'), 1) AS pieces
    FROM @entities(e, contexts, x, 'iglu:com.snowplowanalytics.snowplow.ecommerce/product/jsonschema/1-')
        @told(e, 'com.snowplowanalytics.snowplow.ecommerce', 'snowplow_ecommerce_action')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'com.snowplowanalytics.snowplow.ecommerce'
        AND e.event_name = 'snowplow_ecommerce_action'
        AND @is(e.contexts, x, 'iglu:com.snowplowanalytics.snowplow.ecommerce/product/jsonschema/1-')
)
SELECT product, max(name) AS name, count(CASE WHEN deed = 'product_view' THEN 1 END) AS views,
    count(CASE WHEN deed = 'add_to_cart' THEN 1 END) AS added,
    CAST(coalesce(sum(CASE WHEN deed = 'transaction' THEN pieces END), 0) AS BIGINT) AS bought,
    @round(coalesce(sum(CASE WHEN deed = 'transaction' THEN price * pieces END), 0), 2) AS revenue
FROM told
GROUP BY product
ORDER BY revenue DESC, views DESC, product
LIMIT :top
