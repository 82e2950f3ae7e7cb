-- Of the visitors who came for the first time in a week, how many came again in each week after it?
--
-- Weeks begin on Monday, UTC. Whoever came before the period that is asked for counts as new in it.
--
-- group: web
-- parameter: since time 56d  received then or later
-- column: cohort     Monday of the week of the first visit
-- column: week       0 for that week, 1 for the next
-- column: visitors   of the cohort who came in that week
-- column: percent    of the cohort
-- chart: heat x=cohort y=percent color=week
WITH days AS (
    SELECT @who(e) AS visitor, @day(e.derived_tstamp) AS day, min(e.derived_tstamp) AS came
    FROM atomic.events AS e
    WHERE @asked(e) AND @who(e) IS NOT NULL AND e.derived_tstamp IS NOT NULL
    GROUP BY 1, 2
), weeks AS (
    SELECT DISTINCT visitor, @div(@days(came) + 3, 7) AS week FROM days
), firsts AS (
    SELECT visitor, min(week) AS cohort FROM weeks GROUP BY visitor
), sizes AS (
    SELECT cohort, count(*) AS size FROM firsts GROUP BY cohort
)
SELECT @day_of(f.cohort * 7 - 3) AS cohort, w.week - f.cohort AS week, count(*) AS visitors, @percent(count(*), s.size) AS "percent"
FROM weeks AS w JOIN firsts AS f ON f.visitor = w.visitor JOIN sizes AS s ON s.cohort = f.cohort
GROUP BY f.cohort, w.week, s.size
ORDER BY f.cohort, w.week
