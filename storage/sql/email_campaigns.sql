-- How many copies of each mail were opened and clicked, by people and with machines?
--
-- A machine is a scanner, a prefetch, or a proxy that fetches at delivery. As in the view email_clicks, a click near a hidden link that was
-- followed, or within a burst, is a machine's as well. A copy is told by its message id.
--
-- group: email
-- events: email_open, email_click
-- parameter: since time 30d  received then or later
-- column: campaign       its name; empty without one
-- column: opens          all openings
-- column: opens_people   openings without machines
-- column: opened         copies opened by people
-- column: clicks         all clicks
-- column: clicks_people  clicks without machines
-- column: clicked        copies clicked by people
-- column: click_percent  of the opened copies
-- chart: bar x=campaign y=opens_people
WITH told AS (
    SELECT e.event_id AS id, e.event_name AS kind, coalesce(e.app_id, '') AS app_id, coalesce(@data(e, 'campaign'), '') AS campaign,
        @data(e, 'message') AS message, @ms(e.collector_tstamp) AS at_ms,
        coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'label'), 'unknown') AS label,
        @one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'rule') AS rule,
        @one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'fetched_at') AS fetched_at
    FROM atomic.events AS e
        @told(e, 'io.spoorway', 'email_open', 'email_click')
        @first(e, 'iglu:io.spoorway/email_agent/jsonschema/1-')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'io.spoorway' AND e.event_name IN ('email_open', 'email_click')
), near AS (
    SELECT DISTINCT c.id
    FROM told AS c
    JOIN told AS t ON t.app_id = c.app_id AND t.campaign = c.campaign AND t.message = c.message
    WHERE c.kind = 'email_click' AND t.kind = 'email_click' AND (
        (t.rule = 'honeypot' AND abs(t.at_ms - c.at_ms) <= 60000) OR (t.rule = 'burst' AND abs(t.at_ms - c.at_ms) <= 2000)
    )
), judged AS (
    SELECT t.kind, t.campaign, t.message, CASE WHEN n.id IS NOT NULL OR t.label IN ('prefetch', 'scanner')
        OR (t.label = 'privacy_proxy' AND t.fetched_at = 'delivery') THEN 1 ELSE 0 END AS machine
    FROM told AS t LEFT JOIN near AS n ON n.id = t.id
), counted AS (
    SELECT campaign, count(CASE WHEN kind = 'email_open' THEN 1 END) AS opens,
        count(CASE WHEN kind = 'email_open' AND machine = 0 THEN 1 END) AS opens_people,
        count(DISTINCT CASE WHEN kind = 'email_open' AND machine = 0 THEN message END) AS opened,
        count(CASE WHEN kind = 'email_click' THEN 1 END) AS clicks,
        count(CASE WHEN kind = 'email_click' AND machine = 0 THEN 1 END) AS clicks_people,
        count(DISTINCT CASE WHEN kind = 'email_click' AND machine = 0 THEN message END) AS clicked
    FROM judged
    GROUP BY campaign
)
SELECT campaign, opens, opens_people, opened, clicks, clicks_people, clicked, @percent(clicked, opened) AS click_percent
FROM counted
ORDER BY opens DESC, campaign
