"""What a device, a gateway and an enrichment must agree on: names, keys, signatures, event ids, header names.

Pure functions of their arguments; docs/devices.md is the text of it, protocol/vectors/devices the cases.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

# Also a topic level, a file name and a header value, so nothing that means something there.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,62}[A-Za-z0-9])?")
LARGEST = 0xFFFF_FFFF  # of boot ids and sequences

# Request headers of a signed request; a payload keeps the last three, whatever the transport.
DEVICE_HEADER = "Spoorway-Device"
BOOT_HEADER = "Spoorway-Boot"
SEQUENCE_HEADER = "Spoorway-Sequence"
SIGNATURE_HEADER = "Spoorway-Signature"

# What a payload that came over MQTT keeps: its topic, and "1" where the broker had kept the message.
TOPIC_HEADER = "MQTT-Topic"
RETAIN_HEADER = "MQTT-Retain"

SHORTEST_SIGNATURE = 8  # bytes; a compact frame's own code is shorter, see protocol/compact.md

TP1_PATH = "/i"
TP2_PATH = "/com.snowplowanalytics.snowplow/tp2"
IGLU_PATH = "/com.snowplowanalytics.iglu/v1"
COMPACT_PATH = "/io.spoorway/c1"
RELAY_PATH = "/io.spoorway/relay"

DEVICE_CLOCK = "iglu:io.spoorway/device_clock/jsonschema/1-0-0"
DEVICE_TIME = "iglu:io.spoorway/device_time/jsonschema/1-0-0"
QUEUE_HEALTH = "iglu:io.spoorway/queue_health/jsonschema/1-0-0"
DEVICE_PRESENCE = "iglu:io.spoorway/device_presence/jsonschema/1-0-0"


def device_key(master: bytes, device: str, generation: int) -> bytes:
    """32 bytes: a device's HMAC key. generation: counted up by each rotation, so that the old key is worth nothing."""
    return hmac.digest(master, b"spoorway device key\n%d\n%s" % (generation, device.encode()), sha256)


def signature(key: bytes, device: str, boot: int, sequence: int, target: str, body: bytes) -> bytes:
    """32 bytes, of which a sender may leave away all but the first SHORTEST_SIGNATURE.

    sequence: of the message, counted up within a boot, not of an event. target: what says how the body is read; the request
    target as sent (path and query) over HTTP, the kind letter over serial. body: as sent, before any decompression; b"" for GET.
    """
    head = f"{device}\n{boot}\n{sequence}\n{target}\n".encode()
    return hmac.digest(key, head + body, sha256)


def device_event_id(device: str, boot: int, sequence: int) -> str:
    """The id of an event that a device sent without one: the same for every copy. sequence: of the event, within its boot.

    A version 8 UUID of the first 16 bytes of SHA-256 over "DEVICE\\nBOOT\\nSEQUENCE".
    """
    digits = sha256(f"{device}\n{boot}\n{sequence}".encode()).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
