-- Of the players who came for the first time on a day: how many played again 1, 7 and 30 days later. By the time of playing.
WITH days AS (
  SELECT DISTINCT domain_userid AS player, date(derived_tstamp) AS day
  FROM events
  WHERE app_id = 'duck-hunt' AND domain_userid IS NOT NULL
), firsts AS (
  SELECT player, min(day) AS first_day FROM days GROUP BY player
)
SELECT f.first_day,
       count(DISTINCT f.player) AS players,
       count(DISTINCT CASE WHEN julianday(d.day) - julianday(f.first_day) = 1 THEN f.player END) AS day_1,
       count(DISTINCT CASE WHEN julianday(d.day) - julianday(f.first_day) = 7 THEN f.player END) AS day_7,
       count(DISTINCT CASE WHEN julianday(d.day) - julianday(f.first_day) = 30 THEN f.player END) AS day_30
FROM firsts AS f
JOIN days AS d ON d.player = f.player
GROUP BY f.first_day
ORDER BY f.first_day;
