"""Who and where: what goes with every event of a program, of a request, or of one call.

Values only. The request's subject lives in a context variable, so that threads and asyncio tasks do not see each other's.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

PLATFORMS = frozenset({"web", "mob", "pc", "srv", "app", "tv", "cnsl", "iot", "headset"})
"""What the protocol knows; any other would make every event fail."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Only what is set is sent. screen and viewport: (width, height) in pixels. ip, useragent: a client this program speaks
    for."""

    platform: str | None = None
    user_id: str | None = None
    domain_user_id: str | None = None
    session_id: str | None = None
    session_index: int | None = None
    network_user_id: str | None = None
    screen: tuple[int, int] | None = None
    viewport: tuple[int, int] | None = None
    color_depth: int | None = None
    timezone: str | None = None
    language: str | None = None
    ip: str | None = None
    useragent: str | None = None

    def __post_init__(self) -> None:
        if self.platform is not None and self.platform not in PLATFORMS:
            raise ValueError(f"no platform {self.platform!r}; there are {', '.join(sorted(PLATFORMS))}")


@lru_cache(maxsize=256)
def parameters_of(*subjects: Subject | None) -> dict[str, str]:
    """Wire parameters of several subjects together; the later ones win, field by field. Not to be changed by the caller."""
    found: dict[str, str] = {}
    for subject in subjects:
        if subject is not None:
            found |= _parameters(subject)
    return found


def _parameters(s: Subject) -> dict[str, str]:
    plain = {
        "p": s.platform, "uid": s.user_id, "duid": s.domain_user_id, "sid": s.session_id, "vid": s.session_index,
        "tnuid": s.network_user_id, "cd": s.color_depth, "tz": s.timezone, "lang": s.language, "ip": s.ip, "ua": s.useragent,
    }  # fmt: skip
    found = {name: str(value) for name, value in plain.items() if value is not None and value != ""}
    for name, size in (("res", s.screen), ("vp", s.viewport)):
        if size is not None:
            found[name] = f"{size[0]}x{size[1]}"
    return found


current_subject: ContextVar[Subject | None] = ContextVar("spoorway_subject", default=None)
"""The subject of the request or task that runs now; it wins over the tracker's own."""


@contextmanager
def acting_as(subject: Subject) -> Generator[None]:
    """What is tracked inside, and in tasks started inside, belongs to this subject."""
    token = current_subject.set(subject)
    try:
        yield
    finally:
        current_subject.reset(token)
