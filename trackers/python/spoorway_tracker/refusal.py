"""Why a call took nothing, by name. A value, never an exception: a tracker does not throw into its host."""

from __future__ import annotations

from enum import Enum


class Refusal(Enum):
    """False in a condition, where an event id is true: `if not (event_id := tracker.track_…(…)): …`"""

    OPTED_OUT = "opted_out"
    """opt_out() was called."""
    EMPTY = "empty"
    """A required argument is empty or missing."""
    NOT_JSON = "not_json"
    """The data of an event or entity has no form in JSON: NaN, a set, a cycle."""
    INVALID = "invalid"
    """The data does not fit the schema file it was declared with."""
    FULL = "full"
    """The queue has reached its `max_bytes`; what is in it is kept, the newest is refused."""
    LARGE = "large"
    """One event alone is larger than a request may be."""
    STORAGE = "storage"
    """The disk did not take it."""
    NOT_DURABLE = "not_durable"
    """durable=True, and the disk did not confirm. The event is in the queue and will be sent; a power cut may lose it."""
    CLOSED = "closed"
    """close() was called."""

    def __bool__(self) -> bool:
        return False
