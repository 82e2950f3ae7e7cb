-- With which browsers and systems do visitors come?
--
-- What the enrichment user_agent (or a tracker of an app) says; a row of empty names where none runs.
--
-- group: web
-- parameter: top integer 20  how many rows
-- column: browser    family of the browser
-- column: system     family of the operating system
-- column: device     kind of device
-- column: visitors   different visitors
-- column: events     of theirs
-- chart: bar x=browser y=visitors color=system
SELECT coalesce(e.br_family, '') AS browser, coalesce(e.os_family, '') AS "system", coalesce(e.dvce_type, '') AS device,
    count(DISTINCT @who(e)) AS visitors, count(*) AS events
FROM atomic.events AS e
WHERE @asked(e) AND @who(e) IS NOT NULL AND e.useragent IS NOT NULL
GROUP BY 1, 2, 3
ORDER BY visitors DESC, events DESC, browser, "system", device
LIMIT :top
