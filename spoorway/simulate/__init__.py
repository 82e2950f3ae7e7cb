"""Devices that are not there: what they would have tracked, and what goes wrong with them, from a seed.

profiles -> history -> senders: what happens at a place, what of it a device keeps and loses, how it gets to a gateway.
"""
