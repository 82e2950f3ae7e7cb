"""Method and path -> what the request is. Looks at nothing else; paths are compared as sent, not percent-decoded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from gateway.devices import CLAIM_PATH
from protocol.devices import RELAY_PATH
from protocol.seams import ConfigurationError

MAPPABLE = ("/com.snowplowanalytics.snowplow/tp2", "/r/tp2", "/com.snowplowanalytics.iglu/v1")


# What a request is. post, pixel: an event. redirect: an event that is sent on. relay: a batch of another gateway.
# claim: a device asks for its secrets. The rest is what its name says.
Kind = Literal[
    "post",
    "pixel",
    "preflight",
    "redirect",
    "relay",
    "claim",
    "health",
    "sink_health",
    "robots",
    "crossdomain",
    "script",
    "root",
    "unknown",
]


_MAX_KNOWN = 256  # characters of a path that may stay in memory


class Route(NamedTuple):
    """path: the path to record."""

    kind: Kind
    path: str


_FIXED: dict[str, Kind] = {
    "/i": "pixel",
    "/ice.png": "pixel",
    "/health": "health",
    "/sink-health": "sink_health",
    "/robots.txt": "robots",
    "/crossdomain.xml": "crossdomain",
    "/": "root",
}


class Routes:
    def __init__(self, paths: Mapping[str, str], script_path: str = "") -> None:
        """paths: own path -> one of MAPPABLE. script_path: of the JavaScript tracker. Raises ConfigurationError."""
        if script_path and (not script_path.startswith("/") or script_path in _FIXED or script_path.startswith("/r/")):
            raise ConfigurationError(f"script_path: {script_path!r} must be a path of its own, like /sp.js")
        if script_path in paths:
            raise ConfigurationError(f"script_path: {script_path!r} is already in paths")
        self._script_path = script_path
        for own, target in paths.items():
            if not _two_segments(own) or own.startswith("/r/"):
                raise ConfigurationError(f"paths: {own!r} must be two segments, like /my.company/track, and not below /r/")
            if target not in MAPPABLE:
                raise ConfigurationError(f"paths: {own!r} cannot stand for {target!r}; possible are {', '.join(MAPPABLE)}")
        self._paths = dict(paths)
        self._known = lru_cache(maxsize=1024)(self._judge)

    def find(self, method: str, path: str) -> Route:
        return self._known(method, path) if len(path) <= _MAX_KNOWN else self._judge(method, path)

    def _judge(self, method: str, path: str) -> Route:
        if self._script_path and path == self._script_path and method in ("GET", "HEAD"):
            return Route("script", path)
        if _two_segments(path):
            if path.startswith("/r/"):
                return Route("redirect", path)
            if method == "OPTIONS":
                return Route("preflight", path)
            if path == RELAY_PATH:
                return Route("relay" if method == "POST" else "unknown", path)
            if path == CLAIM_PATH:  # its code must not be journaled
                return Route("claim" if method == "POST" else "unknown", path)
            path = self._paths.get(path, path)
            if path.startswith("/r/"):
                return Route("redirect", path)
            if method == "POST":
                return Route("post", path)
            if method in ("GET", "HEAD"):
                return Route("pixel", path)
        elif method == "OPTIONS":
            return Route("preflight", path)
        elif method in ("GET", "HEAD"):
            return Route(_FIXED.get(path, "unknown"), path)
        return Route("unknown", path)


def _two_segments(path: str) -> bool:
    first, slash, second = path[1:].partition("/")
    return bool(path[:1] == "/" and first and slash and second and "/" not in second)
