"""Reads webhook mappings for the enrichment, which does not read files: the bundled ones, then the user's."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from enrich.webhooks import WebhookMapping
from protocol.seams import ConfigurationError


@cache
def bundled() -> tuple[WebhookMapping, ...]:
    """Read once: a tenth of a second."""
    found = sorted(files("enrich").joinpath("mappings").iterdir(), key=lambda file: file.name)
    return tuple(
        [WebhookMapping(tomllib.loads(file.read_text("utf-8")), file.name) for file in found if file.name.endswith(".toml")]
    )


def mappings(paths: Sequence[str]) -> tuple[WebhookMapping, ...]:
    """paths: TOML or JSON files. Of two mappings with one request path the later counts. Raises ConfigurationError."""
    return (*bundled(), *(WebhookMapping(_read(Path(path).expanduser()), path) for path in paths))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        document: object = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"enrich.webhooks: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"enrich.webhooks: {path}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"enrich.webhooks: {path}: expected a table")
    return cast(dict[str, Any], document)
