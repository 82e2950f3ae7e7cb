-- Exactly which events of which device never arrived?
--
-- Holes between event numbers that arrived in the period; what is missing at its edges is not seen. In the SQLite store the view
-- device_gaps knows these as well.
--
-- group: devices
-- parameter: top integer 100  how many holes, the largest first
-- column: device          its name
-- column: boot_id         which start of it
-- column: first_missing   number of the first missing event
-- column: last_missing    number of the last
-- column: missing         how many
-- column: after           when the event before them happened, UTC
-- column: before          when the event after them happened, UTC
-- chart: bar x=device y=missing
WITH told AS (
    SELECT @item(e.derived_contexts, x, 'device') AS device, CAST(@item(e.derived_contexts, x, 'boot_id') AS BIGINT) AS boot_id,
        CAST(@item(e.derived_contexts, x, 'sequence') AS BIGINT) AS sequence, e.derived_tstamp AS moment
    FROM @entities(e, derived_contexts, x, 'iglu:io.spoorway/device_time/jsonschema/1-')
    WHERE @asked(e) AND @is(e.derived_contexts, x, 'iglu:io.spoorway/device_time/jsonschema/1-')
), neighbours AS (
    SELECT device, boot_id, sequence, moment, lag(sequence) OVER (PARTITION BY device, boot_id ORDER BY sequence) AS before_it,
        lag(moment) OVER (PARTITION BY device, boot_id ORDER BY sequence) AS before_moment
    FROM told
    WHERE device IS NOT NULL
)
SELECT device, boot_id, before_it + 1 AS first_missing, sequence - 1 AS last_missing, sequence - before_it - 1 AS missing,
    @stamp(before_moment) AS after, @stamp(moment) AS before
FROM neighbours
WHERE sequence > before_it + 1
ORDER BY missing DESC, device, boot_id, first_missing
LIMIT :top
