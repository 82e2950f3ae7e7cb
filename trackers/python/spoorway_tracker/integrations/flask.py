"""Flask: page views, timings by rule, and errors, which Flask answers itself, so that no middleware sees them.

connect(app, tracker)
"""

# pyright: basic
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, got_request_exception, request, request_started

from spoorway_tracker.events import error_event
from spoorway_tracker.integrations.wsgi import Middleware
from spoorway_tracker.tracker import Verbs


def connect(
    app: Flask, tracker: Verbs, errors: bool = True, skip: Callable[[str], bool] = lambda path: False, **options: Any
) -> None:
    """Options as of wsgi.Middleware."""
    app.wsgi_app = Middleware(app.wsgi_app, tracker, errors=False, skip=skip, **options)  # type: ignore[method-assign]

    def started(_: object, **__: object) -> None:
        request.environ["spoorway.route"] = request.url_rule and str(request.url_rule)

    def failed(_: object, exception: BaseException, **__: object) -> None:
        if errors and not skip(request.path):
            tracker.track_self_describing(error_event(exception))

    request_started.connect(started, app, weak=False)
    got_request_exception.connect(failed, app, weak=False)
