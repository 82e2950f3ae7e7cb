"""`spoorway worker`: enrich and load, as one of a group, what gateways wrote to Kafka or Kinesis, until a signal."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from protocol.seams import ConfigurationError
from spoorway import __version__
from spoorway.commands import Subparsers, address_or_off, command, log_to_stderr, settings
from spoorway.console import complain, host_text
from spoorway.files import prepare

if TYPE_CHECKING:
    from spoorway.config import Admin
    from spoorway.working import Worker


def add(subparsers: Subparsers) -> None:
    worker = command(
        subparsers,
        "worker",
        "load what gateways wrote to Kafka or Kinesis, as one of as many workers as you start",
        "spoorway worker --group spoorway\n"
        "spoorway worker --group spoorway --targets postgres --admin 0.0.0.0:8082\n"
        "spoorway worker --config spoorway.toml --admin off",
    )
    worker.add_argument(
        "--group", metavar="NAME", help="workers of one group share the work (default: as the journal's table says)"
    )
    worker.add_argument("--targets", metavar="NAME", nargs="+", help="those it loads (default: all that are configured)")
    worker.add_argument(
        "--admin",
        metavar="HOST:PORT|off",
        type=address_or_off,
        default=argparse.SUPPRESS,
        help="metrics and health (default: 127.0.0.1:8081)",
    )
    worker.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    worker.set_defaults(do=_worker)


def _worker(args: argparse.Namespace) -> int:
    from spoorway.supervisor import MISCONFIGURED
    from spoorway.working import Worker

    log_to_stderr()
    found = settings(args)
    prepare(found.data)
    try:
        worker = Worker(found, args.group, args.targets, supervised=args.supervised)
    except ConfigurationError as error:
        if not args.supervised:
            raise
        complain(str(error))
        return MISCONFIGURED
    if args.supervised:
        return worker.run()
    return _alone(worker, replace(found.admin, enabled=found.admin.enabled and getattr(args, "admin", ()) is not None))


def _alone(worker: Worker, options: Admin) -> int:
    from spoorway.admin import AdminServer, Answers
    from spoorway.metrics import render

    admin = AdminServer(options, Answers(metrics=lambda: render(worker.metrics()), unready=worker.unready))
    try:
        served = admin.start() if options.enabled else None
        print(f"spoorway worker {__version__}")
        print(f"  group   {worker.group}")
        print(f"  targets {', '.join(worker.targets)}")
        if served:
            print(f"  admin   http://{host_text(served[0])}:{served[1]}   /metrics, /health/ready")
        print("ready", flush=True)
        code = worker.run()
        print("spoorway: the batch under way is finished, the group is left", file=sys.stderr)
        return code
    finally:
        admin.stop()
