-- From which places do visitors come?
--
-- What the enrichment geo_ip says of addresses: the middle of a town or country, not of a house. In `spoorway explore` it is a map.
--
-- group: acquisition
-- parameter: top integer 50  how many places
-- column: country     two letters
-- column: city        empty where only the country is known
-- column: latitude    degrees north
-- column: longitude   degrees east
-- column: visitors    different visitors
-- column: events      of theirs
-- chart: bar x=city y=visitors color=country
SELECT coalesce(e.geo_country, '') AS country, coalesce(e.geo_city, '') AS city,
    @round(avg(e.geo_latitude), 2) AS latitude, @round(avg(e.geo_longitude), 2) AS longitude,
    count(DISTINCT @who(e)) AS visitors, count(*) AS events
FROM atomic.events AS e
WHERE @asked(e) AND e.geo_latitude IS NOT NULL AND e.geo_longitude IS NOT NULL
GROUP BY 1, 2
ORDER BY visitors DESC, events DESC, country, city
LIMIT :top
