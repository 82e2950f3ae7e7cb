-- What do players fail at in each level?
--
-- group: game
-- events: level_end
-- parameter: top integer 20  how many rows
-- column: level     its name
-- column: cause     as the game tells it; empty where it does not
-- column: times     how often
-- column: players   how many it stopped
-- chart: bar x=level y=times color=cause
SELECT @data(e, 'level') AS level, coalesce(@data(e, 'cause'), '') AS cause, count(*) AS times, count(DISTINCT @who(e)) AS players
FROM atomic.events AS e @told(e, 'io.spoorway.game', 'level_end')
WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'io.spoorway.game' AND e.event_name = 'level_end'
    AND @data(e, 'outcome') = 'failed'
GROUP BY 1, 2
ORDER BY times DESC, level, cause
LIMIT :top
