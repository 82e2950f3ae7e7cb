-- What did a sensor measure, in even steps of time: the mean, the lowest and the highest value of each step?
--
-- Reads one numeric property of one self-describing event. A step without a reading has no row. The time is that of measuring
-- (derived_tstamp), the device the one that the gateway knows, else the user id.
--
-- group: devices
-- events: :schema
-- parameter: vendor text io.spoorway  of the event's schema
-- parameter: schema text environment_reading  the event's schema
-- parameter: field text temperature_celsius  the property; a dot leads into an object
-- parameter: device text ''  one device; empty for each of them
-- parameter: step_s integer 3600  seconds of a step
-- column: step       when the step begins, UTC
-- column: device     whose readings
-- column: mean       of the step
-- column: lowest     of the step
-- column: highest    of the step
-- column: readings   how many there were
-- chart: line x=step y=mean color=device
WITH readings AS MATERIALIZED (
    SELECT coalesce(@one(e.derived_contexts, 'iglu:io.spoorway/device_time/jsonschema/1-', 'device'), e.user_id, '') AS device,
        @ms(e.derived_tstamp) AS at_ms, @data_number(e, :field) AS value
    FROM atomic.events AS e @told(e, :vendor, :schema) @first(e, 'iglu:io.spoorway/device_time/jsonschema/1-')
    WHERE @asked(e) AND e.event = 'unstruct' AND e.event_vendor = :vendor AND e.event_name = :schema
), steps AS (
    SELECT @div(at_ms, :step_s * 1000) AS number, device, value
    FROM readings
    WHERE value IS NOT NULL AND (:device = '' OR device = :device)
), summed AS (
    SELECT number, device, avg(value) AS mean, min(value) AS lowest, max(value) AS highest, count(*) AS readings
    FROM steps
    GROUP BY number, device
)
SELECT @stamp_of(number * :step_s * 1000) AS step, device, @round(mean, 3) AS mean, @round(lowest, 3) AS lowest,
    @round(highest, 3) AS highest, readings
FROM summed
ORDER BY number, device
