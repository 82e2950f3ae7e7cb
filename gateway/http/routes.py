"""Method and path -> what the request is. Looks at nothing else; paths are compared as sent, not percent-decoded."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from protocol.seams import ConfigurationError

MAPPABLE = ("/com.snowplowanalytics.snowplow/tp2", "/r/tp2", "/com.snowplowanalytics.iglu/v1")


class Kind(Enum):
    POST = "an event by POST"
    PIXEL = "an event by GET or HEAD"
    PREFLIGHT = "CORS"
    REDIRECT = "a redirect, which this version does not do"
    HEALTH = "/health"
    SINK_HEALTH = "/sink-health"
    ROBOTS = "/robots.txt"
    CROSSDOMAIN = "/crossdomain.xml"
    ROOT = "/"
    UNKNOWN = "everything else"


class Route(NamedTuple):
    """path: the path to record."""

    kind: Kind
    path: str


_FIXED = {
    "/i": Kind.PIXEL,
    "/ice.png": Kind.PIXEL,
    "/health": Kind.HEALTH,
    "/sink-health": Kind.SINK_HEALTH,
    "/robots.txt": Kind.ROBOTS,
    "/crossdomain.xml": Kind.CROSSDOMAIN,
    "/": Kind.ROOT,
}


class Routes:
    def __init__(self, paths: Mapping[str, str]) -> None:
        """paths: own path -> one of MAPPABLE. Raises ConfigurationError."""
        for own, target in paths.items():
            if not _two_segments(own) or own.startswith("/r/"):
                raise ConfigurationError(f"paths: {own!r} must be two segments, like /my.company/track, and not below /r/")
            if target not in MAPPABLE:
                raise ConfigurationError(f"paths: {own!r} cannot stand for {target!r}; possible are {', '.join(MAPPABLE)}")
        self._paths = dict(paths)

    def find(self, method: str, path: str) -> Route:
        if _two_segments(path):
            if path.startswith("/r/"):
                return Route(Kind.REDIRECT, path)
            if method == "OPTIONS":
                return Route(Kind.PREFLIGHT, path)
            path = self._paths.get(path, path)
            if path.startswith("/r/"):
                return Route(Kind.REDIRECT, path)
            if method == "POST":
                return Route(Kind.POST, path)
            if method in ("GET", "HEAD"):
                return Route(Kind.PIXEL, path)
        elif method == "OPTIONS":
            return Route(Kind.PREFLIGHT, path)
        elif method in ("GET", "HEAD"):
            return Route(_FIXED.get(path, Kind.UNKNOWN), path)
        return Route(Kind.UNKNOWN, path)


def _two_segments(path: str) -> bool:
    first, slash, second = path[1:].partition("/")
    return bool(path[:1] == "/" and first and slash and second and "/" not in second)
