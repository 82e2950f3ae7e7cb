-- Of the players who began each level: how many finished it, how many tries they needed, and what stopped the others.
SELECT s.level,
       count(DISTINCT e.domain_userid) AS began,
       count(DISTINCT CASE WHEN f.outcome = 'completed' THEN e.domain_userid END) AS completed,
       round(1.0 * count(DISTINCT s.root_id) / count(DISTINCT e.domain_userid), 1) AS tries_per_player,
       count(DISTINCT CASE WHEN f.outcome = 'failed' THEN f.root_id END) AS deaths
FROM io_spoorway_game_level_start_1 AS s
JOIN events AS e ON e.event_id = s.root_id
LEFT JOIN (
  SELECT l.root_id, l.level, l.outcome, x.domain_userid
  FROM io_spoorway_game_level_end_1 AS l JOIN events AS x ON x.event_id = l.root_id
) AS f ON f.level = s.level AND f.domain_userid = e.domain_userid
WHERE e.app_id = 'duck-hunt'
GROUP BY s.level
ORDER BY began DESC, min(e.derived_tstamp);
