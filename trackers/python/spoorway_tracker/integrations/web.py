"""What the web frameworks share: a request's facts -> its subject, and what is tracked when it has been answered.

Who the visitor is comes from the cookies that the browser's tracker and the gateway have set; no cookie is set here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from spoorway_tracker.events import error_event
from spoorway_tracker.subject import Subject
from spoorway_tracker.tracker import Verbs


class Request(NamedTuple):
    """url: with scheme and host. route: what names the page's kind, for timings; the path where nothing better is known."""

    method: str
    url: str
    route: str
    referrer: str = ""
    cookies: str = ""
    useragent: str = ""
    language: str = ""
    ip: str = ""


class Watch(NamedTuple):
    """What is tracked. skip: by path. Page views are GETs answered with HTML and a status below 400."""

    tracker: Verbs
    page_views: bool = True
    timings: bool = True
    errors: bool = True
    skip: Callable[[str], bool] = lambda path: False

    def answered(self, request: Request, status: int, content_type: str, took_ms: float) -> None:
        if self.page_views and request.method == "GET" and status < 400 and content_type.startswith("text/html"):
            self.tracker.track_page_view(request.url, None, request.referrer)
        if self.timings:
            self.tracker.track_timing("http", f"{request.method} {request.route}", round(took_ms), str(status))

    def failed(self, error: BaseException) -> None:
        if self.errors:
            self.tracker.track_self_describing(error_event(error))


def subject_of(request: Request) -> Subject:
    """domain_user_id and session from `_sp_id.…`, network_user_id from `sp`; all of them may be missing."""
    domain_user_id = session_id = session_index = network_user_id = None
    for pair in request.cookies.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.startswith("_sp_id."):
            parts = value.split(".")
            domain_user_id = parts[0]
            if len(parts) > 5 and parts[2].isascii() and parts[2].isdigit():
                session_index, session_id = int(parts[2]), parts[5]
        elif name == "sp" and _is_uuid(value):
            network_user_id = value
    return Subject(
        domain_user_id=domain_user_id, session_id=session_id, session_index=session_index, network_user_id=network_user_id,
        ip=request.ip, useragent=request.useragent, language=request.language.split(",")[0].split(";")[0].strip(),
    )  # fmt: skip


def _is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True
