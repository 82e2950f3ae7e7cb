"""Parts of the access-log transport: what a line says, where files lie, how far they were read.

gateway/transports/access_log.py is the tour."""
