"""A whole archive -> an S3 target's files, on as many machines as Spark has; docs/spark.md describes it.

Spark schedules and shuffles keys, and knows nothing of events. Its tasks run the enrichment and the writers that one machine
runs, on a stretch of the archive each, and stage what they make where nobody reads. The driver plans, and commits all of it
with one conditional PUT (storage/lake/commits.py). The steps, in the order of `job.run`:

    plan.py         the archive's segments, in reading order, in stretches
    enriching.py    a stretch -> staged files, and a claim on the id of each event; or, where an enrichment remembers
                    (device_time, email_agent), notes of what it was asked: then, in notes.py, what one machine would have
                    known when it came to each stretch, and the stretch once more with that
    claims.py       claims -> which events came before, in whatever stretch; the staged files without them
    filling.py      the place that is filled: empty at the beginning, whole at the end, of one job only

engine.py says what a scheduler has to offer; cluster.py is Spark's, and the only module that knows PySpark.
"""
