-- Who fetches the pictures and links of mails: readers, proxies, scanners, and by which rule do we know?
--
-- group: email
-- events: email_open, email_click
-- parameter: since time 30d  received then or later
-- column: kind       email_open or email_click
-- column: label      human_likely, privacy_proxy, prefetch, scanner or unknown
-- column: provider   whose proxy or scanner it is; empty where that is not known
-- column: rule       what gave it away
-- column: times      how often
-- chart: bar x=label y=times color=kind
SELECT e.event_name AS kind,
    coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'label'), 'unknown') AS label,
    coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'provider'), '') AS provider,
    coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/email_agent/jsonschema/1-', 'rule'), '') AS rule, count(*) AS times
FROM atomic.events AS e @first(e, 'iglu:io.spoorway/email_agent/jsonschema/1-')
WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'io.spoorway' AND e.event_name IN ('email_open', 'email_click')
GROUP BY 1, 2, 3, 4
ORDER BY times DESC, kind, label, provider, rule
