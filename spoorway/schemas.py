"""Which schema document an Iglu URI stands for: the bundled ones, then folders in the static registry's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from protocol import schemas
from protocol.iglu import InvalidUri, parse
from protocol.seams import Json

SchemaLookup = Callable[[str], dict[str, Json] | None]


def lookup(folders: Sequence[Path]) -> SchemaLookup:
    """Looks into the bundle, then into `FOLDER/<vendor>/<name>/<format>/<version>` of each folder, anew at each call."""

    def find(uri: str) -> dict[str, Json] | None:
        document = schemas.bundled(uri)
        if document is not None:
            return document
        try:
            key = parse(uri)
        except InvalidUri:
            return None
        if ".." in key.vendor:
            return None
        for folder in folders:
            file = folder / key.vendor / key.name / key.format / key.version
            try:
                value = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(value, dict):
                return cast(dict[str, Json], value)
        return None

    return find
