"""Events in URLs, for what runs no script: emails, AMP, pages without JavaScript, QR codes.

Builds text and sends nothing. Imports nothing but Python's own library and this folder, so that it can be copied into any
project. The specification is trackers/pixel/README.md; trackers/pixel/pixel.js builds the same URLs.
"""

from spoorway.pixel.events import (
    Event,
    PixelError,
    SelfDescribing,
    email_click,
    email_open,
    page_ping,
    page_view,
    screen_view,
    self_describing,
    structured,
    timing,
)
from spoorway.pixel.outputs import amp, honeypot, link, noscript, pixel_tag, qr
from spoorway.pixel.tags import PROVIDERS, Provider
from spoorway.pixel.urls import LONGEST, VERSION, Pixel

__all__ = [
    "LONGEST",
    "PROVIDERS",
    "VERSION",
    "Event",
    "Pixel",
    "PixelError",
    "Provider",
    "SelfDescribing",
    "amp",
    "email_click",
    "email_open",
    "honeypot",
    "link",
    "noscript",
    "page_ping",
    "page_view",
    "pixel_tag",
    "qr",
    "screen_view",
    "self_describing",
    "structured",
    "timing",
]
