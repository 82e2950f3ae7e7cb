"""`spoorway simulate`: devices that are not there, with faults that are, over the doors that real ones use."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from protocol.seams import ConfigurationError
from spoorway.commands import Subparsers, command, settings
from spoorway.console import Progress, table
from spoorway.files import read_json, running

if TYPE_CHECKING:
    from spoorway.simulate.history import Device
    from spoorway.simulate.running import Outcome, Sender

_MOST_DEVICES = 10_000
_MOST_PLANNED = 1_000_000_000
_MOST_EVENTS = 10_000_000
_AT_ONCE = 1_000
_WAYS = ("http", "mqtt", "serial")


def add(subparsers: Subparsers) -> None:
    from spoorway.simulate.history import FAULTS
    from spoorway.simulate.planning import LOGS, MOST_EVENTS, STORES
    from spoorway.simulate.profiles import PROFILES

    parser = command(
        subparsers,
        "simulate",
        "send what devices would send, faults on request, and say what was done to them",
        "spoorway simulate greenhouse --devices 20 --over mqtt\n"
        "spoorway simulate fleet --devices 100 --events 500 --fault gap --fault reboot --json\n"
        "spoorway simulate website --to http://127.0.0.1:8080 --pace 2\n"
        "spoorway simulate greenhouse --over serial --to /tmp/boards     # ports for: spoorway run --serial '/tmp/boards/*'\n"
        "spoorway simulate --plan\n"
        "spoorway simulate website --devices 50000 --plan --store postgres --assume node_hour=0.11 --json",
    )
    profiles = "; ".join(f"{name}: {profile.about}" for name, profile in PROFILES.items())
    parser.add_argument("profile", choices=PROFILES, nargs="?", help=profiles)
    parser.add_argument("--devices", type=_count(_MOST_PLANNED), default=10, metavar="N", help="how many (default: 10)")
    parser.add_argument("--first", type=_count(1_000_000), default=1, metavar="N", help="number of the first one (default: 1)")
    parser.add_argument("--events", type=_count(1_000_000), default=60, metavar="N", help="of each device (default: 60)")
    parser.add_argument("--batch", type=_count(1_000), metavar="N", help="events a message (default: 10; 3 over serial)")
    parser.add_argument("--over", choices=_WAYS, default="http", help="how they send (default: http)")
    parser.add_argument(
        "--to",
        metavar="PLACE",
        help="URL, HOST:PORT or, for serial, a folder for the ports (default: the gateway that runs on the data folder)",
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same events (default: 1)")
    faults = "; ".join(f"{name}: {about}" for name, about in FAULTS.items())
    parser.add_argument("--fault", choices=FAULTS, action="append", default=[], help=f"may be repeated; {faults}")
    parser.add_argument("--pace", type=float, default=0, metavar="N", help="events a second of each device (default: as taken)")
    parser.add_argument("--for", dest="limit_s", type=float, default=300, metavar="SECONDS", help="then give up (default: 300)")
    parser.add_argument("--json", action="store_true", help="what was sent and lost, device by device; with --plan, the plan")
    plan = parser.add_argument_group("without sending anything: what so many events take, in processes, nodes and money")
    plan.add_argument("--plan", action="store_true", help="count it, from measured figures; see docs/capacity.md")
    rates = "events a second, may be repeated (default: those of the devices, or 1000, 100000 and 1000000)"
    plan.add_argument("--rate", type=_count(MOST_EVENTS), action="append", metavar="N", help=rates)
    plan.add_argument("--log", choices=LOGS, default="kafka", help="what gateways write to (default: kafka)")
    plan.add_argument("--store", choices=STORES, default="s3", help="where events are stored (default: s3)")
    plan.add_argument("--assume", action="append", default=[], metavar="NAME=VALUE", help=f"one of {', '.join(_assumable())}")
    parser.set_defaults(do=_simulate)


def _assumable() -> list[str]:
    from spoorway.simulate.planning import Assumptions

    return [f"{field.name} ({field.default:g})" for field in dataclasses.fields(Assumptions)]


def _count(most: int) -> Any:
    def count(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a number from 1 to {most:,}, not {text!r}")
        return int(text)

    return count


def _simulate(args: argparse.Namespace) -> int:
    if args.plan:
        return _plan(args)
    from spoorway.simulate.history import Device
    from spoorway.simulate.running import simulate

    if args.profile is None:
        raise ConfigurationError("which devices? Say a profile, or --plan")
    if args.devices > _MOST_DEVICES:
        raise ConfigurationError(f"--devices: {_MOST_DEVICES:,} at most; with --plan there may be more")
    if args.devices * args.events > _MOST_EVENTS:
        raise ConfigurationError(f"--devices times --events: {_MOST_EVENTS:,} events at most, they are held in memory")
    place = args.to or _running(args)
    batch = args.batch or (3 if args.over == "serial" else 10)
    faults = frozenset(args.fault)
    numbers = range(args.first, args.first + args.devices)
    devices = [Device(args.profile, number, args.seed, args.events, batch, faults) for number in numbers]
    progress = Progress(f"{args.profile} over {args.over}", sum(len(m.events) for device in devices for m in device.messages))
    try:
        outcome = asyncio.run(
            simulate(
                devices,
                lambda device: _sender(args.over, place, device),
                seed=args.seed,
                offline="offline" in faults,
                pace=args.pace,
                limit_s=args.limit_s,
                at_once=_AT_ONCE,
                advance=progress.advance,
            )
        )
    except ExceptionGroup as failures:  # of the devices' tasks; one is as good as all
        raise failures.exceptions[0] from None
    finally:
        progress.close()
    _tell(outcome, as_json=args.json)
    return 1 if outcome.unsent else 0


def _sender(over: str, place: str, device: Device) -> Sender:
    if over == "serial":
        from spoorway.simulate.over_serial import SerialSender

        return SerialSender(place, device.name, device.last_boot)
    url = urlsplit(place if "://" in place else f"{over}://{place}")
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not host or url.scheme not in ("http", "mqtt"):
        raise ConfigurationError(f"--to: expected HOST:PORT or {over}://HOST:PORT, not {place!r}")
    if over == "mqtt":
        from spoorway.simulate.over_mqtt import MqttSender

        return MqttSender(host, port or 1883, device.name)
    from spoorway.simulate.over_http import HttpSender

    return HttpSender(host, port or 80, device.name, device.last_boot, None)


def _running(args: argparse.Namespace) -> str:
    if args.over == "serial":
        raise ConfigurationError("--over serial needs a folder for the ports: --to DIR, and spoorway run --serial 'DIR/*'")
    data = settings(args).data
    urls = (read_json(running(data)) or {}).get("urls", {}).get(args.over, [])
    if not urls:
        raise ConfigurationError(f"no gateway that takes {args.over} runs on {data}; start `spoorway run`, or say --to")
    return str(urls[0])


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    lost = sum(len(truth.lost) for truth in outcome.truths)
    resent = sum(truth.resent for truth in outcome.truths)
    if as_json:
        devices = [dataclasses.asdict(truth) for truth in outcome.truths]
        facts = {name: getattr(outcome, name) for name in ("events", "messages", "acknowledged", "attempts", "unsent", "seconds")}
        print(json.dumps({**facts, "lost": lost, "devices": devices}))
        return
    print(
        f"{len(outcome.truths):,} devices sent {outcome.events:,} events in {outcome.messages:,} messages "
        f"in {outcome.seconds:.1f} s; {lost:,} events lost on the way, {resent:,} messages sent again"
    )
    if outcome.unsent:
        print(f"{outcome.unsent:,} messages were not acknowledged in time")


def _plan(args: argparse.Namespace) -> int:
    from spoorway.simulate import planning
    from spoorway.simulate.profiles import PROFILES

    given: dict[str, str] = {}
    for text in args.assume:
        name, equals, given[name] = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--assume: expected NAME=VALUE, not {text!r}")
    assumed = planning.assumptions(given)
    of_devices = [args.devices / PROFILES[args.profile].interval_s] if args.profile else planning.RATES
    rates: Sequence[float] = args.rate or of_devices
    plans = [planning.plan(rate, assumed, args.log, args.store) for rate in rates]
    remarks = [said for rate, found in zip(rates, plans, strict=True) for said in planning.remarks(rate, found, assumed)]
    formulas = planning.formulas(args.log, args.store)
    if args.json:
        lines = {name: {"unit": unit, "formula": how} for name, unit, how in formulas}
        asked = {"log": args.log, "store": args.store, "assumptions": dataclasses.asdict(assumed)}
        by_rate = [{"rate": rate, **found} for rate, found in zip(rates, plans, strict=True)]
        print(json.dumps({**asked, "plans": by_rate, "remarks": remarks, "formulas": lines, "measured": planning.measured()}))
        return 0
    names = ["line", "unit", *(f"{rate:,.6g} events/s" if rate % 1 else f"{rate:,.0f} events/s" for rate in rates)]
    print(table(names, [[name, unit, *(_short(found[name]) for found in plans)] for name, unit, _ in formulas]))
    print("\nformulas:", *(f"{name} = {how}" for name, _, how in formulas), sep="\n  ")
    print("\nmeasured:", *(_figure(name, figure) for name, figure in planning.measured().items()), sep="\n  ")
    print("\nassumed:", *(f"{name} = {value:g}" for name, value in dataclasses.asdict(assumed).items()), sep="\n  ")
    print("\nPrices are examples. Linear: it says nothing of your network, your schemas or one customer who is half of it.")
    print(*remarks, sep="\n")
    return 0


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"


def _figure(name: str, figure: dict[str, Any]) -> str:
    busy = ", on a busy machine" if figure["busy"] else ""
    return f"{name} = {figure['value']:g} {figure['unit']}: {figure['about']} ({figure['measured']}{busy})"
