"""Django: an app that makes the tracker from the settings, and a middleware, for sync and async views.

INSTALLED_APPS = [..., "spoorway_tracker.integrations.django.App"]
MIDDLEWARE = ["spoorway_tracker.integrations.django.Middleware", ...]
SPOORWAY_TRACKER = {"url": "http://127.0.0.1:8080", "app_id": "shop"}          # arguments of Tracker

from spoorway_tracker.integrations.django import tracker
tracker().track_structured("shop", "add")
"""

# pyright: basic
from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig  # type: ignore[import-untyped]
from django.conf import settings  # type: ignore[import-untyped]

from spoorway_tracker.integrations.web import Request, Watch, subject_of
from spoorway_tracker.subject import acting_as
from spoorway_tracker.tracker import Tracker


@cache
def tracker() -> Tracker:
    """The one of this site. Raises ValueError where the settings are wrong."""
    return Tracker(**settings.SPOORWAY_TRACKER)


class App(AppConfig):  # type: ignore[misc]
    name = "spoorway_tracker.integrations.django"
    label = "spoorway_tracker"

    def ready(self) -> None:
        tracker()  # wrong settings are told at the start; a fork of a worker gets a queue of its own


class Middleware:
    """Options of Watch stand in the settings as SPOORWAY_TRACKER_WATCH."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._watch = Watch(tracker(), **getattr(settings, "SPOORWAY_TRACKER_WATCH", {}))
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        if self._async:
            return self._acall(request)
        if self._watch.skip(request.path):
            return self._get_response(request)
        began, facts = time.perf_counter(), _request_of(request)
        with acting_as(subject_of(facts)):
            response = self._get_response(request)
            self._answered(request, facts, response, began)
        return response

    async def _acall(self, request: Any) -> Any:
        answer: Callable[[Any], Awaitable[Any]] = self._get_response
        if self._watch.skip(request.path):
            return await answer(request)
        began, facts = time.perf_counter(), _request_of(request)
        with acting_as(subject_of(facts)):
            response = await answer(request)
            self._answered(request, facts, response, began)
        return response

    def _answered(self, request: Any, facts: Request, response: Any, began: float) -> None:
        match = request.resolver_match
        route = f"/{match.route}" if match is not None else facts.route
        took_ms = (time.perf_counter() - began) * 1000
        content_type = response.headers.get("Content-Type", "")
        self._watch.answered(Request(facts.method, facts.url, route, facts.referrer), response.status_code, content_type, took_ms)

    def process_exception(self, request: Any, exception: Exception) -> None:
        """Django has answered by then; only here the exception is still to be seen."""
        if not self._watch.skip(request.path):
            self._watch.failed(exception)


def _request_of(request: Any) -> Request:
    meta = request.META
    return Request(
        request.method, request.build_absolute_uri(), request.path, meta.get("HTTP_REFERER", ""), meta.get("HTTP_COOKIE", ""),
        meta.get("HTTP_USER_AGENT", ""), meta.get("HTTP_ACCEPT_LANGUAGE", ""), meta.get("REMOTE_ADDR", ""),
    )  # fmt: skip
