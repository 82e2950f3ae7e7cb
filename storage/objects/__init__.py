"""Objects by name, in a folder or in S3: whole bodies in, whole bodies or streams out; nothing here knows what they hold.

Call order: `open_objects(url)` -> any call from any thread. Names are relative to the root, with / between the parts; a folder
and S3 behave alike. What was put is seen by the next call of anybody, whole or not at all, and is durable when the call returns.

Every call raises TransientError (nobody knows whether it was done: ask again) or PermanentError (refused).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from protocol.seams import ConfigurationError, PermanentError


class Found(NamedTuple):
    """An object. etag: of this version; two that differ in anything have two."""

    name: str
    size: int
    etag: str


class NoSuchObject(PermanentError):
    """There is no object of that name."""


class Objects(Protocol):
    def put_new(self, name: str, body: bytes | Path) -> bool:
        """Makes an object that does not exist; False, and nothing is changed: it exists already.

        Of any number of callers at once one gets True. After a TransientError it may exist: the next call says False.
        """
        ...

    def put(self, name: str, body: bytes | Path) -> None:
        """Makes or replaces it, in one step."""
        ...

    def put_if(self, name: str, body: bytes, etag: str) -> bool:
        """Replaces that version only; False, and nothing is changed: it is another now, or gone."""
        ...

    def copy(self, source: str, name: str) -> None:
        """Makes or replaces `name`, in one step, of what lies under `source`; in S3 nothing passes through here.

        Of S3 up to 5 GB. Raises NoSuchObject.
        """
        ...

    def get(self, name: str) -> bytes:
        """Raises NoSuchObject."""
        ...

    def get_with_etag(self, name: str) -> tuple[bytes, str] | None:
        """None when it does not exist."""
        ...

    def open(self, name: str) -> BinaryIO:
        """For reading from the beginning to the end, in bounded memory. Raises NoSuchObject.

        Reading raises as calls do; from a folder, OSError.
        """
        ...

    def sha256(self, name: str) -> str:
        """Hex digest of what lies there now: told by the store where it keeps it, otherwise read. Raises NoSuchObject."""
        ...

    def list(self, prefix: str = "") -> Iterator[Found]:
        """Those whose name begins so, sorted by name; a prefix need not end where a part ends."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Those that do not exist are no mistake."""
        ...

    def url(self, name: str) -> str:
        """Where others find it: s3://bucket/…, or an absolute path."""
        ...

    def about(self) -> str:
        """For people: where the objects lie, and as whom we come there; no secret."""
        ...


def open_objects(url: str, *, endpoint: str = "", region: str = "", profile: str = "") -> Objects:
    """url: `s3://bucket/prefix`, or a folder, which is made with the first object. The rest is for S3, and may be "".

    endpoint: of a store that is not Amazon's; profile: in ~/.aws. Nothing is asked of the store yet.
    Raises ConfigurationError.
    """
    if url.startswith("s3://"):
        try:
            from storage.objects.s3 import S3Objects
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"{url}: S3 needs {error.name}; pip install 'spoorway[s3]'") from None
        return S3Objects(url, endpoint=endpoint, region=region, profile=profile)
    from storage.objects.folder import FolderObjects

    if "://" in url and not url.startswith("file:///"):
        raise ConfigurationError(f"{url}: expected s3://BUCKET/PREFIX or a folder")
    if not url:
        raise ConfigurationError("no place for objects is named; expected s3://BUCKET/PREFIX or a folder")
    return FolderObjects(Path(url.removeprefix("file://")).expanduser())


_NAME = re.compile(r"(?:[^./\0][^/\0]*/)*[^./\0][^/\0]*")


def checked(name: str) -> str:
    """`name`, when both a folder and S3 can have it: no part is empty or begins with a dot. Raises PermanentError."""
    if not _NAME.fullmatch(name):
        raise PermanentError(f"{name!r} is no name of an object")
    return name


__all__ = ["Found", "NoSuchObject", "Objects", "checked", "open_objects"]
