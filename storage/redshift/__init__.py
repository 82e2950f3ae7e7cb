"""The parts of the Redshift target: connection, tables, what a column holds, loading by COPY, failed events."""
