"""`spoorway run`, `gateway`, `load`: everything, or one stage alone, until a signal."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from protocol.seams import ConfigurationError
from spoorway import __version__
from spoorway.commands import Subparsers, address, address_or_off, command, log_to_stderr, settings
from spoorway.console import complain, host_text
from spoorway.files import prepare, running, write_json

if TYPE_CHECKING:
    import asyncio

    from spoorway.config import Settings
    from spoorway.supervisor import LoaderProcess

_FINISH_S = 20.0
_OPEN_FILES = 16_384


def add(subparsers: Subparsers) -> None:
    run = command(
        subparsers,
        "run",
        "take events in and load them: gateway and loaders, supervised",
        "spoorway run\nspoorway run --http 0.0.0.0:8080 --data /var/lib/spoorway\nspoorway run --config spoorway.toml",
    )
    gateway = command(subparsers, "gateway", "take events in, without loading them", "spoorway gateway --http 0.0.0.0:8080")
    load = command(subparsers, "load", "load what the journal holds, without taking events in", "spoorway load --once")
    for parser in (run, gateway):
        parser.add_argument("--http", metavar="HOST:PORT", type=address, help="where trackers send (default: 127.0.0.1:8080)")
        parser.add_argument(
            "--mqtt",
            metavar="HOST:PORT|off",
            type=address_or_off,
            default=argparse.SUPPRESS,
            help="where devices publish, usually 127.0.0.1:1883 (default: off)",
        )
        parser.add_argument(
            "--serial", metavar="GLOB", nargs="+", help="ports of boards that send lines, such as '/dev/ttyUSB*'; - is stdin"
        )
        parser.add_argument("--admin", metavar="HOST:PORT", type=address, help="metrics and health (default: 127.0.0.1:8081)")
    load.add_argument("--once", action="store_true", help="end when the end of the journal is reached")
    load.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    run.set_defaults(do=_run)
    gateway.set_defaults(do=_gateway)
    load.set_defaults(do=_load)


def _run(args: argparse.Namespace) -> int:
    from spoorway.supervisor import LoaderProcess

    log_to_stderr()
    found = settings(args)
    prepare(found.data)
    arguments = ["--data", str(found.data)]
    if args.config is not None:
        arguments += ["--config", str(args.config)]
    loader = LoaderProcess(arguments, "worker" if found.remote() else "load")
    loader.start()  # first, so that it starts while this process imports what listens
    try:
        code = _serve(found, loader)
    finally:
        loader.finish(_FINISH_S)
    return 1 if loader.misconfigured else code


def _gateway(args: argparse.Namespace) -> int:
    log_to_stderr()
    found = settings(args)
    prepare(found.data)
    return _serve(found, None)


def _load(args: argparse.Namespace) -> int:
    from spoorway.loading import Loading
    from spoorway.supervisor import MISCONFIGURED

    log_to_stderr()
    found = settings(args)
    prepare(found.data)
    try:
        if remote := found.remote():
            raise ConfigurationError(f"journal.{remote.name}: events are not in files here; load them with `spoorway worker`")
        loading = Loading(found, supervised=args.supervised)
    except ConfigurationError as error:
        if not args.supervised:
            raise
        complain(str(error))
        return MISCONFIGURED
    return loading.run(once=args.once)


def _serve(found: Settings, loader: LoaderProcess | None) -> int:
    import asyncio  # who only loads does without

    _raise_file_limit()
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        return runner.run(_main(found, loader))


async def _main(found: Settings, loader: LoaderProcess | None) -> int:
    import asyncio

    from spoorway.admin import AdminServer, Answers
    from spoorway.intake import Intake
    from spoorway.metrics import render

    intake = Intake(found)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    admin = AdminServer(
        found.admin,
        Answers(
            metrics=lambda: render([*intake.metrics(), *(loader.metrics() if loader else ())]),
            unready=lambda: intake.unready() or (loader.unready() if loader else ""),
        ),
    )
    await intake.start()
    if loader is not None:
        loop = asyncio.get_running_loop()
        loader.when_misconfigured(lambda: loop.call_soon_threadsafe(ending.set))
    try:
        served = admin.start() if found.admin.enabled else None
        _announce(found, intake.urls, served)
        await ending.wait()
        print("spoorway: finishing what is under way", file=sys.stderr)
    finally:
        await intake.stop()
        admin.stop()
        with suppress(FileNotFoundError):
            running(found.data).unlink()
    return 0


_OFFERED = {"http": "POST /com.snowplowanalytics.snowplow/tp2, GET /i", "mqtt": "spoorway/DEVICE/tp2, spoorway/DEVICE/tp1"}


def _announce(found: Settings, urls: dict[str, list[str]], admin: tuple[str, int] | None) -> None:
    admin_url = f"http://{host_text(admin[0])}:{admin[1]}" if admin else None
    state = {"pid": os.getpid(), "urls": urls, "admin": admin_url, "started_ms": time.time_ns() // 1_000_000}
    write_json(running(found.data), state)
    print(f"spoorway {__version__}")
    for name, places in urls.items():
        print(f"  {name:<6} {', '.join(places)}   {_OFFERED.get(places[0].partition(':')[0].rstrip('s'), '')}".rstrip())
    if admin_url:
        print(f"  admin  {admin_url}   /metrics, /health/ready")
    print(f"  data   {found.data}   journal/, events.db")
    print("ready", flush=True)


def _fast_loop() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


def _raise_file_limit() -> None:
    """Connections are files: a soft limit of 1,024 would refuse them before our own limit does, without an answer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
