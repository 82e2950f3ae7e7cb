-- Which readings of a sensor are far from those just before them?
--
-- A reading is told when it lies more than so many standard deviations from the mean of the twenty readings before it, of the same
-- device, and by no less than a step that you choose. The first readings of the period have nothing to be held against.
--
-- group: devices
-- events: :schema
-- parameter: vendor text io.spoorway  of the event's schema
-- parameter: schema text environment_reading  the event's schema
-- parameter: field text temperature_celsius  the property; a dot leads into an object
-- parameter: device text ''  one device; empty for each of them
-- parameter: before integer 10  how many readings must lie before it, at most 20
-- parameter: deviations number 4  how many standard deviations are far
-- parameter: least number 0.5  differences below that are never far
-- column: moment     when it was measured, UTC
-- column: device     by whom
-- column: value      what it said
-- column: expected   the mean of the readings before it
-- column: off        how far it lies from that
-- chart: bar x=moment y=off color=device
WITH readings AS MATERIALIZED (
    SELECT coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/device_time/jsonschema/1-', 'device'), e.user_id, '') AS device,
        @ms(e.derived_tstamp) AS at_ms, @data_number(e, :field) AS value
    FROM atomic.events AS e @told(e, :vendor, :schema) @first(e, 'iglu:io.spoorway/device_time/jsonschema/1-')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = :vendor AND e.event_name = :schema
), compared AS (
    SELECT device, at_ms, value,
        avg(value) OVER (PARTITION BY device ORDER BY at_ms, value ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING) AS mean,
        avg(value * value) OVER (PARTITION BY device ORDER BY at_ms, value ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING) AS squares,
        count(*) OVER (PARTITION BY device ORDER BY at_ms, value ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING) AS known
    FROM readings
    WHERE value IS NOT NULL AND (:device = '' OR device = :device)
)
SELECT @stamp_of(at_ms) AS moment, device, @round(value, 3) AS value, @round(mean, 3) AS expected, @round(value - mean, 3) AS "off"
FROM compared
WHERE known >= :before AND abs(value - mean) >= :least
    AND (value - mean) * (value - mean) > :deviations * :deviations * (squares - mean * mean)
ORDER BY moment, device
