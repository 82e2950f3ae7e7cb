"""A message -> its signature: HMAC-SHA256 with nothing but hashlib.sha256, the first 16 bytes in hex digits."""

from binascii import hexlify
from hashlib import sha256


def signature(key: bytes, device: str, boot: int, sequence: int, target: str, body: bytes) -> str:
    key += bytes(64 - len(key))
    inner = b""
    for pad in (54, 92):
        mac = sha256(bytes([b ^ pad for b in key]))
        if pad == 54:
            mac.update(("%s\n%d\n%d\n%s\n" % (device, boot, sequence, target)).encode())
            mac.update(body)
        else:
            mac.update(inner)
        inner = mac.digest()
    return hexlify(inner[:16]).decode()


def format(link, tracker, body: bytes) -> str:
    """Of a signed request; each has the next number."""
    link.messages = getattr(link, "messages", 0) + 1
    numbers = (tracker.device, tracker.boot, link.messages)
    values = numbers + (signature(link.key, *numbers, link.path, body),)
    return "".join(["Spoorway-%s: %s\r\n" % pair for pair in zip(("Device", "Boot", "Sequence", "Signature"), values)])
