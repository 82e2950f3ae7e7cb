-- Of the players who came for the first time on a day, how many played again so many days later?
--
-- From the events of io.spoorway.game, by the time of playing, days in UTC. Whoever played before the period that is asked for counts as
-- new in it.
--
-- group: game
-- parameter: since time 56d  received then or later
-- parameter: days_1 integer 1  after so many days
-- parameter: days_2 integer 7  after so many
-- parameter: days_3 integer 30  after so many
-- column: first_day  of the players
-- column: players    who played that day for the first time
-- column: percent_1  of them who played again days_1 later, that very day
-- column: percent_2  days_2 later
-- column: percent_3  days_3 later
-- chart: line x=first_day y=percent_1
WITH played AS (
    SELECT DISTINCT @who(e) AS player, @days(e.derived_tstamp) AS day
    FROM atomic.events AS e
    WHERE @asked(e) AND e.event_vendor = 'io.spoorway.game' AND @who(e) IS NOT NULL AND e.derived_tstamp IS NOT NULL
), came AS (
    SELECT player, min(day) AS first_day FROM played GROUP BY player
), counted AS (
    SELECT c.first_day, count(DISTINCT c.player) AS players,
        count(CASE WHEN p.day - c.first_day = :days_1 THEN 1 END) AS again_1,
        count(CASE WHEN p.day - c.first_day = :days_2 THEN 1 END) AS again_2,
        count(CASE WHEN p.day - c.first_day = :days_3 THEN 1 END) AS again_3
    FROM came AS c JOIN played AS p ON p.player = c.player
    GROUP BY c.first_day
)
SELECT @day_of(first_day) AS first_day, players, @percent(again_1, players) AS percent_1, @percent(again_2, players) AS percent_2,
    @percent(again_3, players) AS percent_3
FROM counted
ORDER BY 1
