"""A click's target -> 302, or 400 where nobody vouched for it. Never an open redirect: a target is signed, or its host is listed.

Signature: HMAC-SHA256 over the target's bytes, the first 16 of them, base64url without padding: 22 characters in `sig`.
Looks at nothing but the parameters `u` and `sig`; docs/http.md has the format for those who write links.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

from gateway.http import answers
from gateway.http.answers import Answer
from gateway.http.config import Redirects as Options
from protocol.seams import ConfigurationError
from protocol.wire import parse_query

LONGEST = 8_192  # characters, as the schema of the event has it
_SHORTEST_KEY = 16  # bytes
_SIGNED = 16  # bytes of the signature: 2^128 guesses

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
# RFC 3986 to the letter: no user before the host, no backslash, space, control or non-ASCII character anywhere. Browsers mend
# what is not a URL, each in its own way; what needs no mending means the same to all.
_TARGET = re.compile(rf"[Hh][Tt][Tt][Pp][Ss]?://({_HOST})(?:[/?#](?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{{2}})*)?")
_LISTED = re.compile(_HOST)

_NO_CACHE = ("Cache-Control", "no-cache, no-store, must-revalidate")
_REFUSED = Answer("redirect_refused", answers.head(400, [_NO_CACHE]))


def host_of_target(target: str) -> str | None:
    """Host, with its port if it has one, in lower case; None when the target is no http(s) URL we would send anybody to."""
    match = _TARGET.fullmatch(target) if len(target) <= LONGEST else None
    return match[1].lower() if match else None


def sign(key: bytes, target: str) -> str:
    """What goes into `sig`."""
    return urlsafe_b64encode(hmac.digest(key, target.encode(), "sha256")[:_SIGNED]).rstrip(b"=").decode("ascii")


def read_keys(file: str | Path) -> list[bytes]:
    """One key a line in hex; # begins a comment. The first one signs, every one is accepted. Raises ConfigurationError."""
    try:
        lines = [line.partition("#")[0].strip() for line in Path(file).expanduser().read_text("utf-8").splitlines()]
        keys = [bytes.fromhex(line) for line in lines if line]
    except OSError as error:
        raise ConfigurationError(f"redirects.key_file: {file}: {error.strerror}; `spoorway redirect key` makes one") from None
    except ValueError:
        raise ConfigurationError(f"redirects.key_file: {file}: expected one key a line, in hex digits") from None
    if not keys or min(map(len, keys)) < _SHORTEST_KEY:
        raise ConfigurationError(f"redirects.key_file: {file}: expected keys of {2 * _SHORTEST_KEY} hex digits at least")
    return keys


class Redirects:
    """on: False when nothing could ever be allowed. wait_s: None = a click waits for the journal as any event does."""

    def __init__(self, options: Options) -> None:
        """Raises ConfigurationError."""
        if options.unrecorded not in ("redirect", "refuse"):
            raise ConfigurationError(f"redirects.unrecorded: {options.unrecorded!r}; possible are redirect and refuse")
        for host in options.hosts:
            if not _LISTED.fullmatch(host):
                raise ConfigurationError(f"redirects.hosts: {host!r} is no host name; each is written out, without wildcards")
        self._hosts = frozenset(host.lower() for host in options.hosts)
        self._keys: Sequence[bytes] = read_keys(options.key_file) if options.key_file else ()
        self.on = bool(self._hosts or self._keys)
        self.wait_s = options.wait_s if options.unrecorded == "redirect" else None

    def answer(self, query: str) -> Answer:
        """302 to the target, or 400: as if it had been recorded."""
        parameters = parse_query(query)
        target = parameters.get("u") or ""
        if not self._allowed(target, parameters.get("sig") or ""):
            return _REFUSED
        return Answer("redirected", answers.head(302, [("Location", target), _NO_CACHE]))

    def _allowed(self, target: str, signature: str) -> bool:
        host = host_of_target(target)
        if host is None:
            return False
        sent = signature.encode()
        signed = [hmac.compare_digest(sign(key, target).encode(), sent) for key in self._keys]
        return any(signed) or host in self._hosts
