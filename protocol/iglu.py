"""Schema URIs: `iglu:vendor/name/format/model-revision-addition`. Grammar: tracker protocol, "Iglu URI and SchemaVer".

Pure: text in, values out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_INT32_MAX = 2_147_483_647
_URI = re.compile(r"iglu:([A-Za-z0-9\-_.]+)/([A-Za-z0-9\-_]+)/([A-Za-z0-9\-_]+)/([^/]*)")
_VERSION = re.compile(r"([1-9][0-9]*)-(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")
_LONGEST_PART = 128


class InvalidUri(ValueError):
    """code: INVALID_IGLUURI or INVALID_SCHEMAVER, the words failed events use."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class SchemaKey(NamedTuple):
    vendor: str
    name: str
    format: str
    model: int
    revision: int
    addition: int

    @property
    def version(self) -> str:
        return f"{self.model}-{self.revision}-{self.addition}"

    @property
    def uri(self) -> str:
        return f"iglu:{self.vendor}/{self.name}/{self.format}/{self.version}"


@lru_cache(maxsize=4096)
def parse(uri: str) -> SchemaKey:
    """Raises InvalidUri. Vendor, name and format hold at most 128 characters, each version number fits 32 bits."""
    match = _URI.fullmatch(uri)
    if match is None or any(len(part) > _LONGEST_PART for part in match.group(1, 2, 3)):
        raise InvalidUri("INVALID_IGLUURI")
    version = _VERSION.fullmatch(match[4])
    if version is None or any(len(n) > 10 or int(n) > _INT32_MAX for n in version.groups()):
        raise InvalidUri("INVALID_SCHEMAVER")
    return SchemaKey(match[1], match[2], match[3], int(version[1]), int(version[2]), int(version[3]))


@lru_cache(maxsize=4096)
def is_uri(text: str) -> bool:
    """Whether `parse` takes it."""
    try:
        parse(text)
    except InvalidUri:
        return False
    return True


@lru_cache(maxsize=4096)
def meets(key: SchemaKey, criterion: str) -> bool:
    """Whether a key fits a criterion such as `iglu:vendor/name/jsonschema/1-0-*`."""
    head, _, version = criterion.rpartition("/")
    if head != f"iglu:{key.vendor}/{key.name}/{key.format}":
        return False
    return all(want in ("*", have) for want, have in zip(version.split("-"), key.version.split("-"), strict=True))
