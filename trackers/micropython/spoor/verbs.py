"""The verbs of pages, screens, timings and the queue's health, on top of the core. `from spoor.verbs import Tracker`."""

from . import Tracker as Core
from . import uuid

_PAGE = "url page refr pp_mix pp_max pp_miy pp_may".split()
_SCREEN = "name id type previousName previousId previousType transitionType"


class Tracker(Core):
    """sent, resent, dropped_full: events. longest_outage_ms: from the first failure to the next success."""

    sent = resent = dropped_full = longest_outage_ms = _down = 0

    def insert(self, *args):
        eid = Core.insert(self, *args)
        if not eid and self.reason == "full":
            self.dropped_full += 1
        return eid

    def poll(self) -> int:
        step = self.step
        waits = Core.poll(self)
        if self.sleep_ms:
            self._down = self._down or self.uptime_ms()
        elif self._down:
            self.longest_outage_ms = max(self.longest_outage_ms, self.uptime_ms() - self._down)
            self._down = 0
        if self.step is not step:
            if self.step:  # a message is on its way
                if self.sleep_ms:
                    self.resent += len(self.items)
            elif not self.sleep_ms:  # it was taken
                self.sent += len(self.items)
        return waits

    def _describe(self, schema, count, keys, values, entities=(), true_ms=None):
        """The first `count` of the keys must have a value."""
        data = {}
        for name, value in zip(keys.split(), values):
            if value not in (None, ""):
                data[name] = value
            elif count > 0:
                schema = None
            count -= 1
        return self.track_self_describing(schema, data, entities, true_ms)

    def track_page_view(self, url, title=None, referrer=None, entities=(), true_ms=None):
        return self.insert("pv", 1, _PAGE, (url, title, referrer), entities, true_ms)

    def track_page_ping(
        self, url, title=None, referrer=None, min_x=None, max_x=None, min_y=None, max_y=None, entities=(), true_ms=None
    ):
        return self.insert("pp", 1, _PAGE, (url, title, referrer, min_x, max_x, min_y, max_y), entities, true_ms)

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
        return self._describe(schema, 1, _SCREEN, values, entities, true_ms)

    def track_timing(self, category, variable, timing_ms, label=None, entities=(), true_ms=None):
        values = (category, variable, timing_ms, label)
        schema = "iglu:com.snowplowanalytics.snowplow/timing/jsonschema/1-0-0"
        return self._describe(schema, 3, "category variable timing label", values, entities, true_ms)

    def track_queue_health(self):
        """How the queue fared since the start, as an event of its own."""
        names = "sent resent dropped_full dropped_large longest_outage_ms storage_errors queued_bytes last_sequence"
        values = [getattr(self, name) for name in names.split()[:5]]
        values += [getattr(self.queue, "errors", 0), self.queue.size, self.sequence]
        return self._describe("iglu:io.spoorway/queue_health/jsonschema/1-0-0", 0, names, values)
