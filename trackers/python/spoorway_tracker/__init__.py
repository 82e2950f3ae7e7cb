"""Events from Python programs that survive exit, fork and kill. README.md has the limits and the first steps."""

from spoorway_tracker.described import Described, InvalidData, describes, self_describing
from spoorway_tracker.outcomes import Refusal
from spoorway_tracker.subject import Subject, acting_as, current_subject
from spoorway_tracker.tracker import AsyncTracker, Tracker
from spoorway_tracker.version import __version__

__all__ = [
    "AsyncTracker",
    "Described",
    "InvalidData",
    "Refusal",
    "Subject",
    "Tracker",
    "__version__",
    "acting_as",
    "current_subject",
    "describes",
    "self_describing",
]
