"""The device_clock entity of an event, and which device it speaks of.

Pure; an event without such an entity costs one dictionary look-up.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.devices import COMPACT_PATH, DEVICE_CLOCK, DEVICE_HEADER, NAME, device_event_id
from protocol.seams import Event, Json, RawPayload, SelfDescribing

CLOCK_FAMILY = DEVICE_CLOCK.removesuffix("0-0")  # any revision of the model
_HEADER = DEVICE_HEADER.lower()


class DeviceClock(NamedTuple):
    """device: None where nothing names it; proven: it showed its key, so that nobody else can have said this.

    source: none, rtc, ntp or gateway. set_at_ms: uptime at which the wall clock was set.
    """

    device: str | None
    proven: bool
    boot_id: int
    sequence: int
    uptime_ms: int
    source: str
    set_at_ms: int | None


def device_clock(event: Event, payload: RawPayload) -> DeviceClock | None:
    """Of a validated event: the first such entity. The name is the proven one, else the header's, else the entity's.

    A compact frame's name is in the entity, and comes before the header's: the frame may have come by way of another device.
    """
    global _last
    entities = event.get("contexts")
    if entities is None:
        return None
    seen, of, clock = _last
    if seen is not entities or of is not payload:
        clock = _read(entities, payload)
        _last = entities, payload, clock
    return clock


# Several ask of one event, one after the other. Both are kept alive by it, so that no other can have their identity.
_last: tuple[object, object, DeviceClock | None] = None, None, None


def _read(entities: list[SelfDescribing], payload: RawPayload) -> DeviceClock | None:
    for entity in entities:
        if entity["schema"].startswith(CLOCK_FAMILY):
            break
    else:
        return None
    data = entity["data"]
    if not isinstance(data, dict):
        return None
    device: Json = payload.device
    if device is None:
        said = data.get("device_id")
        device = said if said and payload.path == COMPACT_PATH else _named(payload) or said
    set_at = data.get("set_at_ms")
    # The schema asks for whole numbers, and for JSON 5.0 is one.
    return DeviceClock(
        device if isinstance(device, str) else None,
        payload.device is not None,
        int(data["boot_id"]),  # type: ignore[arg-type]
        int(data["sequence"]),  # type: ignore[arg-type]
        int(data["uptime_ms"]),  # type: ignore[arg-type]
        str(data.get("clock") or "none"),
        None if set_at is None else int(set_at),  # type: ignore[arg-type]
    )


def device_event(event: Event, payload: RawPayload) -> str | None:
    """The id of an event whose device and place in its start are known: every copy has the same, however it came."""
    clock = device_clock(event, payload)
    if clock is None or clock.device is None:
        return None
    return device_event_id(clock.device, clock.boot_id, clock.sequence)


def _named(payload: RawPayload) -> str | None:
    for name, value in payload.headers:
        if name.lower() == _HEADER and NAME.fullmatch(value):
            return value
    return None
