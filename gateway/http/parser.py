"""aiohttp's HTTP parser and streams, without the rest of aiohttp.

Whoever imports a part of a package runs the package first, and aiohttp's brings a client, resolvers and cookies that a gateway
never uses: half of the memory and two thirds of the time that it takes. So the package is put in place unrun, and runs when
somebody first asks it for something of its own: who imports aiohttp gets all of it, with these very parts.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_spec = None if "aiohttp" in sys.modules else find_spec("aiohttp")
if _spec is not None:
    sys.modules["aiohttp"] = module_from_spec(_spec)

from aiohttp.base_protocol import BaseProtocol  # noqa: E402
from aiohttp.http_exceptions import HttpProcessingError  # noqa: E402
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage  # noqa: E402
from aiohttp.http_writer import HttpVersion10  # noqa: E402
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader  # noqa: E402

__all__ = [
    "EMPTY_PAYLOAD",
    "BaseProtocol",
    "HttpProcessingError",
    "HttpRequestParser",
    "HttpVersion10",
    "RawRequestMessage",
    "StreamReader",
]


def _runs_when_asked(package: ModuleType) -> None:
    def first(attribute: str) -> Any:
        del package.__getattr__
        package.__loader__.exec_module(package)  # type: ignore[union-attr]
        return getattr(package, attribute)

    package.__getattr__ = first  # type: ignore[method-assign]


if _spec is not None:
    _runs_when_asked(sys.modules["aiohttp"])
