"""What lies where in the data folder, besides the journal and the store: small state files, each written as a whole."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from protocol.seams import ConfigurationError, Cursor, PermanentError, Position


def journal_folder(data: Path) -> Path:
    return data / "journal"


def prepare(data: Path) -> None:
    """Makes the data folder. Raises ConfigurationError."""
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"data: cannot make {data}: {error.strerror}") from None
    if not os.access(data, os.W_OK | os.X_OK):
        raise ConfigurationError(f"data: no permission to write in {data}")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces the file in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(value), "utf-8")
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """None when there is no such file or it is no JSON object."""
    try:
        value: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def running(data: Path) -> Path:
    """Who runs on this data folder and where it listens."""
    return data / "running.json"


def cursor_file(data: Path, target: str) -> Path:
    """A copy of a target's cursor, for the journal's retention. It may lag behind, never run ahead."""
    return data / "cursors" / f"{target}.json"


def replaying_file(data: Path, target: str) -> Path:
    """It is there while a target is built anew from the archive, and after that was cut short."""
    return data / "cursors" / f"{target}.replaying"


def write_cursor(path: Path, cursor: Cursor) -> None:
    write_json(path, {lane: list(position) for lane, position in cursor.items()})


def read_cursor(path: Path) -> Cursor | None:
    value = read_json(path)
    return None if value is None else {lane: Position(*position) for lane, position in value.items()}


def archive_file(data: Path) -> Path:
    """How far each lane is in the archive, for the journal's retention. It may lag behind, never run ahead."""
    return data / "archived.json"


def write_archived(path: Path, url: str, cursor: Cursor) -> None:
    write_json(path, {"url": url, "lanes": cursor})


def read_archived(path: Path, url: str) -> Cursor | None:
    """None when nothing is known of the archive at this place: another one has been written to, if any."""
    value = read_json(path)
    return {lane: Position(*position) for lane, position in value["lanes"].items()} if value and value.get("url") == url else None


class Claim:
    """A target is loaded by one process at a time: this one, until `release` or its end."""

    def __init__(self, data: Path, target: str, wait_s: float = 0) -> None:
        """Raises ConfigurationError when another process has it and still has it after so many seconds, PermanentError when
        the data folder may not be written.
        """
        path = data / "cursors" / f"{target}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("a")
        except OSError as error:
            raise PermanentError(f"target {target}: it cannot be claimed in {path.parent}: {error.strerror}") from None
        end = time.monotonic() + wait_s
        while not self._taken():
            if time.monotonic() >= end:
                self._file.close()
                raise ConfigurationError(f"target {target}: another process is loading it; stop that one first")
            time.sleep(0.05)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        self._file.close()
