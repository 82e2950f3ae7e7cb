"""The parts of the PostgreSQL target: connection, tables, values, typed views, ledger of devices."""
