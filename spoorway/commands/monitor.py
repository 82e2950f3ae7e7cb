"""`spoorway monitor`: what a board says on its serial port, decoded. It answers nothing, so no event is lost by looking."""

from __future__ import annotations

import argparse
import json

from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.flashing.boards import BOARDS


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "monitor",
        "show what a board says on its serial port, decoded",
        "spoorway monitor uno\nspoorway monitor --port /dev/ttyUSB0 --baud 9600\nspoorway monitor uno --for 30 --json",
    )
    parser.add_argument("board", metavar="BOARD", nargs="?", choices=(*BOARDS,), help="to find its port: " + ", ".join(BOARDS))
    parser.add_argument("--port", help="where the board is (default: the one port it can be at)")
    parser.add_argument("--baud", type=int, default=115_200, help="default: 115200")
    parser.add_argument("--for", dest="seconds", metavar="S", type=float, help="end after so long (default: with Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(do=_monitor)


def _monitor(args: argparse.Namespace) -> int:
    from spoorway.flashing import ports
    from spoorway.flashing.decoding import as_object, described
    from spoorway.flashing.listening import listen

    found = settings(args)
    templates = building.templates(found)
    port = args.port or ports.choose(BOARDS[args.board or "uno"], ports.listed())
    with ports.borrowed(found.data, port):
        for item in listen(port, args.baud, args.seconds):
            if args.json:
                print(json.dumps(as_object(item, templates), ensure_ascii=False), flush=True)
            else:
                print("\n".join(described(item, templates)), flush=True)
    return 0


__all__ = ["add"]
