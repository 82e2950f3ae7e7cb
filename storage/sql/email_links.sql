-- Which links of a mail are followed by people?
--
-- A click that was labelled a machine's is told apart; email_campaigns says more on machines.
--
-- group: email
-- events: email_click
-- parameter: since time 30d  received then or later
-- parameter: campaign text ''  one campaign; empty for all
-- column: campaign   its name; empty without one
-- column: link       its name or number in the mail
-- column: clicks     all of them
-- column: people     clicks that no machine made
-- column: readers    copies of the mail among these
-- chart: bar x=link y=people color=campaign
WITH told AS (
    SELECT coalesce(@data(e, 'campaign'), '') AS campaign, coalesce(@data(e, 'link'), '') AS link, @data(e, 'message') AS message,
        coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'label'), 'unknown') AS label,
        coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'fetched_at'), '') AS fetched_at
    FROM atomic.events AS e @told(e, 'io.spoorway', 'email_click') @first(e, 'iglu:io.spoorway/email_agent/jsonschema/1-')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'io.spoorway' AND e.event_name = 'email_click'
), judged AS (
    SELECT campaign, link, message, CASE WHEN label IN ('prefetch', 'scanner') OR (label = 'privacy_proxy' AND fetched_at = 'delivery')
        THEN 1 ELSE 0 END AS machine
    FROM told
    WHERE :campaign = '' OR campaign = :campaign
)
SELECT campaign, link, count(*) AS clicks, count(CASE WHEN machine = 0 THEN 1 END) AS people,
    count(DISTINCT CASE WHEN machine = 0 THEN message END) AS readers
FROM judged
GROUP BY campaign, link
ORDER BY people DESC, clicks DESC, campaign, link
