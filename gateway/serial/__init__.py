"""Parts of the serial transport: the port itself, and what is said over it. gateway/transports/serial.py is the tour."""
