"""Who and where: what goes with every event of a program, of a request, or of one call.

Values only. The request's subject lives in a context variable, so that threads and asyncio tasks do not see each other's.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

PLATFORMS = frozenset({"web", "mob", "pc", "srv", "app", "tv", "cnsl", "iot", "headset"})
"""What the protocol knows; any other would make every event fail."""


class Subject:
    """Only what is set is sent. screen, viewport: (width, height) in pixels. ip, useragent: of a client this program speaks for.

    Not to be changed once it is made. parameters: as they are sent. Raises ValueError for a platform that does not exist.
    """

    __slots__ = ("parameters",)

    def __init__(
        self, platform: str | None = None, user_id: str | None = None, domain_user_id: str | None = None,
        session_id: str | None = None, session_index: int | None = None, network_user_id: str | None = None,
        screen: tuple[int, int] | None = None, viewport: tuple[int, int] | None = None, color_depth: int | None = None,
        timezone: str | None = None, language: str | None = None, ip: str | None = None, useragent: str | None = None,
    ) -> None:  # fmt: skip
        if platform is not None and platform not in PLATFORMS:
            raise ValueError(f"no platform {platform!r}; there are {', '.join(sorted(PLATFORMS))}")
        named = {
            "p": platform, "uid": user_id, "duid": domain_user_id, "sid": session_id, "vid": session_index,
            "tnuid": network_user_id, "cd": color_depth, "tz": timezone, "lang": language, "ip": ip, "ua": useragent,
        }  # fmt: skip
        self.parameters = {name: str(value) for name, value in named.items() if value is not None and value != ""}
        for name, size in (("res", screen), ("vp", viewport)):
            if size is not None:
                self.parameters[name] = f"{size[0]}x{size[1]}"

    def __repr__(self) -> str:
        return f"Subject({self.parameters})"


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
