"""Meaning: RawPayload -> Event | FailedEvent.

Law: imports only `protocol`; no sockets, no files, no clock. What it needs arrives as an argument.
"""
