-- How far do players get: who begins each level, who finishes it, and what stops the others?
--
-- From level_start and level_end of io.spoorway.game, by the level's name.
--
-- group: game
-- events: level_start, level_end
-- column: level       its name
-- column: players     who began it
-- column: tries       times it was begun
-- column: completed   players who finished it
-- column: percent     of those who began it
-- column: failed      tries that failed
-- column: left_early  tries that were given up
-- column: seconds     of a try, on average, where the game says so
-- chart: bar x=level y=players
WITH told AS (
    SELECT @who(e) AS player, e.event_name AS kind, @data(e, 'level') AS level, @data(e, 'outcome') AS outcome,
        @data_number(e, 'duration_ms') AS duration_ms
    FROM atomic.events AS e @told(e, 'io.spoorway.game', 'level_start', 'level_end')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'io.spoorway.game' AND e.event_name IN ('level_start', 'level_end')
), counted AS (
    SELECT level, count(DISTINCT CASE WHEN kind = 'level_start' THEN player END) AS players,
        count(CASE WHEN kind = 'level_start' THEN 1 END) AS tries,
        count(DISTINCT CASE WHEN outcome = 'completed' THEN player END) AS completed,
        count(CASE WHEN outcome = 'failed' THEN 1 END) AS failed, count(CASE WHEN outcome = 'quit' THEN 1 END) AS left_early,
        avg(duration_ms) AS duration_ms
    FROM told
    GROUP BY level
)
SELECT level, players, tries, completed, @percent(completed, players) AS "percent", failed, left_early,
    @round(duration_ms / 1000.0, 1) AS seconds
FROM counted
ORDER BY players DESC, level
