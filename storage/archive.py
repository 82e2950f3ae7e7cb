"""Finished segments of the journal -> immutable objects partitioned by day, and a manifest that lists what is there for certain.

    raw/dt=2026-01-15/5f0c2a91-00000001.ndjson.gz        a segment, byte for byte as the journal sealed it
    manifest/5f0c2a91/00000001.json                      its entry: made once, after the object was read back

What no entry lists is not archived: an object may lie there because a copy was cut short, and is put right by the next one.
What an entry lists is never changed by adding. So a crash, or two archivers, list nothing twice and nothing that is not there.
Knows no journal: a segment is a file, and what it holds is told by who knows.

Of a journal on servers a segment is what somebody gathered there, as much as there was. Two who begin at the same place make
different ones; so the objects' names have their checksum, and the entry, which only one of them can make, is what decides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from protocol.seams import PermanentError, Position, TransientError
from storage.objects import NoSuchObject, Objects
from storage.targets import Overtaken

DATA, MANIFEST = "raw/", "manifest/"
_AT_ONCE = 8
_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """url: s3://BUCKET/PREFIX or a folder; "" = nothing is archived. endpoint, region, profile: of S3; "" = as AWS finds them."""

    url: str = ""
    endpoint: str = ""
    region: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a segment holds. bytes: its length, uncompressed. payloads: those that can be read; damaged: places that cannot.

    first_ms, last_ms: the earliest and latest time a payload was received. first_number, last_number: the payloads' numbers in
    their lane, 0 when none can be read.
    """

    bytes: int
    payloads: int
    damaged: int
    first_ms: int
    last_ms: int
    first_number: int
    last_number: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a gathered segment comes from: the lane of a journal on servers, where reading began and where it goes on."""

    lane: str
    since: Position
    until: Position


@dataclass(frozen=True, slots=True)
class Entry:
    """One archived segment. object: its name; sha256, size: of the object as it lies there, compressed.

    origin: None = of a journal in files.
    """

    lane: str
    segment: int
    object: str
    sha256: str
    size: int
    contents: Contents
    origin: Origin | None = None

    @property
    def reached(self) -> dict[str, Position]:
        """Who has this segment has that lane of the journal on servers as far as here; {} when there is none."""
        return {} if self.origin is None else {self.origin.lane: self.origin.until}


class DamagedObject(PermanentError):
    """What lies there is not what was archived."""


class Archive:
    """Any thread. Everything raises TransientError or PermanentError as `Objects` does."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def add(self, lane: str, segment: int, path: Path, contents: Contents, origin: Origin | None = None) -> Entry:
        """Copies a segment, reads the copy's checksum back, lists it. When it is listed already nothing is written.

        Raises PermanentError when another segment is listed under this number; Overtaken, where it was gathered.
        """
        entry = _entry(lane, segment, path, contents, origin)
        listed = self.entry(lane, segment)
        if listed is None:
            try:
                if not self._objects.put_new(entry.object, path) and self._objects.sha256(entry.object) != entry.sha256:
                    self._objects.put(entry.object, path)
                self._read_back(entry)
            except NoSuchObject:  # cleaned away by who was faster
                if origin is None:
                    raise
            else:
                if self._objects.put_new(_manifest(lane, segment), _to_json(entry)):
                    self._clean(entry)
                    return entry
            listed = self.entry(lane, segment)
        if origin is not None and (listed is None or listed.sha256 != entry.sha256):
            if listed is not None:
                self._clean(listed, entry.object)
            raise Overtaken(f"another archiver was at segment {segment} of lane {origin.lane}")
        if listed is None or listed.sha256 != entry.sha256:
            raise PermanentError(f"{self._objects.url(_manifest(lane, segment))} lists another segment than {path}")
        return listed

    def replace(self, lane: str, segment: int, path: Path, contents: Contents) -> Entry:
        """Puts a changed segment (of which somebody's data was erased, say) in the place of a listed one.

        For one caller at a time. After a crash in the midst the object fails its checksum until this is done again.
        Raises PermanentError when it is not listed.
        """
        name = _manifest(lane, segment)
        found = self._objects.get_with_etag(name)
        if found is None:
            raise PermanentError(f"{self._objects.url(name)}: no such segment is archived")
        body, etag = found
        listed = _from_json(body, name)
        entry = dataclasses.replace(_entry(lane, segment, path, contents), object=listed.object, origin=listed.origin)
        self._objects.put(entry.object, path)
        self._read_back(entry)
        if not self._objects.put_if(name, _to_json(entry), etag):
            raise TransientError(f"{self._objects.url(name)}: somebody else replaced it at the same time")
        return entry

    def entry(self, lane: str, segment: int) -> Entry | None:
        """None when it is not archived."""
        name = _manifest(lane, segment)
        found = self._objects.get_with_etag(name)
        return None if found is None else _from_json(found[0], self._objects.url(name))

    def last(self, lane: str) -> Entry | None:
        """Of a lane, the entry with the highest number."""
        names = [found.name for found in self._objects.list(f"{MANIFEST}{lane}/")]
        numbers = [int(name.rpartition("/")[2].removesuffix(".json")) for name in names]
        return self.entry(lane, max(numbers)) if numbers else None

    def entries(self, lane: str = "") -> Iterator[Entry]:
        """By lane and number; of one lane, or of all."""
        from concurrent.futures import ThreadPoolExecutor  # the options above are read by processes that archive nothing

        def read(name: str) -> Entry:
            return _from_json(self._objects.get(name), self._objects.url(name))

        names = [found.name for found in self._objects.list(f"{MANIFEST}{lane}/" if lane else MANIFEST)]
        with ThreadPoolExecutor(_AT_ONCE, "manifest") as pool:
            yield from pool.map(read, names)

    def unlisted(self, listed: set[str]) -> list[str]:
        """Objects that lie among the data although no entry names them. listed: the objects' names."""
        return [found.name for found in self._objects.list(DATA) if found.name not in listed]

    def wrong(self, entry: Entry) -> str:
        """What is wrong with an archived segment as it lies there now; "" = nothing."""
        try:
            sha256 = self._objects.sha256(entry.object)
        except NoSuchObject:
            return f"{self._objects.url(entry.object)}: the object is gone"
        return "" if sha256 == entry.sha256 else self._differs(entry, sha256)

    def fetch(self, entry: Entry, path: Path) -> None:
        """Copies a segment out of the archive. Raises DamagedObject, with what lies there in `path`, and NoSuchObject."""
        digest = hashlib.sha256()
        with self._objects.open(entry.object) as source, path.open("wb") as file:
            while data := source.read(_WINDOW):
                digest.update(data)
                file.write(data)
        if digest.hexdigest() != entry.sha256:
            raise DamagedObject(self._differs(entry, digest.hexdigest()))

    def _clean(self, listed: Entry, own: str = "") -> None:
        """Deletes what lies in the place of a gathered segment and is not listed: ours, or of somebody who was killed.

        What stays all the same, because nobody may delete or it began on another day, is not listed and harms nobody.
        """
        if listed.origin is not None:
            stem = listed.object.rpartition("-")[0] + "-"
            with suppress(TransientError, PermanentError):
                strays = {own} - {""} | {found.name for found in self._objects.list(stem)}
                if strays := strays - {listed.object}:
                    self._objects.delete(sorted(strays))

    def _read_back(self, entry: Entry) -> None:
        if (sha256 := self._objects.sha256(entry.object)) != entry.sha256:
            raise TransientError(self._differs(entry, sha256))

    def _differs(self, entry: Entry, sha256: str) -> str:
        url = self._objects.url(entry.object)
        return f"{url} is damaged: its SHA-256 begins {sha256[:12]}, that of the segment {entry.sha256[:12]}"


def _entry(lane: str, segment: int, path: Path, contents: Contents, origin: Origin | None = None) -> Entry:
    try:
        with path.open("rb") as file:
            sha256, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise TransientError(f"{path}: {error.strerror}") from error
    day = f"{datetime.fromtimestamp(contents.first_ms / 1000, UTC):%Y-%m-%d}"
    told = "" if origin is None else f"-{sha256[:12]}"
    return Entry(lane, segment, f"{DATA}dt={day}/{lane}-{segment:08d}{told}.ndjson.gz", sha256, size, contents, origin)


def _manifest(lane: str, segment: int) -> str:
    return f"{MANIFEST}{lane}/{segment:08d}.json"


def _to_json(entry: Entry) -> bytes:
    """Flat, so that other programs read it as a table."""
    flat = dataclasses.asdict(entry)
    contents, origin = flat.pop("contents"), flat.pop("origin")
    return json.dumps(flat | contents | ({"origin": origin} if origin else {})).encode() + b"\n"


def _from_json(body: bytes, url: str) -> Entry:
    try:
        flat = cast(dict[str, Any], json.loads(body))
        contents = Contents(**{field.name: int(flat[field.name]) for field in dataclasses.fields(Contents)})
        origin = flat.get("origin")
        if origin is not None:
            origin = Origin(origin["lane"], Position(*origin["since"]), Position(*origin["until"]))
        return Entry(flat["lane"], flat["segment"], flat["object"], flat["sha256"], flat["size"], contents, origin)
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(f"{url} is damaged: no entry of an archive ({error!r})") from error


__all__ = ["DATA", "MANIFEST", "Archive", "Contents", "DamagedObject", "Entry", "Options", "Origin"]
