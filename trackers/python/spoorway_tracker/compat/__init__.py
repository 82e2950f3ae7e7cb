"""The names of `snowplow_tracker` 1.x on this tracker's core: change the import, and events outlive exit, fork and kill.

The same calls make the same parameters. What differs on purpose: `stm` has milliseconds; nothing is sent in the caller's thread,
so a hung collector hangs nobody; a full queue refuses by bytes; an AsyncEmitter delivers at exit; basicConfig is not called;
`session` (of requests) is not used; `request_timeout` is 10 s unless given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from warnings import warn

from spoorway_tracker.compat.emitters import (
    AsyncEmitter,
    Emitter,
    EmitterConfiguration,
    EventStore,
    TrackerConfiguration,
    logger,
)  # fmt: skip
from spoorway_tracker.compat.events import (
    NODES,
    Event,
    JsonEncoder,
    PagePing,
    PageView,
    Payload,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Subject,
    disable_contracts,
    enable_contracts,
    filled,
    require,
)  # fmt: skip
from spoorway_tracker.tracker import new_id, now_ms
from spoorway_tracker.version import TRACKER_VERSION

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

Context = list[SelfDescribingJson] | None


class Tracker:
    def __init__(
        self, namespace: str, emitters: list[Emitter] | Emitter, subject: Subject | None = None, app_id: str | None = None,
        encode_base64: bool = True, json_encoder: JsonEncoder = None,
    ) -> None:  # fmt: skip
        self.emitters = list(emitters) if isinstance(emitters, list) else [emitters]
        require(bool(self.emitters), "emitters is empty.")
        self.subject: Subject | None = Subject() if subject is None else subject
        self.encode_base64, self.json_encoder = encode_base64, json_encoder
        self.standard_nv_pairs: Payload = {"tv": TRACKER_VERSION, "tna": namespace, "aid": app_id}

    @staticmethod
    def get_uuid() -> str:
        return new_id()

    @staticmethod
    def get_timestamp(tstamp: float | None = None) -> int:
        return int(tstamp) if isinstance(tstamp, (int, float)) else now_ms()

    def track(self, event: Event) -> str | None:
        found = event.build_parameters(self.encode_base64, self.json_encoder, self.subject)
        event_id = self.get_uuid()
        found |= {"eid": event_id, "dtm": self.get_timestamp()}
        found |= {name: value for name, value in self.standard_nv_pairs.items() if value}
        for emitter in self.emitters:
            emitter.input(found)
        return event_id

    def flush(self, is_async: bool = False) -> Tracker:
        for emitter in self.emitters:
            if is_async:
                emitter.flush()
            else:
                emitter.sync_flush()
        return self

    def set_subject(self, subject: Subject | None) -> Tracker:
        self.subject = subject
        return self

    def add_emitter(self, emitter: Emitter) -> Tracker:
        self.emitters.append(emitter)
        return self

    def get_namespace(self) -> str:
        return str(self.standard_nv_pairs["tna"])

    # The older verbs, deprecated in snowplow_tracker 1.x --------------------------------------------------------------

    def _older(self, event: Event, level: int = 3) -> Tracker:
        text = "the track_… methods are deprecated, as in snowplow_tracker: use track() with an event"
        warn(text, DeprecationWarning, stacklevel=level)
        self.track(event)
        return self

    def _described(self, name: str, properties: Payload, *more: Any, level: int = 4) -> Tracker:
        data = {key: value for key, value in properties.items() if value is not None}
        described = SelfDescribingJson(f"iglu:com.snowplowanalytics.snowplow/{name}", data)
        return self._older(SelfDescribing(described, **_more(*more)), level)

    def track_page_view(
        self, page_url: str, page_title: str | None = None, referrer: str | None = None, context: Context = None,
        tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        more = _more(context, tstamp, event_subject)
        return self._older(PageView(page_url, page_title, referrer, **more))

    def track_page_ping(
        self, page_url: str, page_title: str | None = None, referrer: str | None = None, min_x: int | None = None,
        max_x: int | None = None, min_y: int | None = None, max_y: int | None = None, context: Context = None,
        tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        more = _more(context, tstamp, event_subject)
        return self._older(PagePing(page_url, page_title, referrer, min_x, max_x, min_y, max_y, **more))

    def track_struct_event(
        self, category: str, action: str, label: str | None = None, property_: str | None = None, value: float | None = None,
        context: Context = None, tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        more = _more(context, tstamp, event_subject)
        return self._older(StructuredEvent(category, action, label, property_, value, **more))

    def track_self_describing_event(
        self,
        event_json: SelfDescribingJson,
        context: Context = None,
        tstamp: float | None = None,
        event_subject: Subject | None = None,
    ) -> Tracker:
        return self._older(SelfDescribing(event_json, **_more(context, tstamp, event_subject)))

    track_unstruct_event = track_self_describing_event

    def track_mobile_screen_view(
        self, name: str, id_: str | None = None, type: str | None = None, previous_name: str | None = None,
        previous_id: str | None = None, previous_type: str | None = None, transition_type: str | None = None,
        context: Context = None, tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        named = (id_ or self.get_uuid(), name, type, previous_name, previous_id, previous_type, transition_type)
        return self._older(ScreenView(*named, **_more(context, tstamp, event_subject)))

    def track_screen_view(
        self, name: str | None = None, id_: str | None = None, context: Context = None, tstamp: float | None = None,
        event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        return self._described("screen_view/jsonschema/1-0-0", {"name": name, "id": id_}, context, tstamp, event_subject)

    def track_link_click(
        self, target_url: str, element_id: str | None = None, element_classes: Any = None, element_target: str | None = None,
        element_content: str | None = None, context: Context = None, tstamp: float | None = None, event_subject: Subject |
        None = None,
    ) -> Tracker:  # fmt: skip
        filled(target_url, "target_url")
        properties = {
            "targetUrl": target_url, "elementId": element_id, "elementClasses": element_classes, "elementTarget": element_target,
            "elementContent": element_content,
        }  # fmt: skip
        return self._described("link_click/jsonschema/1-0-1", properties, context, tstamp, event_subject)

    def _cart(self, what: str, sku: str, *rest: Any) -> Tracker:
        filled(sku, "sku")
        names = ("sku", "quantity", "name", "category", "unitPrice", "currency")
        properties: Payload = dict(zip(names, (sku, *rest), strict=False))
        return self._described(f"{what}/jsonschema/1-0-0", properties, *rest[5:], level=5)

    def track_add_to_cart(
        self, sku: str, quantity: int, name: str | None = None, category: str | None = None, unit_price: float | None = None,
        currency: str | None = None, context: Context = None, tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        return self._cart("add_to_cart", sku, quantity, name, category, unit_price, currency, context, tstamp, event_subject)

    def track_remove_from_cart(
        self, sku: str, quantity: int, name: str | None = None, category: str | None = None, unit_price: float | None = None,
        currency: str | None = None, context: Context = None, tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        return self._cart("remove_from_cart", sku, quantity, name, category, unit_price, currency, context, tstamp, event_subject)

    def track_form_change(
        self, form_id: str, element_id: str | None, node_name: str, value: str | None, type_: str | None = None,
        element_classes: Any = None, context: Context = None, tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        filled(form_id, "form_id")
        require(node_name in NODES, "node_name is not supported.")
        data = {"formId": form_id, "elementId": element_id, "nodeName": node_name, "value": value}  # null is a value of these
        data |= {key: v for key, v in {"type": type_, "elementClasses": element_classes}.items() if v is not None}
        schema = "iglu:com.snowplowanalytics.snowplow/change_form/jsonschema/1-0-0"
        return self._older(SelfDescribing(SelfDescribingJson(schema, data), **_more(context, tstamp, event_subject)))

    def track_form_submit(
        self, form_id: str, form_classes: Any = None, elements: list[Payload] | None = None, context: Context = None,
        tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        filled(form_id, "form_id")
        for element in elements or []:
            require({"name", "value", "nodeName"} <= element.keys() and element["nodeName"] in NODES, "element is not allowed.")
        properties = {"formId": form_id, "formClasses": form_classes, "elements": elements or None}
        return self._described("submit_form/jsonschema/1-0-0", properties, context, tstamp, event_subject)

    def track_site_search(
        self, terms: Sequence[str], filters: Payload | None = None, total_results: int | None = None, page_results: int |
        None = None,
        context: Context = None, tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        require(len(terms) > 0, "terms is empty.")
        properties = {"terms": terms, "filters": filters, "totalResults": total_results, "pageResults": page_results}
        return self._described("site_search/jsonschema/1-0-0", properties, context, tstamp, event_subject)

    def track_ecommerce_transaction_item(
        self, order_id: str, sku: str, price: float, quantity: int, name: str | None = None, category: str | None = None,
        currency: str | None = None, context: Context = None, tstamp: float | None = None, event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        filled(order_id, "order_id")
        filled(sku, "sku")
        named = {
            "e": "ti", "ti_id": order_id, "ti_sk": sku, "ti_nm": name, "ti_ca": category, "ti_pr": price, "ti_qu": quantity,
            "ti_cu": currency,
        }  # fmt: skip
        return self._older(Event(named, **_more(context, tstamp, event_subject)))

    def track_ecommerce_transaction(
        self, order_id: str, total_value: float, affiliation: str | None = None, tax_value: float | None = None,
        shipping: float | None = None, city: str | None = None, state: str | None = None, country: str | None = None,
        currency: str | None = None, items: list[Payload] | None = None, context: Context = None, tstamp: float | None = None,
        event_subject: Subject | None = None,
    ) -> Tracker:  # fmt: skip
        filled(order_id, "order_id")
        named = {
            "e": "tr", "tr_id": order_id, "tr_tt": total_value, "tr_af": affiliation, "tr_tx": tax_value, "tr_sh": shipping,
            "tr_ci": city, "tr_st": state, "tr_co": country, "tr_cu": currency,
        }  # fmt: skip
        self._older(Event(named, **_more(context, tstamp, event_subject)))
        more: Payload = {"order_id": order_id, "currency": currency, "context": context, "event_subject": event_subject}
        for item in items or []:
            arguments: Payload = {**item, **more, "tstamp": self.get_timestamp(tstamp)}
            self.track_ecommerce_transaction_item(**arguments)
        return self


def _more(context: Context, tstamp: float | None, event_subject: Subject | None) -> Payload:
    return {"context": context, "true_timestamp": tstamp, "event_subject": event_subject}


class Snowplow:
    _trackers: dict[str, Tracker] = {}  # noqa: RUF012  as in snowplow_tracker: one register for the program

    @staticmethod
    def create_tracker(
        namespace: str, endpoint: str, method: str = "post", app_id: str | None = None, subject: Subject | None = None,
        tracker_config: TrackerConfiguration | None = None, emitter_config: EmitterConfiguration | None = None,
    ) -> Tracker:  # fmt: skip
        if not endpoint:
            raise TypeError("Emitter or Collector URL must be provided")
        e, t = emitter_config or EmitterConfiguration(), tracker_config or TrackerConfiguration()
        emitter = Emitter(
            endpoint, method=method, batch_size=e.batch_size, on_success=e.on_success, on_failure=e.on_failure,
            byte_limit=e.byte_limit, request_timeout=e.request_timeout, buffer_capacity=e.buffer_capacity,
            custom_retry_codes=e.custom_retry_codes, event_store=e.event_store, session=e.session,
        )  # fmt: skip
        return Snowplow.add_tracker(Tracker(namespace, emitter, subject, app_id, t.encode_base64, t.json_encoder))

    @classmethod
    def add_tracker(cls, tracker: Tracker) -> Tracker:
        if tracker.get_namespace() in cls._trackers:
            raise TypeError("Tracker with this namespace already exists")
        cls._trackers[tracker.get_namespace()] = tracker
        return tracker

    @classmethod
    def remove_tracker(cls, tracker: Tracker) -> None:
        cls.remove_tracker_by_namespace(tracker.get_namespace())

    @classmethod
    def remove_tracker_by_namespace(cls, namespace: str) -> None:
        cls._trackers.pop(namespace, None)

    @classmethod
    def reset(cls) -> None:
        cls._trackers = {}

    @classmethod
    def get_tracker(cls, namespace: str) -> Tracker | None:
        return cls._trackers.get(namespace)
