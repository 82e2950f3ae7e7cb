"""The asyncio front: the same verbs, and waiting that leaves the loop free.

Tracking is one write into the log, some microseconds, and is not awaited. What waits for the disk or the network is:
durable, flush, close.
The network work itself is in the tracker's thread, so that a busy loop delays no event and a slow disk delays no task.
"""

from __future__ import annotations

from collections.abc import Callable

from spoorway_tracker.outcomes import Refusal
from spoorway_tracker.tracker import Verbs


class AsyncTracker(Verbs):
    """Arguments: see Verbs. `async with AsyncTracker(…) as tracker` closes it at the end."""

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
