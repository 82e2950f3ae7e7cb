"""Emitters by the names of `snowplow_tracker`: parameters -> this tracker's queue. Nothing is sent in the caller's thread."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from spoorway_tracker.compat.events import JsonEncoder, Payload, require
from spoorway_tracker.delivery import Delivery
from spoorway_tracker.outcomes import Counters, teller
from spoorway_tracker.queues import Queue
from spoorway_tracker.sender import Sender
from spoorway_tracker.tracker import now_ms, queue_in
from spoorway_tracker.transports import transport_for

logger = logging.getLogger("spoorway_tracker")


class EventStore(Protocol):
    """Of the user's own: it holds events until a flush takes them; from then on they are in this tracker's queue."""

    def add_event(self, payload: Payload) -> bool: ...

    def get_events_batch(self) -> list[Payload]: ...

    def cleanup(self, batch: list[Payload], need_retry: bool) -> None: ...

    def size(self) -> int: ...


class EmitterConfiguration:
    def __init__(
        self, batch_size: int | None = None, on_success: Callable[[list[Payload]], None] | None = None,
        on_failure: Callable[[int, list[Payload]], None] | None = None, byte_limit: int | None = None,
        request_timeout: float | tuple[float, float] | None = None, buffer_capacity: int | None = None,
        custom_retry_codes: dict[int, bool] | None = None, event_store: EventStore | None = None, session: object = None,
    ) -> None:  # fmt: skip
        self.batch_size, self.on_success, self.on_failure, self.byte_limit = batch_size, on_success, on_failure, byte_limit
        self.request_timeout, self.buffer_capacity, self.event_store = request_timeout, buffer_capacity, event_store
        self.custom_retry_codes, self.session = dict(custom_retry_codes or {}), session

    def set_retry_code(self, status_code: int, retry: bool = True) -> bool:
        if 200 <= status_code < 300:
            return False
        self.custom_retry_codes[status_code] = retry
        return True


class TrackerConfiguration:
    def __init__(self, encode_base64: bool = True, json_encoder: JsonEncoder = None) -> None:
        self.encode_base64, self.json_encoder = encode_base64, json_encoder


class Emitter:
    """folder: of the log, as in spoorway_tracker.Tracker; the other arguments are those of snowplow_tracker."""

    _protocol = "https"

    def __init__(
        self, endpoint: str, protocol: str | None = None, port: int | None = None, method: str = "post", batch_size: int |
        None = None,
        on_success: Callable[[list[Payload]], None] | None = None, on_failure: Callable[[int, list[Payload]], None] | None = None,
        byte_limit: int | None = None, request_timeout: float | tuple[float, float] | None = None, max_retry_delay_seconds:
        float = 60,
        buffer_capacity: int | None = None, custom_retry_codes: dict[int, bool] | None = None, event_store: EventStore | None
        = None,
        session: object = None, folder: str | None = "default",
    ) -> None:  # fmt: skip
        if not endpoint:
            raise ValueError("No endpoint provided.")
        protocol = protocol or self._protocol
        require(protocol in ("http", "https"), f"{protocol} is not supported.")
        require(method in ("get", "post"), f"{method} is not supported.")
        given, separator, _ = endpoint.rstrip("/").partition("://")
        url = endpoint.rstrip("/") if separator and given in ("http", "https") else f"{protocol}://{endpoint.rstrip('/')}"
        url += f":{port}" if port is not None else ""
        self.endpoint = url + ("/i" if method == "get" else "/com.snowplowanalytics.snowplow/tp2")
        self.batch_size = min(batch_size or (10 if method == "post" else 1), buffer_capacity or 1 << 62)
        self.event_store, self.on_success, self.on_failure = event_store, on_success, on_failure
        self._every: float | None = None
        counters, told = Counters(), teller(None)
        queue: Queue = queue_in(folder, url, (buffer_capacity or 100_000) * 2_000, 30 * 86_400, told, now_ms)
        timeout = max(request_timeout) if isinstance(request_timeout, tuple) else request_timeout or 10.0
        sender = Sender(
            queue, transport_for(url, method=method), counters, byte_limit or 200_000, timeout, told, now_ms,
            max_retry_delay_seconds, custom_retry_codes, self._succeeded, self._failed,
        )  # fmt: skip
        self.delivery = Delivery(queue, sender, counters)

    def _succeeded(self, records: Sequence[bytes]) -> None:
        self._tell(self.on_success, records)

    def _failed(self, records: Sequence[bytes]) -> None:
        self._tell(None if self.on_failure is None else lambda events: self.on_failure and self.on_failure(0, events), records)

    def _tell(self, function: Callable[[list[Payload]], Any] | None, records: Sequence[bytes]) -> None:
        if function is not None:
            try:
                function([json.loads(record) for record in records])
            except Exception:  # the host's callback runs in this tracker's thread, which must go on
                logger.exception("a callback failed")

    def input(self, payload: Payload) -> None:
        values = {name: str(value) for name, value in payload.items()}
        if self.event_store is not None:
            self.event_store.add_event(values)
            if self.event_store.size() >= self.batch_size:
                self._take_over()
        else:
            self._put([values])

    def _take_over(self) -> None:
        if self.event_store is not None:
            batch = self.event_store.get_events_batch()
            self._put(batch)
            self.event_store.cleanup(batch, False)

    def _put(self, each: Iterable[Payload]) -> None:
        for values in each:
            record = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            self.delivery.put(now_ms(), record)

    def flush(self) -> None:
        """Begins to send what waits, and does not wait for it."""
        self._take_over()
        self.delivery.flush(0)

    def async_flush(self) -> None:
        self.flush()

    def sync_flush(self) -> None:
        """Until all is acknowledged, for 10 s at most."""
        self._take_over()
        self.delivery.flush(10)

    def set_flush_timer(self, timeout: float) -> None:
        """Nothing to do: what waits is sent within a second."""

    def cancel_flush_timer(self) -> None:
        """See set_flush_timer."""


class AsyncEmitter(Emitter):
    """The same: an Emitter never sends in the caller's thread. thread_count is one."""

    _protocol = "http"

    def __init__(self, *arguments: Any, thread_count: int = 1, **named: Any) -> None:
        super().__init__(*arguments, **named)
