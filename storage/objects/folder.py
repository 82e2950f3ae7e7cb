"""Objects as files below a folder: each is written aside, synced, and then appears under its name in one step.

What is written aside lies in `.incoming`, which no listing shows; what a kill leaves there goes a day later.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Concatenate, ParamSpec, TypeVar

from protocol.seams import PermanentError, TransientError
from storage.objects import Found, NoSuchObject, checked

_INCOMING = ".incoming"
_LEFT_BEHIND_S = 86_400
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}

P = ParamSpec("P")
R = TypeVar("R")


def _translating(call: Callable[Concatenate[FolderObjects, P], R]) -> Callable[Concatenate[FolderObjects, P], R]:
    def translated(self: FolderObjects, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(self, *args, **kwargs)
        except OSError as error:
            raise trouble(error) from error

    return translated


def trouble(error: OSError) -> TransientError | PermanentError:
    """To be raised in its place."""
    if isinstance(error, FileNotFoundError):
        return NoSuchObject(f"{error.filename}: no such object")
    return (PermanentError if error.errno in _REFUSED else TransientError)(f"{error.filename or 'a folder'}: {error.strerror}")


class FolderObjects:
    """An `Objects` in a folder. Any number of processes on one machine may share it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._incoming = self.root / _INCOMING
        self._tidied = False
        self._named: set[Path] = set()

    @_translating
    def put_new(self, name: str, body: bytes | Path) -> bool:
        path = self.root / checked(name)
        with self._aside(body) as fresh:
            self._make_folders(path.parent)
            try:
                os.link(fresh, path)
                made = True
            except FileExistsError:
                made = False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with self._alone():  # a file system without hard links
                    if made := not path.exists():
                        fresh.rename(path)
            self._sync_names(path.parent)  # also what another made a moment ago
        return made

    @_translating
    def put(self, name: str, body: bytes | Path) -> None:
        path = self.root / checked(name)
        with self._aside(body) as fresh:
            self._make_folders(path.parent)
            with self._alone():
                fresh.rename(path)
            self._sync_names(path.parent)

    @_translating
    def put_if(self, name: str, body: bytes, etag: str) -> bool:
        path = self.root / checked(name)
        with self._aside(body) as fresh, self._alone():
            try:
                if _etag(path.stat()) != etag:
                    return False
            except FileNotFoundError:
                return False
            fresh.rename(path)
            self._sync_names(path.parent)
        return True

    def copy(self, source: str, name: str) -> None:
        self.put(name, self.root / checked(source))

    @_translating
    def get(self, name: str) -> bytes:
        return (self.root / checked(name)).read_bytes()

    @_translating
    def get_with_etag(self, name: str) -> tuple[bytes, str] | None:
        with suppress(FileNotFoundError), (self.root / checked(name)).open("rb") as file:
            return file.read(), _etag(os.fstat(file.fileno()))
        return None

    @_translating
    def open(self, name: str) -> BinaryIO:
        return (self.root / checked(name)).open("rb")

    @_translating
    def sha256(self, name: str) -> str:
        with (self.root / checked(name)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def list(self, prefix: str = "") -> Iterator[Found]:
        folder, _, _ = prefix.rpartition("/")
        try:
            self._check_root()
            yield from _walk(self.root / folder, f"{folder}/" if folder else "", prefix)
        except OSError as error:
            raise trouble(error) from error

    @_translating
    def delete(self, names: Iterable[str]) -> None:
        folders: set[Path] = set()
        for name in names:
            path = self.root / checked(name)
            with suppress(FileNotFoundError, NotADirectoryError), self._alone():
                path.unlink()
                folders.add(path.parent)
        for folder in folders:
            _sync(folder)

    def url(self, name: str) -> str:
        return str(self.root / checked(name))

    def about(self) -> str:
        return str(self.root)

    def _check_root(self) -> None:
        """A folder that is not there yet comes with the first object; a file in its way stays. Raises OSError."""
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(self.root.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.root))

    @contextmanager
    def _aside(self, body: bytes | Path) -> Generator[Path, None, None]:
        """The body in a durable file of its own, which goes afterwards if it still has its first name."""
        self._make_folders(self._incoming)
        self._tidy()
        fresh = self._incoming / secrets.token_hex(8)
        try:
            with fresh.open("xb") as file:
                if isinstance(body, Path):
                    with body.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(body)
                file.flush()
                os.utime(
                    file.fileno(), ns=(now := time.time_ns(), now)
                )  # the etag's part: finer than the file system's own clock
                os.fsync(file.fileno())
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Generator[None, None, None]:
        """One at a time, among all processes: between looking at a version and replacing it."""
        self._make_folders(self._incoming)
        with (self._incoming / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_folders(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)

    def _sync_names(self, folder: Path) -> None:
        """The names in this folder, and of it and those above up to the root, are on the medium, whoever made them."""
        _sync(folder)
        while folder not in self._named and folder != self.root.parent:
            _sync(folder.parent)
            self._named.add(folder)
            folder = folder.parent

    def _tidy(self) -> None:
        if self._tidied:
            return
        self._tidied = True
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.name != "lock" and path.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
                    path.unlink()


def _walk(folder: Path, name: str, prefix: str) -> Iterator[Found]:
    """In the order of the whole names, as S3 has it: a folder sorts with its slash."""
    try:
        with os.scandir(folder) as entries:
            here = sorted((f"{entry.name}/" if entry.is_dir() else entry.name) for entry in entries if entry.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return
    for part in here:
        full = name + part
        if part[-1] == "/":
            if full.startswith(prefix) or prefix.startswith(full):
                yield from _walk(folder / part, full, prefix)
        elif full.startswith(prefix):
            with suppress(FileNotFoundError):
                found = (folder / part).stat()
                yield Found(full, found.st_size, _etag(found))


def _etag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


__all__ = ["FolderObjects", "trouble"]
