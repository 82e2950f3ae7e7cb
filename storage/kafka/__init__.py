"""Topics of Apache Kafka as a target: `client` connects, `records` makes records of events, `memory` keeps what came before.

The target itself is storage/targets/kafka.py; docs/kafka-target.md describes it.
"""
