"""Where log files lie: below a folder, or in S3 -> the files there are now, and their bytes from a place on, uncompressed.

A file that still grows is held open, so that what is written to it after it was renamed, or between the last look and that, is
read too. Knows nothing of lines.
"""

from __future__ import annotations

import glob
import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from gateway.access_log.config import Config
from protocol.seams import ConfigurationError

_CHUNK = 256 << 10
_GZIP = b"\x1f\x8b"
_MOST_OPEN = 64
_QUIET_NS = 3_600 * 1_000_000_000  # so long after its last byte a file is taken to be whole
_LINGER_NS = 60 * 1_000_000_000  # so long a file that has lost its name may still be written to; nginx does until it is told


class Unreadable(Exception):
    """A file, or a look at S3, that failed. passing: the same again later may do; otherwise only when the file is another."""

    def __init__(self, message: str, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class LogFile(Protocol):
    """name: unique among those there are. stamp: another when its bytes may be. whole: nothing will be added to it."""

    name: str
    stamp: str
    whole: bool

    def chunks(self, start: int) -> Generator[bytes]:
        """Its bytes, uncompressed, from there on. Raises Unreadable."""
        ...


class Source(Protocol):
    def files(self) -> Iterator[LogFile]:
        """Those there are. Raises Unreadable."""
        ...

    def close(self) -> None: ...


def open_source(config: Config, now_ns: Callable[[], int]) -> Source:
    """now_ns: the clock, nanoseconds since 1970. Raises ConfigurationError."""
    return Bucket(config) if config.path.startswith("s3://") else Folder(config.path, now_ns)


@dataclass(slots=True)
class _Held:
    fd: int
    name: str


class Folder:
    """Files by a pattern, or all below a folder; oldest first. A link, or a second name of a file, is the file."""

    def __init__(self, path: str, now_ns: Callable[[], int]) -> None:
        """Raises ConfigurationError."""
        self._path, self._now_ns = path, now_ns
        self._held: dict[tuple[int, int], _Held] = {}
        fixed = Path(path)
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        if str(fixed) == path and not fixed.is_dir():
            fixed = fixed.parent
        if not path or not os.access(fixed, os.R_OK | os.X_OK):
            raise ConfigurationError(f"access_log: path: {fixed} is no folder that can be read")

    def files(self) -> Iterator[LogFile]:
        now_ns = self._now_ns()
        found: dict[tuple[int, int], tuple[int, str, os.stat_result]] = {}
        for path in sorted(self._paths()):
            try:
                about = os.stat(path)
            except OSError:  # gone again
                continue
            if stat.S_ISREG(about.st_mode):
                found.setdefault((about.st_dev, about.st_ino), (about.st_mtime_ns, path, about))
        for key, held in list(self._held.items()):
            if key not in found:  # it has lost its name
                about = os.fstat(held.fd)
                done = about.st_mtime_ns < now_ns - _LINGER_NS
                yield _File(self, key, held.name, _stamp(about), done)
                if done:
                    os.close(self._held.pop(key).fd)
        for key, (changed_ns, path, about) in sorted(found.items(), key=lambda item: item[1][:2]):
            yield _File(self, key, path, _stamp(about), changed_ns < now_ns - _QUIET_NS)

    def close(self) -> None:
        for held in self._held.values():
            os.close(held.fd)
        self._held.clear()

    def _paths(self) -> Iterator[str]:
        if glob.has_magic(self._path):
            yield from glob.iglob(self._path, recursive=True)
        elif os.path.isdir(self._path):
            for folder, _, names in os.walk(self._path):
                yield from (os.path.join(folder, name) for name in names if not name.startswith("."))
        else:
            yield self._path

    def descriptor(self, key: tuple[int, int], name: str) -> tuple[int, bool]:
        """Of that file, and whether it is to be closed after use. Raises Unreadable."""
        if (held := self._held.get(key)) is not None:
            held.name = name
            return held.fd, False
        try:
            fd = os.open(name, os.O_RDONLY)
        except OSError as error:
            raise Unreadable(f"{name}: {error.strerror}", passing=True) from error
        about = os.fstat(fd)
        if (about.st_dev, about.st_ino) != key:
            os.close(fd)
            raise Unreadable(f"{name}: another file came to its place", passing=True)
        if os.pread(fd, 2, 0) == _GZIP or about.st_mtime_ns < self._now_ns() - _QUIET_NS:
            return fd, True  # nothing will be added to it
        if len(self._held) >= _MOST_OPEN:
            os.close(self._held.pop(next(iter(self._held))).fd)
        self._held[key] = _Held(fd, name)
        return fd, False


class _File:
    __slots__ = ("_folder", "_key", "name", "stamp", "whole")

    def __init__(self, folder: Folder, key: tuple[int, int], name: str, stamp: str, whole: bool) -> None:
        self._folder, self._key, self.name, self.stamp, self.whole = folder, key, name, stamp, whole

    def chunks(self, start: int) -> Generator[bytes]:
        fd, ours = self._folder.descriptor(self._key, self.name)
        try:
            if os.pread(fd, 2, 0) == _GZIP:
                self.whole = True
                yield from inflated(self.name, _pieces(fd, 0), start)
            else:
                yield from _pieces(fd, start)
        except OSError as error:
            raise Unreadable(f"{self.name}: {error.strerror}", passing=True) from error
        finally:
            if ours:
                os.close(fd)


def _pieces(fd: int, at: int) -> Iterator[bytes]:
    while piece := os.pread(fd, _CHUNK, at):
        yield piece
        at += len(piece)


def _stamp(about: os.stat_result) -> str:
    return f"{about.st_dev}:{about.st_ino}:{about.st_size}:{about.st_mtime_ns}"


def inflated(name: str, pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
    """What gzip, of one member or several, holds from there on; a piece at a time, however far it inflates. Raises Unreadable."""
    inflate, begun = zlib.decompressobj(31), False
    try:
        for packed in pieces:
            while packed:
                out = inflate.decompress(packed, _CHUNK)
                begun = not inflate.eof
                packed = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                if inflate.eof:
                    inflate = zlib.decompressobj(31)
                skipped = min(start, len(out))
                start -= skipped
                if out := out[skipped:]:
                    yield out
    except zlib.error as error:
        raise Unreadable(f"{name}: damaged: {error}", passing=False) from error
    if begun:
        raise Unreadable(f"{name}: its end is missing", passing=False)


class Bucket:
    """Objects in S3 below a prefix, in the order of their names. Each is whole."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigurationError."""
        self._bucket, _, self._prefix = config.path.removeprefix("s3://").partition("/")
        self._after = self._prefix + config.after if config.after else ""
        if not self._bucket:
            raise ConfigurationError(f"access_log: path: {config.path!r}; expected s3://BUCKET/PREFIX")
        try:
            boto3: Any = import_module("boto3")
            self._errors: Any = import_module("botocore.exceptions")
            settings: Any = import_module("botocore.config")
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"access_log: S3 needs the package {error.name}; pip install 'spoorway[s3]'") from None
        try:
            session = boto3.session.Session(profile_name=config.profile or None, region_name=config.region or None)
            patience = {"connect_timeout": 5, "read_timeout": 60, "retries": {"mode": "standard", "total_max_attempts": 3}}
            style = {"s3": {"addressing_style": "path"}} if config.endpoint else {}
            self._client: Any = session.client(
                "s3", endpoint_url=config.endpoint or None, config=settings.Config(**patience, **style)
            )
        except (self._errors.BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"access_log: {error}") from error

    def files(self) -> Iterator[LogFile]:
        place = {"Bucket": self._bucket, "Prefix": self._prefix, **({"StartAfter": self._after} if self._after else {})}
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(**place):
                for entry in page.get("Contents", ()):
                    if entry["Size"]:
                        yield _Object(self, entry["Key"], entry["ETag"])
        except (self._errors.BotoCoreError, self._errors.ClientError) as error:
            raise Unreadable(f"s3://{self._bucket}/{self._prefix}: {error}", passing=True) from error

    def close(self) -> None:
        self._client.close()

    def pieces(self, key: str, etag: str) -> Iterator[bytes]:
        """Raises Unreadable, also when the object is another by now."""
        try:
            with self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=etag)["Body"] as body:
                while piece := body.read(_CHUNK):
                    yield piece
        except (self._errors.BotoCoreError, self._errors.ClientError, OSError) as error:
            raise Unreadable(f"s3://{self._bucket}/{key}: {error}", passing=True) from error


class _Object:
    __slots__ = ("_bucket", "name", "stamp", "whole")

    def __init__(self, bucket: Bucket, key: str, etag: str) -> None:
        self._bucket, self.name, self.stamp, self.whole = bucket, key, etag, True

    def chunks(self, start: int) -> Generator[bytes]:
        pieces = self._bucket.pieces(self.name, self.stamp)
        first = next(pieces, b"")
        if first[:2] == _GZIP:
            yield from inflated(self.name, _rejoined(first, pieces), start)
            return
        for piece in _rejoined(first, pieces):
            skipped = min(start, len(piece))
            start -= skipped
            if piece := piece[skipped:]:
                yield piece


def _rejoined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
