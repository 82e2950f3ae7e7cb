"""Bytes in: transports take payloads, the journal makes them durable; then, and only then, the sender is told.

Law: imports only `protocol`. Nothing here decodes, validates or splits a payload.
"""
