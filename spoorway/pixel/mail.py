"""The HTML of an email -> the same with its links counted, a pixel at its end and, if wanted, a link that only machines follow.

Everything else stays as it was, byte for byte. Links to unsubscribe, mailto: and the like, links with merge tags and those
marked data-spoorway="off" are left alone; `left` says which and why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from itertools import accumulate

from spoorway.pixel.events import Event, PixelError, email_click, email_open
from spoorway.pixel.outputs import attribute, honeypot, pixel_tag
from spoorway.pixel.urls import Pixel

_HREF = re.compile(r"""(?<=\s)href\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""", re.IGNORECASE)
_OURS = re.compile(r"""\s+data-(?:link|spoorway)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Copy:
    """What all openings and clicks of the email say of it; see email_open."""

    campaign: str = ""
    message: str = ""
    recipient: str = ""
    sent_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Decorated:
    """links: how many are counted. left: targets that are not, each with why."""

    html: str
    links: int
    left: list[tuple[str, str]]


def decorate(html: str, pixel: Pixel, copy: Copy, *, trap: bool = True) -> Decorated:
    """trap: put in a link that no reader sees; it leads where the first counted link leads. Raises PixelError: too_long."""
    found = _Links(html)
    edits: list[tuple[int, int, str]] = []
    left: list[tuple[str, str]] = []
    first = ""
    for number, link in enumerate(found.links, 1):
        try:
            url = pixel.click(link.target, _click(copy, link.name or str(number)))
        except PixelError as error:
            if error.code not in ("target", "unsubscribe"):
                raise
            left.append((link.target, error.code))
            continue
        first = first or link.target
        edits.append((link.start, link.start + len(link.text), _led_to(url, link)))
    left += [(target, "off") for target in found.off]
    if trap and first:
        event = _click(copy, "honeypot", trap=True)
        edits.append((found.begin, found.begin, honeypot(pixel.click(first, event))))
    opened = email_open(copy.campaign, copy.message, copy.recipient, copy.sent_ms)
    edits.append((found.end, found.end, pixel_tag(pixel.open(opened))))
    counted = sum(start != stop for start, stop, _ in edits)
    for start, stop, text in sorted(edits, reverse=True):
        html = html[:start] + text + html[stop:]
    return Decorated(html, counted, left)


def _led_to(url: str, link: _Link) -> str:
    """Its start tag, leading elsewhere, and without our own attributes."""
    place = next(found for found in _HREF.finditer(link.text) if unescape(found[1].strip("\"'")).strip() == link.target)
    text = f'{link.text[: place.start()]}href="{attribute(url)}"{link.text[place.end() :]}'
    return _OURS.sub("", text)


def _click(copy: Copy, name: str, *, trap: bool = False) -> Event:
    return email_click(copy.campaign, copy.message, copy.recipient, copy.sent_ms, name, trap)


@dataclass(frozen=True, slots=True)
class _Link:
    """text: the start tag as it stands. name: its data-link."""

    start: int
    text: str
    target: str
    name: str


class _Links(HTMLParser):
    """links in their order; off: targets marked to be left; begin and end: of what is in the body."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[_Link] = []
        self.off: list[str] = []
        self.begin, self.end = 0, len(html)
        self._lines = [0, *accumulate(len(line) + 1 for line in html.split("\n"))]
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text = self.get_starttag_text() or ""
        if tag == "body":
            self.begin = self._here() + len(text)
        values = {name: value or "" for name, value in attrs}
        if tag not in ("a", "area") or not values.get("href", "").strip():
            return
        target = values["href"].strip()
        if values.get("data-spoorway") == "off":
            self.off.append(target)
        elif not target.startswith("#"):
            self.links.append(_Link(self._here(), text, target, values.get("data-link", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "body":
            self.end = self._here()

    def _here(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column
