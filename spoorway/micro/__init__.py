"""The test server: events are enriched and kept in memory before their sender is answered, and read back as JSON.

For the tests of applications that track. Nothing is written to disk and nothing survives the process.
"""
