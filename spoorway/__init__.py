"""Wiring: the only room that knows all rooms."""

__version__ = "0.1.0"
