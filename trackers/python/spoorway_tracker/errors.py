"""An exception -> an application_error event: what, where, with its trace. Texts are cut to what the schema takes."""

from __future__ import annotations

import traceback
from typing import Any

from spoorway_tracker.described import Described

APPLICATION_ERROR = "iglu:com.snowplowanalytics.snowplow/application_error/jsonschema/1-0-2"
_MESSAGE, _TRACE, _NAME = 2048, 8192, 1024


def error_event(error: BaseException | None, message: str = "", **more: Any) -> Described:
    """more: further properties of the schema. The end of a trace is what names the cause, so the beginning is cut."""
    data: dict[str, Any] = {
        "programmingLanguage": "PYTHON",
        "message": (message or str(error) or type(error).__name__)[:_MESSAGE],
    }
    if error is not None:
        data["exceptionName"] = type(error).__qualname__[:_NAME]
        data["stackTrace"] = "".join(traceback.format_exception(error))[-_TRACE:]
        if frames := traceback.extract_tb(error.__traceback__):
            data["fileName"], data["lineNumber"] = frames[-1].filename[-_NAME:], frames[-1].lineno or 0
    return Described(APPLICATION_ERROR, data | {name: value for name, value in more.items() if value is not None})
