"""What erasures leave on the disk: what was asked, what each store did of it, the receipts. Nobody erases anything here.

Little is imported, because every process that loads looks whether something is asked of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocol.persons import Person
from protocol.seams import Position
from spoorway.building import now_ms
from spoorway.files import read_json
from storage.targets import Removed

NOT_COVERED = (
    "backups, exports and copies made before; after a restore, erase again",
    "whatever a relay or another program has taken on already: erase there too",
    "old versions that a bucket or a file system keeps by itself",
    "places of the journal that are damaged: nobody can read whose they are",
)


@dataclass(slots=True)
class Asked:
    """What an erasure must know to be done, or done to its end. ready: the journal holds nothing of them any more.

    until_ms: of what was received until then. ends: how far the journal reached. targets: their names.
    """

    id: str
    until_ms: int
    who: Person
    ends: dict[str, Position]
    targets: list[str]
    salt: str
    ready: bool = False

    @classmethod
    def read(cls, path: Path) -> Asked | None:
        """None where there is no such file."""
        found = read_json(path)
        if found is None:
            return None
        who = Person(**{kind: frozenset(values) for kind, values in found.pop("who").items()})
        places = {lane: Position(*position) for lane, position in found.pop("ends").items()}
        return cls(who=who, ends=places, **found)

    def write(self, path: Path) -> None:
        """On the medium when it returns. Raises OSError."""
        kinds = {f.name: sorted(getattr(self.who, f.name)) for f in fields(Person)}
        write_private(path, {**asdict(self), "who": kinds, "ends": {lane: list(p) for lane, p in self.ends.items()}})


@dataclass(slots=True)
class Receipt:
    """What was done. who: by kind, SHA-256 of "SALT\\nKIND\\nIDENTIFIER". state: journal, archive, stores or done.

    journal, archive: the rewritten segments, by lane and number. stores: events and failed events removed, by target.
    """

    id: str
    state: str
    asked: str
    until: str
    salt: str
    who: dict[str, list[str]]
    journal: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    archive: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    stores: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    remembered: int = 0
    finished: str = ""
    not_covered: tuple[str, ...] = NOT_COVERED


def folder(data: Path) -> Path:
    """Of all erasures: what was asked, what each store did, the receipts."""
    return data / "erasures"


def asked_file(data: Path, erasure_id: str) -> Path:
    """What is asked of it, with the identifiers; there as long as it is open."""
    return folder(data) / f"{erasure_id}.asked"


def events_file(data: Path, erasure_id: str) -> Path:
    """Ids of events and failed events that the journal knew as theirs."""
    return folder(data) / f"{erasure_id}.events"


def receipt_file(data: Path, erasure_id: str) -> Path:
    """What was done, with salted hashes in place of the identifiers."""
    return folder(data) / f"{erasure_id}.json"


def part_file(data: Path, erasure_id: str, target: str) -> Path:
    """What a loading process has done of it."""
    return folder(data) / f"{erasure_id}.{target}.part"


def open_ones(data: Path) -> list[Asked]:
    """Erasures that were begun and not finished, oldest first."""
    found = [Asked.read(path) for path in sorted(folder(data).glob("*.asked"))]
    return [asked for asked in found if asked is not None]


def part_of(removed: Removed) -> dict[str, Any]:
    """What a target has removed, for its part file."""
    return {"state": "done", **removed._asdict(), "at": iso(now_ms())}


def receipts(data: Path) -> Iterator[Receipt]:
    """Of all erasures, oldest first."""
    for path in sorted(folder(data).glob("*.json")):
        if found := read_json(path):
            yield Receipt(**found)


def write_private(path: Path, value: Mapping[str, Any]) -> None:
    """As write_json, readable by its owner only, and on the medium when it returns."""
    fresh = path.with_name(f".{path.name}.new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    held = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def iso(ms: int) -> str:
    """As receipts tell a moment."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}.{ms % 1000:03d}"
