"""A board and a name -> a board with firmware, name and key. A step is a module; `spoorway.commands.flash` is their order.

Boards: what each needs. Ports: where it is. Firmware: what goes on it. Tools: other programs, under a time limit. Identity and
handshake: who it is from now on. Watching: its first event.
"""
