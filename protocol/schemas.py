"""The bundled schemas, by Iglu URI: `schemas/<vendor>/<name>/<format>/<version>`, the static registry's layout.

Facts of the published schemas in files of our own, so that everything official trackers send validates offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import cast

from protocol.iglu import InvalidUri, parse
from protocol.seams import Json

_FOLDER = files(__package__ or "protocol").joinpath("schemas")


def bundled(uri: str) -> dict[str, Json] | None:
    """The schema document, or None when the URI is malformed or not bundled. Reads the file at each call."""
    try:
        key = parse(uri)
    except InvalidUri:
        return None
    if ".." in key.vendor:
        return None
    file = _FOLDER.joinpath(key.vendor, key.name, key.format, key.version)
    if not file.is_file():
        return None
    return cast(dict[str, Json], json.loads(file.read_text("utf-8")))


def uris() -> Iterator[str]:
    """Every bundled schema's URI, sorted."""
    found: list[str] = []
    for vendor in _FOLDER.iterdir():
        for name in vendor.iterdir():
            for kind in name.iterdir():
                found += [f"iglu:{vendor.name}/{name.name}/{kind.name}/{version.name}" for version in kind.iterdir()]
    return iter(sorted(found))
