"""Schemas as files, VENDOR/NAME/FORMAT/VERSION in a folder: how static registries and our own folders are laid out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from protocol.iglu import InvalidUri, SchemaKey, parse
from protocol.seams import Json

Document = dict[str, Json]


class Unreadable(ValueError):
    """The file is there and is no JSON object; the message says why."""


def key_of(uri: str) -> SchemaKey | None:
    """None for what is no schema URI, or has a vendor that would climb out of a folder."""
    try:
        key = parse(uri)
    except InvalidUri:
        return None
    return key if key.vendor.strip(".") else None


def place(folder: Path, key: SchemaKey) -> Path:
    return folder / key.vendor / key.name / key.format / key.version


def key_of_place(path: Path) -> SchemaKey | None:
    """What a file's last four names say; a final .json is overlooked."""
    vendor, name, form, version = ("", "", "", "", *path.parts)[-4:]
    return key_of(f"iglu:{vendor}/{name}/{form}/{version.removesuffix('.json')}")


def key_of_document(document: Document) -> SchemaKey | None:
    """What `self` says; None when it does not say it well."""
    own = document.get("self")
    if not isinstance(own, dict):
        return None
    parts = [own.get(part) for part in ("vendor", "name", "format", "version")]
    return key_of("iglu:{}/{}/{}/{}".format(*parts)) if all(isinstance(part, str) for part in parts) else None


def read(file: Path) -> Document:
    """Raises OSError, Unreadable."""
    return decode(file.read_bytes())


def decode(text: bytes) -> Document:
    """Raises Unreadable."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be stored anywhere
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unreadable("a schema is a JSON object")
    return cast(Document, value)


def write(file: Path, document: Document) -> None:
    """Replaces the file in one step. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    fresh.replace(file)


def walk(folder: Path) -> Iterator[tuple[SchemaKey, Path]]:
    """Every schema that lies in its place, sorted by path."""
    for file in sorted(folder.glob("*/*/*/*")):
        key = key_of("iglu:" + "/".join(file.relative_to(folder).parts))
        if key is not None and file.is_file():
            yield key, file


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
