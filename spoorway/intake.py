"""The gateway process: transports -> journal, and the journal's housekeeping beside them.

The journal is the one in files, or a remote one with the one in files for when that is out of reach.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import Any

from gateway.devices.register import Register
from gateway.devices.seals import confirmed
from gateway.journal.keeping import Keeper
from gateway.journal.overflow import OverflowWriter, Remote
from gateway.journal.writer import FileWriter
from gateway.serial.lending import FOLDER as LENT_PORTS
from gateway.transports import Accept, Transport
from protocol.seams import Cursor, RawPayload, TransientError
from spoorway.config import Instance, Settings
from spoorway.console import host_text
from spoorway.devices import device_metrics, start_warnings
from spoorway.files import archive_file, cursor_file, journal_folder, read_archived, read_cursor
from spoorway.metrics import Metric
from spoorway.plugins import extra_of

log = logging.getLogger("spoorway.intake")

_ROUND_S = 5.0
# So long after a refusal we are called unready. Then somebody must be let through to find out: where a load balancer keeps all
# away from who is unready, nothing would ever be taken again.
_REFUSED_S = 15.0
_DAY_MS = 86_400_000


class Intake:
    """Call order: start -> (events flow) -> stop. Lives on one event loop."""

    def __init__(self, settings: Settings, clock_s: Callable[[], float] = time.monotonic) -> None:
        """clock_s: never goes back. Raises ConfigurationError."""
        self._settings, self._clock_s = settings, clock_s
        self._devices = Register(settings.data, settings.devices)
        self._names = [instance.name for instance in settings.transports()]
        self._transports: list[Transport] = [
            _placed(instance, settings.data).plugin(self._devices) for instance in settings.transports()
        ]
        self._targets = settings.target_names()
        self._remote = settings.remote()
        self._local: FileWriter | None = None
        self._writer: FileWriter | OverflowWriter | None = None
        self._trouble, self._refused_s = "", 0.0
        self._ending = Signal()
        self._keeping = Thread(target=self._keep, name="housekeeping", daemon=True)

    async def start(self) -> None:
        """Raises ConfigurationError, PermanentError, TransientError."""
        remote = _open(self._remote) if self._remote is not None else None
        self._writer = self._local = FileWriter.open(journal_folder(self._settings.data), self._settings.journal)
        if remote is not None:
            self._writer = OverflowWriter(remote, self._local, self._begun())
            self._writer.start()
        for warning in start_warnings(self._settings):
            log.warning(warning)
        await self._devices.start()
        accept = self._accepting()
        for transport in self._transports:
            await transport.start(accept)
        self._keeping.start()

    async def stop(self) -> None:
        """Takes nothing new, makes durable what was taken."""
        for transport in self._transports:
            await transport.stop()
        await self._devices.stop()
        self._ending.set()
        if self._writer is not None:
            await self._writer.close()

    @property
    def urls(self) -> dict[str, list[str]]:
        """Transport -> where it listens, for those that do. A transport's `scheme` is http unless it says otherwise."""
        found: dict[str, list[str]] = {}
        for name, transport in zip(self._names, self._transports, strict=True):
            scheme = getattr(transport, "scheme", "http")
            if places := getattr(transport, "addresses", None):
                found[name] = [f"{scheme}://{host_text(host)}:{port}" for host, port in places]
        return found

    def unready(self) -> str:
        """Why the journal refused, if it did just now."""
        return self._trouble if self._clock_s() - self._refused_s < _REFUSED_S else ""

    def metrics(self) -> list[Metric]:
        writer = self._writer
        found = [
            Metric("journal_payloads_accepted", "counter", "Payloads ever made durable in this process's lane.",
                   [({}, writer.accepted() if writer else 0)]),
            Metric("journal_free_bytes", "gauge", "Space left on the journal's file system.",
                   [({}, shutil.disk_usage(self._settings.data).free)]),
        ]  # fmt: skip
        pairs = zip(self._names, self._transports, strict=True)
        if isinstance(writer, OverflowWriter):
            found += overflow_metrics(writer)
        found += device_metrics(self._devices)
        return found + transport_metrics({name: c for name, t in pairs if (c := getattr(t, "counters", None)) is not None})

    def _accepting(self) -> Accept:
        """What transports get: it takes a payload, or, as `many`, a batch of them."""
        writer, devices = self._writer, self._devices
        assert writer is not None

        async def accept(payload: RawPayload) -> None:
            await self._durable(writer.append(confirmed(payload, devices)))

        async def many(payloads: Sequence[RawPayload]) -> None:
            await self._durable(writer.append_all([confirmed(payload, devices) for payload in payloads]))

        accept.many = many  # type: ignore[attr-defined]
        return accept

    async def _durable(self, written: Awaitable[None]) -> None:
        try:
            await written
        except TransientError as error:
            self._refused_s = self._clock_s()
            if self._trouble != str(error):
                self._trouble = str(error)
                log.error("the journal takes nothing: %s", error)
            raise
        if self._trouble:
            self._trouble = ""
            log.warning("the journal takes events again")

    def _stored(self) -> list[Cursor]:
        """What each of those that need the journal in files has of it."""
        cursors = [read_cursor(cursor_file(self._settings.data, target)) for target in self._targets]
        # A target whose place is not known has, as far as anybody can tell, stored nothing.
        stored = [cursor or {} for cursor in cursors]
        if url := self._settings.archive.url:
            stored.append(read_archived(archive_file(self._settings.data), url) or {})
        # Where there is neither a target nor an archive nobody has stored anything: another process may, some day.
        return stored or [{}]

    def _begun(self) -> Cursor:
        """What all targets had loaded from the journal in files before there was a remote one."""
        first, *others = self._stored()
        return {lane: min(at, *(other[lane] for other in others)) for lane, at in first.items() if all(lane in o for o in others)}

    def _keep(self) -> None:
        assert self._local is not None
        _stand_back()
        keeper, retention = Keeper(self._local), self._settings.retention
        keep_ms, keep_bytes = int(retention.journal_days * _DAY_MS) or None, retention.journal_bytes or None
        if isinstance(self._writer, OverflowWriter):
            keep_ms, keep_bytes = None, 0  # what was handed over is kept by the remote
        while not self._ending.wait(_ROUND_S):
            stored = [self._writer.handed_over()] if isinstance(self._writer, OverflowWriter) else self._stored()
            if (seen := self._devices.cursor()) is not None:
                stored.append(seen)
            try:
                kept = keeper.housekeep(
                    now_ms=time.time_ns() // 1_000_000,
                    stored=stored,
                    keep_ms=keep_ms,
                    keep_bytes=keep_bytes,
                    pause=self._ending.wait,
                )
            except OSError as error:
                log.error("housekeeping of the journal: %s", error)
                continue
            if kept.sealed or kept.deleted:
                log.info("journal: %d segments sealed, %d deleted", len(kept.sealed), len(kept.deleted))


def _open(remote: Instance) -> Remote:
    """Connects later. Raises ConfigurationError."""
    with extra_of(remote.name):
        if remote.name == "kafka":
            from gateway.journal.kafka.writer import KafkaWriter

            return KafkaWriter(remote.config)
        from gateway.journal.kinesis.writer import KinesisWriter

        return KinesisWriter(remote.config)


def _placed(instance: Instance, data: Path) -> Instance:
    """What a transport must remember lies in the data folder, under its name, unless it says otherwise."""
    places = {
        "sessions": data / f"{instance.name}.db",
        "state": data / f"{instance.name}.state.db",
        "lent": data / LENT_PORTS,
    }
    found = {option: str(place) for option, place in places.items() if getattr(instance.config, option, None) == ""}
    return dataclasses.replace(instance, config=dataclasses.replace(instance.config, **found)) if found else instance


def _stand_back() -> None:
    """Lets every other thread go first: compressing old segments is never urgent. Linux has priorities per thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def overflow_metrics(writer: OverflowWriter) -> list[Metric]:
    """Of a journal that is somewhere else, and of what this machine keeps for it meanwhile."""
    counts = writer.counts
    return [
        Metric("journal_remote_up", "gauge", "1 while the journal's servers take payloads, 0 while this machine's disk does.",
               [({}, int(not writer.trouble))]),
        Metric("journal_remote_payloads", "counter", "Payloads that the journal's servers acknowledged at once.",
               [({}, counts.remote)]),
        Metric("journal_overflow_payloads", "counter", "Payloads taken on this machine's disk instead.", [({}, counts.local)]),
        Metric("journal_overflow_handed_over", "counter", "Payloads of those handed over since.", [({}, counts.drained)]),
        Metric("journal_overflow_waiting", "gauge", "Payloads on this machine's disk that they do not have yet.",
               [({}, writer.waiting())]),
        Metric("journal_remote_errors", "counter", "How often the servers failed.", [({}, counts.errors)]),
    ]  # fmt: skip


def transport_metrics(counters: Mapping[str, Any]) -> list[Metric]:
    """What each transport measures, by its name; a metric that several of them have is one, told apart by label."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    found: list[Metric] = []
    for transport, measured in counters.items():
        for name, kind, about, values in measured.measures():
            if name not in samples:
                samples[name] = []
                found.append(Metric(name, kind, about, samples[name]))
            samples[name] += [({"transport": transport, **labels}, value) for labels, value in values]
    return found
