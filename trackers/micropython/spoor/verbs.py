"""The verbs of pages, screens, timings and the queue's health, on top of the core. `from spoor.verbs import Tracker`."""

from . import SNOWPLOW, uuid
from . import Tracker as Core

_PAGE = "url page refr pp_mix pp_max pp_miy pp_may"
_SCREEN = "name id type previousName previousId previousType transitionType"


class Tracker(Core):
    def track_page_view(self, url, title=None, referrer=None, entities=(), true_ms=None):
        return self._track("pv", 1, _PAGE, (url, title, referrer), entities, true_ms)

    def track_page_ping(
        self, url, title=None, referrer=None, min_x=None, max_x=None, min_y=None, max_y=None, entities=(), true_ms=None
    ):
        return self._track("pp", 1, _PAGE, (url, title, referrer, min_x, max_x, min_y, max_y), entities, true_ms)

    def track_screen_view(
        self,
        name,
        id=None,
        type=None,
        previous_name=None,
        previous_id=None,
        previous_type=None,
        transition_type=None,
        entities=(),
        true_ms=None,
    ):
        values = (name, id or uuid(), type, previous_name, previous_id, previous_type, transition_type)
        schema = "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0"
        return self._track(schema, 1, _SCREEN, values, entities, true_ms)

    def track_timing(self, category, variable, timing_ms, label=None, entities=(), true_ms=None):
        values = (category, variable, timing_ms, label)
        return self._track(SNOWPLOW % ("timing", 0), 3, "category variable timing label", values, entities, true_ms)

    def track_queue_health(self):
        """How the queue fared since the start, as an event of its own."""
        names = "sent resent dropped_full dropped_large longest_outage_ms storage_errors queued_bytes last_sequence"
        values = [getattr(self, name) for name in names.split()[:5]]
        values += [self.queue.errors, self.queue.size, self.sequence]
        return self._track("iglu:io.spoorway/queue_health/jsonschema/1-0-0", 0, names, values, (), None)
