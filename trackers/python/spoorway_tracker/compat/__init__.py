"""The names of `snowplow_tracker` 1.x on this tracker's core: change the import, and events outlive exit, fork and kill.

    from spoorway_tracker.compat import Snowplow, Tracker, Emitter, Subject, PageView, SelfDescribingJson

The same calls make the same parameters. What is meant to differ: `stm` has milliseconds; nothing is sent in the caller's
thread, so a
hung collector hangs nobody; a full queue refuses by bytes; an AsyncEmitter delivers at exit; logging.basicConfig is not called;
`session` (of requests) is not used; `request_timeout` is 10 s unless given.
"""

from spoorway_tracker.compat.emitters import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    EventStore,
    TrackerConfiguration,
    logger,
)
from spoorway_tracker.compat.events import (
    Event,
    PagePing,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Subject,
    disable_contracts,
    enable_contracts,
)
from spoorway_tracker.compat.tracker import Snowplow, Tracker

__all__ = [
    "AsyncEmitter",
    "Emitter",
    "EmitterConfiguration",
    "Event",
    "EventStore",
    "PagePing",
    "PageView",
    "ScreenView",
    "SelfDescribing",
    "SelfDescribingJson",
    "Snowplow",
    "StructuredEvent",
    "Subject",
    "Tracker",
    "TrackerConfiguration",
    "disable_contracts",
    "enable_contracts",
    "logger",
]
