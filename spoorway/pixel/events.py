"""What happened -> the parameters that say it. Values only: no URL, no clock, no ids.

Verbs, their arguments and what is refused are those of trackers/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

SCREEN_VIEW = "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0"
TIMING = "iglu:com.snowplowanalytics.snowplow/timing/jsonschema/1-0-0"
EMAIL_OPEN = "iglu:io.spoorway/email_open/jsonschema/1-0-0"
EMAIL_CLICK = "iglu:io.spoorway/email_click/jsonschema/1-0-0"


class PixelError(ValueError):
    """code: one word that stays the same; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SelfDescribing(TypedDict):
    schema: str
    data: Any


@dataclass(frozen=True, slots=True)
class Event:
    """parameters: as they are sent, in this order. data: of a self-describing event."""

    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    data: SelfDescribing | None = None


def page_view(url: str, title: str = "", referrer: str = "") -> Event:
    return Event({"e": "pv", "url": _needed(url, "url"), **_given(page=title, refr=referrer)})


def page_ping(
    url: str,
    title: str = "",
    referrer: str = "",
    min_x: int | None = None,
    max_x: int | None = None,
    min_y: int | None = None,
    max_y: int | None = None,
) -> Event:
    view = page_view(url, title, referrer).parameters
    return Event({**view, "e": "pp", **_given(pp_mix=min_x, pp_max=max_x, pp_miy=min_y, pp_may=max_y)})


def screen_view(
    name: str = "",
    id: str = "",
    type: str = "",
    previous_name: str = "",
    previous_id: str = "",
    previous_type: str = "",
    transition_type: str = "",
) -> Event:
    data = {"id": _needed(id, "id"), "name": _needed(name, "name")}
    more = _given(type=type, previousName=previous_name, previousId=previous_id, previousType=previous_type)
    return self_describing(SCREEN_VIEW, {**data, **more, **_given(transitionType=transition_type)})


def structured(category: str, action: str, label: str = "", property: str = "", value: float | str | None = None) -> Event:
    """value: a number, or its text, which is sent as it stands."""
    needed = {"se_ca": _needed(category, "category"), "se_ac": _needed(action, "action")}
    return Event({"e": "se", **needed, **_given(se_la=label, se_pr=property, se_va=value)})


def self_describing(schema: str, data: Any) -> Event:
    return Event({"e": "ue"}, {"schema": _needed(schema, "schema"), "data": data})


def timing(category: str, variable: str, timing_ms: int, label: str = "") -> Event:
    data = {"category": _needed(category, "category"), "variable": _needed(variable, "variable"), "timing": timing_ms}
    return self_describing(TIMING, {**data, **_given(label=label)})


def email_open(campaign: str = "", message: str = "", recipient: str = "", sent_ms: int | None = None) -> Event:
    """message: one text per copy that is sent, so that its openings can be told from those of other copies.

    recipient: a name of your own for the reader, no address. sent_ms: when this copy was sent, milliseconds since 1970.
    """
    return self_describing(EMAIL_OPEN, _copy(campaign, message, recipient, sent_ms))


def email_click(
    campaign: str = "",
    message: str = "",
    recipient: str = "",
    sent_ms: int | None = None,
    link: str = "",
    honeypot: bool = False,
) -> Event:
    """link: what you call it. honeypot: no reader sees it, so who follows it reads no mail. The rest as in email_open."""
    data = {**_copy(campaign, message, recipient, sent_ms), **_given(link=link)}
    return self_describing(EMAIL_CLICK, {**data, "honeypot": True} if honeypot else data)


def _copy(campaign: str, message: str, recipient: str, sent_ms: int | None) -> dict[str, Any]:
    data: dict[str, Any] = _given(campaign=campaign, message=message, recipient=recipient)
    return data if sent_ms is None else {**data, "sent_ms": sent_ms}


def _given(**values: str | float | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None and value != ""}


def _needed(text: str, name: str) -> str:
    if not text:
        raise PixelError("missing", f"{name} is needed")
    return text
