-- Where do players get the game's currencies, and what do they spend them on?
--
-- From the event economy of io.spoorway.game. What is the item, else the place. Real money stands beside what it bought; its currencies are
-- not converted.
--
-- group: game
-- events: economy
-- parameter: top integer 30  how many rows
-- column: currency   of the game
-- column: flow       earned or spent
-- column: what       the item, else the place; empty where neither was told
-- column: times      how often
-- column: amount     altogether
-- column: players    how many
-- column: paid       real money
-- chart: bar x=what y=amount color=flow
WITH told AS (
    SELECT @data(e, 'currency') AS currency, @data(e, 'flow') AS flow, coalesce(@data(e, 'item'), @data(e, 'place'), '') AS what,
        @data_number(e, 'amount') AS amount, @data_number(e, 'price') AS price, @who(e) AS player
    FROM atomic.events AS e @told(e, 'io.spoorway.game', 'economy')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = 'io.spoorway.game' AND e.event_name = 'economy'
)
SELECT currency, flow, what, count(*) AS times, @round(sum(amount), 2) AS amount, count(DISTINCT player) AS players,
    @round(coalesce(sum(price), 0), 2) AS paid
FROM told
GROUP BY currency, flow, what
ORDER BY currency, flow, amount DESC, what
LIMIT :top
