-- How much of the traffic is robots, and which?
--
-- From the entity bot_label of the enrichment bots; an event may carry several. Percent of all events of the application.
--
-- group: pipeline
-- parameter: top integer 30  how many rows
-- column: app_id    the application
-- column: source    useragent, browser or network: who says so
-- column: rule      what gave it away
-- column: events    how many
-- column: percent   of the application's events
-- chart: bar x=rule y=events color=source
WITH labels AS MATERIALIZED (
    SELECT coalesce(e.app_id, '') AS app_id, @item(e.derived_contexts, x, 'source') AS source, @item(e.derived_contexts, x, 'rule') AS rule
    FROM @entities(e, derived_contexts, x, 'iglu:io.spoorway/bot_label/jsonschema/1-')
    WHERE @asked(e) AND @is(e.derived_contexts, x, 'iglu:io.spoorway/bot_label/jsonschema/1-')
), totals AS (
    SELECT coalesce(e.app_id, '') AS app_id, count(*) AS events FROM atomic.events AS e WHERE @asked(e) GROUP BY 1
)
SELECT l.app_id, l.source, l.rule, count(*) AS events, @percent(count(*), t.events) AS "percent"
FROM labels AS l JOIN totals AS t ON t.app_id = l.app_id
GROUP BY l.app_id, l.source, l.rule, t.events
ORDER BY events DESC, l.app_id, l.source, l.rule
LIMIT :top
