"""The verbs: what happened -> one record in the queue. Nothing here touches the network, and nothing is thrown at the host.

An event gets its id and its time when it is tracked. What a call could not take is answered by a Refusal, which is false.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spoorway_tracker import events
from spoorway_tracker.delivery import Delivery
from spoorway_tracker.described import Described, InvalidData, described
from spoorway_tracker.outcomes import Counters, Refusal, Told, teller
from spoorway_tracker.queues import MemoryQueue, Queue
from spoorway_tracker.sender import Sender
from spoorway_tracker.subject import Subject, current_subject
from spoorway_tracker.transports import Transport, transport_for
from spoorway_tracker.version import TRACKER_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from spoorway_tracker.signing import Signer

Entity = Described | Mapping[str, Any] | object
"""{"schema": …, "data": …}, a Described, or an instance of a class made by self_describing."""
Entities = Sequence[Entity]

MAX_EVENT_BYTES = 1_000_000
"""The gateway takes bodies of 2 MiB."""


def default_folder() -> Path:
    """$SPOORWAY_TRACKER_FOLDER, or spoorway-tracker in the user's folder for program state."""
    from pathlib import Path  # here and below: only who has a folder pays for it

    if named := os.environ.get("SPOORWAY_TRACKER_FOLDER"):
        return Path(named)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "spoorway-tracker"


def folder_for(folder: str | Path | None, url: str) -> Path | None:
    """What an address has to itself in the folder; None where there is none, or no home to have it in."""
    if folder is None:
        return None
    from pathlib import Path

    try:
        where = default_folder() if folder == "default" else folder
    except RuntimeError:
        return None
    return Path(where) / "".join(c if c.isalnum() or c in ".-" else "_" for c in url.split("@")[-1])


def queue_in(
    folder: str | Path | None,
    url: str,
    max_bytes: int,
    max_age_s: float,
    told: Told,
    clock_ms: Callable[[], int],
) -> Queue:
    """The log in the folder, apart for each address; in memory for None, and, told, where there can be no folder."""
    where = folder_for(folder, url)
    try:
        if where is not None:
            from spoorway_tracker.disk import DiskQueue

            return DiskQueue(where, max_bytes, max_age_s, clock_ms)
        why = "no home folder" if folder is not None else ""
    except OSError as error:
        why = f"{where}: {error}"
    if why:
        told("no_folder", 0, f"{why}; events wait in memory and do not survive the process")
    return MemoryQueue(max_bytes, max_age_s, clock_ms)


def _signer(device: str, key: str, folder: str | Path | None, url: str, clock_ms: Callable[[], int]) -> Signer:
    """Raises ValueError."""
    from spoorway_tracker.signing import Signer  # only who signs pays for it

    if not url.startswith("http"):
        raise ValueError("device and key are for HTTP; over MQTT a device proves itself by its password, in the address")
    where = folder_for(folder, url)
    if where is None:
        raise ValueError("signing needs a folder: it counts messages, and the numbers must never go back")
    return Signer(device, key, where, clock_ms)


class _Ids:
    """Random UUIDs of version 4, many from one call to the system; a fork begins anew."""

    def __init__(self) -> None:
        self._digits: list[str] = []
        os.register_at_fork(after_in_child=self._digits.clear)

    def __call__(self) -> str:
        try:
            h = self._digits.pop()
        except IndexError:
            text = os.urandom(16 * 32).hex()
            h, *others = (text[at : at + 32] for at in range(0, len(text), 32))  # its own first: other threads take from the rest
            self._digits.extend(others)
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


new_id = _Ids()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Verbs:
    """What all fronts have in common.

    url: http(s)://HOST[:PORT][/PATH] or mqtt(s)://[USER:PASSWORD@]HOST[:PORT]/DEVICE. folder: where the log is; None = memory
    only. max_bytes, max_age_s: what may wait, and how long. on_error(reason, events, details) is called from the sending thread.
    device, key: HTTP requests are signed, in the name of this device. options: of the transport, see Http and Mqtt.
    Raises ValueError for a wrong address, platform or option; nothing after that.
    """

    def __init__(
        self,
        url: str,
        app_id: str = "",
        *,
        namespace: str = "",
        platform: str = "srv",
        subject: Subject | None = None,
        base64: bool = False,
        folder: str | Path | None = "default",
        max_bytes: int = 64 << 20,
        max_age_s: float = 30 * 86_400,
        batch_bytes: int = 200_000,
        linger_s: float = 1.0,
        sync_s: float = 0.2,
        timeout_s: float = 10.0,
        exit_limit_s: float = 2.0,
        background: bool = True,
        on_error: Told | None = None,
        device: str = "",
        key: str = "",
        transport: Transport | None = None,
        clock_ms: Callable[[], int] = now_ms,
        new_id: Callable[[], str] = new_id,
        **options: Any,
    ) -> None:
        self.counters = Counters()
        told = teller(on_error)
        if device or key:
            options["signer"] = _signer(device, key, folder, url, clock_ms)
        chosen = transport or transport_for(url, **options)
        always = {name: value for name, value in (("tv", TRACKER_VERSION), ("tna", namespace), ("aid", app_id)) if value}
        self._always = {**always, **Subject(platform=platform).parameters, **(subject.parameters if subject else {})}
        self._base64, self._clock_ms, self.new_id = base64, clock_ms, new_id
        self._global_entities: list[Entity] = []
        self._opted_out = False
        self._told = told
        queue = queue_in(folder, url, max_bytes, max_age_s, told, clock_ms)
        sender = Sender(queue, chosen, self.counters, batch_bytes, timeout_s, told, clock_ms)
        self.delivery = Delivery(
            queue, sender, self.counters, sync_s=sync_s, linger_s=linger_s, background=background, exit_limit_s=exit_limit_s
        )

    # The verbs ------------------------------------------------------------------------------------------------------

    def track_page_view(
        self, url: str, title: str | None = None, referrer: str | None = None, *, entities: Entities = (), true_ms: int |
        None = None,
        subject: Subject | None = None, durable: bool = False,
    ) -> str | Refusal:  # fmt: skip
        return self._track(lambda: events.page_view(url, title, referrer), entities, true_ms, subject, durable)

    def track_page_ping(
        self, url: str, title: str | None = None, referrer: str | None = None, min_x: int | None = None, max_x: int | None = None,
        min_y: int | None = None, max_y: int | None = None, *, entities: Entities = (), true_ms: int | None = None,
        subject: Subject | None = None, durable: bool = False,
    ) -> str | Refusal:  # fmt: skip
        offsets = (min_x, max_x, min_y, max_y)
        return self._track(lambda: events.page_ping(url, title, referrer, offsets), entities, true_ms, subject, durable)

    def track_screen_view(
        self, name: str, id: str | None = None, type: str | None = None, previous_name: str | None = None,
        previous_id: str | None = None, previous_type: str | None = None, transition_type: str | None = None, *,
        entities: Entities = (), true_ms: int | None = None, subject: Subject | None = None, durable: bool = False,
    ) -> str | Refusal:  # fmt: skip
        """id: of this showing of the screen, a UUID; made where none is given."""
        named = {
            "id": id or self.new_id(), "name": name, "type": type, "previousName": previous_name, "previousId": previous_id,
            "previousType": previous_type, "transitionType": transition_type,
        }  # fmt: skip
        data = {key: value for key, value in named.items() if value}
        return self._track(
            lambda: events.self_describing(events.SCREEN_VIEW, data, self._base64) if name else None,
            entities, true_ms, subject, durable,
        )  # fmt: skip

    def track_structured(
        self, category: str, action: str, label: str | None = None, property: str | None = None, value: float | None = None, *,
        entities: Entities = (), true_ms: int | None = None, subject: Subject | None = None, durable: bool = False,
    ) -> str | Refusal:  # fmt: skip
        return self._track(
            lambda: events.structured(category, action, label, property, value), entities, true_ms, subject, durable
        )

    def track_self_describing(
        self, schema: str | Entity, data: object = None, *, entities: Entities = (), true_ms: int | None = None,
        subject: Subject | None = None, durable: bool = False,
    ) -> str | Refusal:  # fmt: skip
        """schema and data, or one thing that says both: an instance of a class made by self_describing, or a Described."""

        def parameters() -> dict[str, str] | None:
            one = Described(schema, data) if isinstance(schema, str) else described(schema)
            return events.self_describing(one.schema, one.data, self._base64) if one.data is not None else None

        return self._track(parameters, entities, true_ms, subject, durable)

    def track_timing(
        self, category: str, variable: str, timing_ms: float, label: str | None = None, *, entities: Entities = (),
        true_ms: int | None = None, subject: Subject | None = None, durable: bool = False,
    ) -> str | Refusal:  # fmt: skip
        data: dict[str, object] = {"category": category, "variable": variable, "timing": timing_ms}
        if label:
            data["label"] = label
        return self._track(
            lambda: events.self_describing(events.TIMING, data, self._base64) if category and variable else None,
            entities, true_ms, subject, durable,
        )  # fmt: skip

    def track_parameters(self, parameters: Mapping[str, str], *, durable: bool = False) -> str | Refusal:
        """An event in the protocol's own words (`e` among them), for whoever has them already. Its `eid` and `dtm` are kept."""
        return self._track(lambda: dict(parameters) if parameters.get("e") else None, (), None, None, durable)

    # What goes with every event -------------------------------------------------------------------------------------

    def set_user_id(self, user_id: str | None) -> None:
        others = {name: value for name, value in self._always.items() if name != "uid"}
        self._always = {**others, "uid": user_id} if user_id else others

    def set_global_entities(self, entities: Entities) -> None:
        """In place of those that were set before."""
        self._global_entities = list(entities)

    def opt_out(self) -> None:
        """Nothing is taken from now on, in this process; what waits is still sent."""
        self._opted_out = True

    def opt_in(self) -> None:
        self._opted_out = False

    def health(self) -> dict[str, Any]:
        """Counters as an `io.spoorway/queue_health` entity, or, with track_self_describing, an event."""
        return self.counters.health(self.delivery.queue.pending_bytes())

    def _track(
        self, build: Callable[[], dict[str, str] | None], entities: Iterable[Entity], true_ms: int | None, subject: Subject |
        None,
        durable: bool,
    ) -> str | Refusal:  # fmt: skip
        if self._opted_out:
            return self.counters.refuse(Refusal.OPTED_OUT)
        try:
            parameters = build()
            if parameters is None:
                return self.counters.refuse(Refusal.EMPTY)
            if entities or self._global_entities:
                parameters |= events.entities([*self._global_entities, *entities], self._base64)
            if true_ms is not None:
                parameters["ttm"] = str(int(true_ms))
            now = self._clock_ms()
            event_id = parameters.setdefault("eid", self.new_id())
            parameters.setdefault("dtm", str(now))
            who = self._always
            for more in (current_subject.get(), subject):
                if more is not None:
                    who = who | more.parameters
            record = events.to_json(who | parameters).encode("utf-8", "replace")
        except InvalidData as error:
            self._told("invalid", 1, str(error))
            return self.counters.refuse(Refusal.INVALID)
        except Exception as error:  # whatever it was given, a tracker does not throw into its host
            self._told("not_json", 1, str(error))
            return self.counters.refuse(Refusal.NOT_JSON)
        if len(record) > MAX_EVENT_BYTES:
            return self.counters.refuse(Refusal.LARGE)
        refused = self.delivery.put(now, record, durable)
        return event_id if refused is None else refused


class Tracker(Verbs):
    """Sends from a thread of its own; with background=False only flush and close send. Arguments: see Verbs."""

    def flush(self, limit_s: float = 10.0) -> bool:
        """Sends what waits, for at most about limit_s. Whether the gateway has acknowledged all of it."""
        return self.delivery.flush(limit_s)

    def close(self, limit_s: float | None = None) -> bool:
        """As flush (None: exit_limit_s), and takes nothing more. What is left in the folder is for the next start."""
        return self.delivery.close(limit_s)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTracker(Verbs):
    """The same verbs, not awaited: tracking is one write into the log. What waits for disk or network leaves the loop free.

    Arguments: see Verbs. It sends from a thread, so that a busy loop delays no event. `async with` closes it at the end.
    """

    async def durable(self, verb: Callable[..., str | Refusal], *arguments: object, **named: object) -> str | Refusal:
        """`await tracker.durable(tracker.track_page_view, url)`: when it returns, the event is on the disk.

        Many at a time share one wait for the disk.
        """
        from asyncio import to_thread  # takes the context variables along

        return await to_thread(verb, *arguments, **named, durable=True)

    async def flush(self, limit_s: float = 10.0) -> bool:
        """See Tracker.flush."""
        from asyncio import to_thread

        return await to_thread(self.delivery.flush, limit_s)

    async def close(self, limit_s: float | None = None) -> bool:
        """See Tracker.close."""
        from asyncio import to_thread

        return await to_thread(self.delivery.close, limit_s)

    async def __aenter__(self) -> AsyncTracker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
