-- Where coins come from and where they go.
SELECT flow, currency, coalesce(item, place) AS what, count(*) AS times, sum(amount) AS amount
FROM io_spoorway_game_economy_1
GROUP BY flow, currency, what
ORDER BY flow, amount DESC;
