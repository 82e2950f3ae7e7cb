"""Event -> the URL of a pixel, or of a link that counts its click. A URL that a mail program might cut is an error.

Pure: the same arguments give the same URL, byte for byte, here and in trackers/pixel/pixel.js. The signature of a target is
the gateway's (docs/http.md, "Redirects").
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from spoorway.pixel.events import Event, PixelError, SelfDescribing
from spoorway.pixel.tags import PROVIDERS

VERSION = "pixel-1.0.0"
LONGEST = 2_048  # characters: what every mail program, proxy and scanner we know of passes on whole
TAG_LENGTH = 64  # what a merge tag counts for at least: nobody knows what it will be replaced by

PLATFORMS = frozenset({"web", "mob", "pc", "srv", "app", "tv", "cnsl", "iot", "headset"})

_UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
_CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(?:/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]+")
# What the gateway sends anybody to: RFC 3986 to the letter, no user before the host.
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_TARGET = re.compile(rf"[Hh][Tt][Tt][Pp][Ss]?://{_HOST}(?:[/?#](?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{{2}})*)?")
# Leaving a list must work although we are down, and must not wait for us to record it.
UNSUBSCRIBE = re.compile(r"unsub|opt-?out|list-?manage|preference-?cent|manage-?preferences", re.IGNORECASE)
_SIGNED = 16  # bytes of the signature


@dataclass(frozen=True, slots=True)
class Pixel:
    """Where events go, and what all of them say.

    endpoint: the gateway as readers reach it. key: the first line of its redirects.key_file, as bytes; None: links are not signed
    and lead to hosts of redirects.hosts only. provider: a mail service of tags.PROVIDERS, whose merge tags stay as they are.
    base64: None = whichever makes the shorter URL. longest: characters of a URL.

    Every method raises PixelError, whose code is one of missing, platform, endpoint, text, number, provider, tag, target,
    unsubscribe, too_long.
    """

    endpoint: str
    app_id: str = ""
    namespace: str = ""
    platform: str = "web"
    key: bytes | None = None
    provider: str = ""
    open_path: str = "/i"
    click_path: str = "/r/tp2"
    base64: bool | None = None
    longest: int = LONGEST

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise PixelError("platform", f"no platform {self.platform!r}; there are {', '.join(sorted(PLATFORMS))}")
        paths = (self.open_path, self.click_path)
        if not _ENDPOINT.fullmatch(self.endpoint) or not all(_PATH.fullmatch(path) for path in paths):
            raise PixelError(
                "endpoint", f"{self.endpoint!r}: expected https://HOST, without a slash at the end, and paths like /i"
            )
        if self.provider and self.provider not in PROVIDERS:
            raise PixelError("provider", f"no mail service {self.provider!r}; there are {', '.join(PROVIDERS)}")

    def open(
        self,
        event: Event,
        *,
        entities: Sequence[SelfDescribing] = (),
        true_ms: int | None = None,
        event_id: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> str:
        """The address of a picture of one transparent pixel.

        event_id: only for a URL that is made anew each time it is shown: whatever is fetched twice under one id counts once.
        parameters: others of the tracker protocol, such as uid. Without dtm the event happened when it was received.
        """
        return self._url(self.open_path, {}, event, entities, true_ms, event_id, parameters)

    def click(
        self,
        target: str,
        event: Event | None = None,
        *,
        entities: Sequence[SelfDescribing] = (),
        true_ms: int | None = None,
        event_id: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> str:
        """A link that leads to `target` and records that it was followed. Without an event, that is a uri_redirect."""
        if UNSUBSCRIBE.search(target):
            raise PixelError("unsubscribe", f"{target}: a link to unsubscribe must not depend on us; leave it as it is")
        if self._tags(target):
            raise PixelError("target", f"{target}: a target with a merge tag cannot be signed")
        if not _TARGET.fullmatch(target):
            raise PixelError("target", f"{target}: expected http or https, in ASCII, percent-encoded, without a user")
        first = {"u": target}
        if self.key is not None:
            tag = hmac.digest(self.key, target.encode(), "sha256")[:_SIGNED]
            first["sig"] = urlsafe_b64encode(tag).rstrip(b"=").decode("ascii")
        return self._url(self.click_path, first, event or Event(), entities, true_ms, event_id, parameters)

    def _url(
        self,
        path: str,
        first: Mapping[str, str],
        event: Event,
        entities: Sequence[SelfDescribing],
        true_ms: int | None,
        event_id: str,
        parameters: Mapping[str, str] | None,
    ) -> str:
        known = {**first, **event.parameters}
        if event.data is not None:
            self._put(known, "ue_pr", "ue_px", {"schema": _UNSTRUCT, "data": event.data})
        if entities:
            self._put(known, "co", "cx", {"schema": _CONTEXTS, "data": list(entities)})
        ours = {"aid": self.app_id, "p": self.platform, "tna": self.namespace, "tv": VERSION, "eid": event_id}
        known |= {name: value for name, value in ours.items() if value}
        if true_ms is not None:
            known["ttm"] = str(true_ms)
        known |= parameters or {}
        query = "&".join(f"{name}={self._quoted(value)}" for name, value in known.items())
        url = f"{self.endpoint}{path}?{query}"
        length = len(url) + sum(max(0, TAG_LENGTH - len(tag)) for value in known.values() for tag in self._tags(value))
        if length > self.longest:
            raise PixelError(
                "too_long", f"{length} characters, {self.longest} is the most: say less in the event or its entities"
            )
        return url

    def _put(self, known: dict[str, str], plain: str, encoded: str, value: Any) -> None:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise PixelError("number", f"no JSON: {error}") from None
        quoted = self._quoted(text)
        if self._tags(text) or self.base64 is False:
            known[plain] = text
            return
        base64 = urlsafe_b64encode(text.encode()).rstrip(b"=").decode("ascii")
        if self.base64 or len(base64) < len(quoted):
            known[encoded] = base64
        else:
            known[plain] = text

    def _tags(self, text: str) -> list[str]:
        return PROVIDERS[self.provider].pattern.findall(text) if self.provider else []

    def _quoted(self, text: str) -> str:
        """Everything but letters, digits and -._~ percent-encoded; merge tags as they are."""
        try:
            if not (tags := self._tags(text)):
                return quote(text, safe="")
            if any(character in tag for tag in tags for character in '"\\&#'):
                raise PixelError("tag", 'a merge tag in a URL must not hold ", \\, & or #')
            pieces = PROVIDERS[self.provider].pattern.split(text)
            return "".join(quote(piece, safe="") + tag for piece, tag in zip(pieces, [*tags, ""], strict=True))
        except UnicodeEncodeError:
            raise PixelError("text", "half of a surrogate pair is no text") from None
