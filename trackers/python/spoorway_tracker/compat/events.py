"""Subjects and events by the names of `snowplow_tracker`: a call's arguments -> wire parameters, none of them empty."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from spoorway_tracker.events import CONTEXTS, SCREEN_VIEW, UNSTRUCT_EVENT

Payload = dict[str, Any]
JsonEncoder = Callable[[Any], Any] | None

_PLATFORMS = ("pc", "tv", "mob", "cnsl", "iot", "web", "srv", "app", "headset")
NODES = ("INPUT", "TEXTAREA", "SELECT")
_contracts = [True]


def disable_contracts() -> None:
    _contracts[0] = False


def enable_contracts() -> None:
    _contracts[0] = True


def require(true: bool, what: str) -> None:
    if _contracts[0] and not true:
        raise ValueError(what)


def filled(value: object, name: str) -> None:
    require(isinstance(value, str) and value != "", f"{name} is empty.")


class SelfDescribingJson:
    def __init__(self, schema: str, data: Payload | list[Payload]) -> None:
        filled(schema, "schema")
        self.schema, self.data = schema, data

    def to_json(self) -> Payload:
        return {"schema": self.schema, "data": self.data}

    def to_string(self) -> str:
        return json.dumps(self.to_json())


class Subject:
    def __init__(self) -> None:
        self.standard_nv_pairs: Payload = {"p": "pc"}

    def _set(self, name: str, value: object) -> Subject:
        self.standard_nv_pairs[name] = value
        return self

    def _size(self, name: str, width: int, height: int) -> Subject:
        require(width > 0 and height > 0, f"{name}: must be greater than 0.")
        return self._set(name, f"{width}x{height}")

    def set_platform(self, value: str) -> Subject:
        require(value in _PLATFORMS, f"{value} is not supported.")
        return self._set("p", value)

    def set_user_id(self, user_id: str) -> Subject:
        return self._set("uid", user_id)

    def set_screen_resolution(self, width: int, height: int) -> Subject:
        return self._size("res", width, height)

    def set_viewport(self, width: int, height: int) -> Subject:
        return self._size("vp", width, height)

    def set_color_depth(self, depth: int) -> Subject:
        return self._set("cd", depth)

    def set_timezone(self, timezone: str) -> Subject:
        return self._set("tz", timezone)

    def set_lang(self, lang: str) -> Subject:
        return self._set("lang", lang)

    def set_domain_user_id(self, duid: str) -> Subject:
        return self._set("duid", duid)

    def set_domain_session_id(self, sid: str) -> Subject:
        return self._set("sid", sid)

    def set_domain_session_index(self, vid: int) -> Subject:
        return self._set("vid", vid)

    def set_ip_address(self, ip: str) -> Subject:
        return self._set("ip", ip)

    def set_useragent(self, ua: str) -> Subject:
        return self._set("ua", ua)

    def set_network_user_id(self, nuid: str) -> Subject:
        return self._set("tnuid", nuid)

    def combine_subject(self, subject: Subject | None) -> Payload:
        return {**(subject.standard_nv_pairs if subject is not None else {}), **self.standard_nv_pairs}


class Event:
    """parameters: what is sent of the event itself; empty values are not."""

    def __init__(
        self, dict_: Payload | None = None, event_subject: Subject | None = None, context: list[SelfDescribingJson] | None = None,
        true_timestamp: float | None = None,
    ) -> None:  # fmt: skip
        self.parameters: Payload = dict(dict_ or {})
        self.event_subject, self.context, self.true_timestamp = event_subject, context or [], true_timestamp

    def _add(self, **named: object) -> None:
        self.parameters |= {name: value for name, value in named.items() if value is not None and value != ""}

    def build_parameters(self, encode_base64: bool, json_encoder: JsonEncoder, subject: Subject | None = None) -> Payload:
        found = dict(self.parameters)
        if self.context:
            envelope = {"schema": CONTEXTS, "data": [one.to_json() for one in self.context]}
            found |= _json(envelope, encode_base64, "cx", "co", json_encoder)
        if isinstance(self.true_timestamp, (int, float)):
            found["ttm"] = int(self.true_timestamp)
        if self.event_subject is not None:
            found |= self.event_subject.combine_subject(subject)
        elif subject is not None:
            found |= subject.standard_nv_pairs
        return {name: value for name, value in found.items() if value is not None and value != ""}


def _json(value: Payload, encode: bool, encoded: str, plain: str, encoder: JsonEncoder) -> Payload:
    text = json.dumps(value, ensure_ascii=False, default=encoder)
    return {encoded: base64.urlsafe_b64encode(text.encode()).decode()} if encode else {plain: text}


class PageView(Event):
    def __init__(
        self, page_url: str, page_title: str | None = None, referrer: str | None = None, *rest: Any, **more: Any
    ) -> None:
        filled(page_url, "page_url")
        super().__init__(**_named(rest, more))
        self._add(e="pv", url=page_url, page=page_title, refr=referrer)


class PagePing(Event):
    def __init__(
        self, page_url: str, page_title: str | None = None, referrer: str | None = None, min_x: int | None = None,
        max_x: int | None = None, min_y: int | None = None, max_y: int | None = None, *rest: Any, **more: Any,
    ) -> None:  # fmt: skip
        filled(page_url, "page_url")
        super().__init__(**_named(rest, more))
        self._add(e="pp", url=page_url, page=page_title, refr=referrer, pp_mix=min_x, pp_max=max_x, pp_miy=min_y, pp_may=max_y)


class StructuredEvent(Event):
    def __init__(
        self,
        category: str,
        action: str,
        label: str | None = None,
        property_: str | None = None,
        value: float | None = None,
        *rest: Any,
        **more: Any,
    ) -> None:
        filled(category, "category")
        filled(action, "action")
        super().__init__(**_named(rest, more))
        self._add(e="se", se_ca=category, se_ac=action, se_la=label, se_pr=property_, se_va=value)


class SelfDescribing(Event):
    def __init__(self, event_json: SelfDescribingJson, *rest: Any, **more: Any) -> None:
        super().__init__(**_named(rest, more))
        self.event_json = event_json

    def build_parameters(self, encode_base64: bool, json_encoder: JsonEncoder, subject: Subject | None = None) -> Payload:
        envelope = {"schema": UNSTRUCT_EVENT, "data": self.event_json.to_json()}
        own = _json(envelope, encode_base64, "ue_px", "ue_pr", json_encoder)
        return {"e": "ue", **own, **super().build_parameters(encode_base64, json_encoder, subject)}


class ScreenView(SelfDescribing):
    def __init__(
        self, id_: str, name: str, type: str | None = None, previous_name: str | None = None, previous_id: str | None = None,
        previous_type: str | None = None, transition_type: str | None = None, *rest: Any, **more: Any,
    ) -> None:  # fmt: skip
        filled(id_, "id_")
        filled(name, "name")
        named = {
            "id": id_, "name": name, "type": type, "previousName": previous_name, "previousId": previous_id,
            "previousType": previous_type, "transitionType": transition_type,
        }  # fmt: skip
        super().__init__(
            SelfDescribingJson(SCREEN_VIEW, {key: value for key, value in named.items() if value is not None}), *rest, **more
        )


def _named(rest: tuple[Any, ...], more: Payload) -> Payload:
    """What all events take after their own arguments, by place or by name."""
    names = ("event_subject", "context", "true_timestamp")
    if len(rest) > len(names) or more.keys() - set(names[len(rest) :]):
        raise TypeError(f"unexpected argument; after an event's own there are {', '.join(names)}")
    return {**dict(zip(names, rest, strict=False)), **more}
