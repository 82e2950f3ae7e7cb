"""What is told of the register of devices: its metrics, and the warnings of `doctor` and of the start."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from gateway.devices.book import Book, signing
from gateway.devices.credentials import MasterKey
from gateway.devices.issuing import book_file, master_key_file, mismatch
from gateway.devices.register import Register
from protocol.seams import ConfigurationError, PermanentError, TransientError
from spoorway.config import Instance, Settings
from spoorway.metrics import Metric

HERE = ("127.0.0.1", "::1", "localhost")


def exposed(instance: Instance) -> str | None:
    """The address beyond this machine where a transport listens without TLS."""
    host: str = getattr(instance.config, "host", "127.0.0.1")
    return host if host not in HERE and not getattr(instance.config, "tls_certificate", "") else None


def anonymous(instance: Instance) -> str | None:
    """The address beyond this machine where devices may speak without saying who they are."""
    host: str = getattr(instance.config, "host", "127.0.0.1")
    return host if host not in HERE and getattr(instance.config, "identity", "") == "optional" else None


def start_warnings(found: Settings) -> Iterator[str]:
    """What is said when a gateway starts; of the keys the register speaks itself. Raises ConfigurationError."""
    devices = book_file(found.data).exists()
    for instance in found.transports():
        place = f"gateway.transports.{instance.name}"
        if (instance.use == "mqtt" or (instance.use == "http" and devices)) and (host := exposed(instance)):
            yield f"{place} listens on {host} without TLS: what devices send can be read on the way, passwords too"
        if host := anonymous(instance):
            yield f'{place} takes messages on {host} from anybody; identity = "required" ends that'


def findings(found: Settings) -> Iterator[tuple[str, str]]:
    """(state, message) of `doctor`: ok, warning or wrong."""
    for instance in found.transports():
        if host := anonymous(instance):
            yield "warning", f'{instance.name} takes messages on {host} from anybody; identity = "required" ends that'
    path, key = book_file(found.data), MasterKey(master_key_file(found.data))
    if not path.exists():
        return
    try:
        book = Book(path)
    except ConfigurationError as error:
        yield "wrong", str(error)
        return
    try:
        records = book.records()
        if any(signing(records)) and (trouble := mismatch(book, key)):
            yield "wrong", f"{trouble}; until then messages that are signed have to wait"
    except (PermanentError, TransientError) as error:
        yield "wrong", str(error)
        return
    finally:
        book.close()
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield "warning", f"{path} can be used by others than its owner (mode {mode:04o}); chmod 600 {path}"
    states = [record.state for record in records]
    yield "ok", ", ".join(f"{states.count(state):,} {state}" for state in ("active", "waiting", "revoked"))


def device_metrics(devices: Register) -> list[Metric]:
    counters = devices.counters
    return [
        Metric("devices", "gauge", "Devices in the register.",
               [({"state": state}, count) for state, count in devices.states().items()]),
        Metric("device_logins", "counter", "Logins that proved a device.", [({}, counters.logins)]),
        Metric("device_messages", "counter", "Signed messages taken, and copies of them that were acknowledged.",
               [({"outcome": "taken"}, counters.messages), ({"outcome": "repeated"}, counters.repeated)]),
        Metric("device_refusals", "counter", "Logins and signed messages refused.",
               [({"reason": reason}, count) for reason, count in counters.refusals.items()]),
        Metric("device_delays", "counter", "Payloads told to wait for their device's limits.", [({}, counters.delayed)]),
        Metric("device_claims", "counter", "Claim codes redeemed, and wrong ones.",
               [({"outcome": "redeemed"}, counters.claims), ({"outcome": "wrong"}, counters.wrong_claims)]),
    ]  # fmt: skip
