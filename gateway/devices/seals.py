"""The seals of compact frames -> whose payload it is. Looks at what names and seals say, at nothing that they cover.

A payload whose frames are all sealed by one device, each rightly, is that device's, whoever carried it here. Where a seal is
wrong, or only some frames have one, nobody has proved anything: the payload is kept all the same, and enrichment, which has no
keys, makes failed events of its sealed frames. What the device itself has proved already, by its login say, needs no seal.
A copy that is sent again does no harm: the ids of its events follow from device, boot and sequence. Source: protocol/compact.md.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.devices import Devices
from protocol.compact import Frame, split
from protocol.devices import COMPACT_PATH, DEVICE_HEADER, NAME
from protocol.seams import RawPayload, TransientError


def confirmed(payload: RawPayload, devices: Devices) -> RawPayload:
    """The payload with the device that its seals prove, or without one. What has no seals, or is no compact frame, as it is.

    Raises TransientError: the keys cannot be read just now.
    """
    if payload.path != COMPACT_PATH:
        return payload
    frames = [frame for frame in split(payload.body or b"") if isinstance(frame, Frame)]
    if not any(frame.seal for frame in frames):
        return payload
    carrier = payload.device or next((v for name, v in payload.headers if name == DEVICE_HEADER and NAME.fullmatch(v)), "")
    names = {frame.device or carrier for frame in frames}
    if names == {payload.device}:
        return payload
    device = names.pop() if len(names) == 1 else ""
    for frame in frames if device else ():  # one without a seal has a wrong one
        refusal = devices.sealed(device, frame.covered, frame.seal).refusal
        if refusal == "busy":
            raise TransientError("the keys of devices cannot be read just now")
        if refusal:
            device = ""
            break
    return replace(payload, device=device or None)
