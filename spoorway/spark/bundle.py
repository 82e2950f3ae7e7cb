"""Settings -> one zip with all that the job must know on every machine: places, enrichments, schemas, the files they read.

Which files those are is found by building the pipeline once. Nothing of the gateway's and the targets' options is in it, but what
enrichments were told is, a salt among it: the file is for its owner only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from enrich.enrichments import Remembered, Step
from protocol.seams import ConfigurationError
from spoorway import __version__, building
from spoorway.config import Settings, merged
from spoorway.world import World
from storage.archive import Options as Place

if TYPE_CHECKING:
    from enrich.pipeline import Pipeline

T = TypeVar("T")

_ORDER = "order.json"
# What these ask of their memory, and when, depends on no other enrichment's memory; of others nobody knows.
_REMEMBERING = ("device_time", "email_agent")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done. source: the archive; to: an S3 target's place. partial: even if something is gone or damaged.

    enrich: the table of that name of the configuration. files: what it names -> where that lies in the bundle.
    """

    source: Place
    to: Place
    partial: bool
    enrich: Mapping[str, Any]
    files: Mapping[str, str]
    version: str = __version__


class Recall(Generic[T]):
    """A `Memory` of one stretch: what was known before it, and what was learned since. asked: the keys that were asked for."""

    def __init__(self, remembered: Remembered[T]) -> None:
        self.remembered = remembered
        self.values: dict[str, T] = {}
        self.asked: set[str] = set()

    def get(self, key: str) -> T | None:
        """As Memory.get."""
        self.asked.add(key)
        return self.values.get(key)

    def put(self, key: str, value: T) -> None:
        """As Memory.put."""
        self.asked.add(key)
        self.values[key] = value

    def begin(self, known: Iterable[tuple[str, bytes]]) -> None:
        """Forgets everything but that."""
        self.values = {key: self.remembered.read(value) for key, value in known}
        self.asked.clear()

    def written(self, key: str) -> bytes | None:
        """What is known of the key, as it is remembered; None when nothing is."""
        value = self.values.get(key)
        return None if value is None else self.remembered.write(value)


class _Shipped(World):
    """The world of a task. files: path in the configuration -> here. memories: by name, those that were asked for."""

    def __init__(self, files: Mapping[str, str]) -> None:
        super().__init__()
        self._files = files
        self.memories: dict[str, Recall[Any]] = {}

    def watch(self, path: str, build: Callable[[bytes], T]) -> Callable[[], T]:
        return super().watch(self._here(path), build)

    def database(
        self, address: str, query: str, values: int, timeout_s: float, most_rows: int
    ) -> Callable[[tuple[object, ...]], list[dict[str, object]]]:
        return super().database(self._here(address), query, values, timeout_s, most_rows)

    def memory(self, name: str, remembered: Remembered[T], most: int) -> Recall[T]:  # type: ignore[override]
        if name not in _REMEMBERING or name in self.memories:
            raise ConfigurationError(f"{name}: the Spark job shares the memory of {' and '.join(_REMEMBERING)}, once each")
        recall = self.memories[name] = Recall(remembered)
        return recall

    def _here(self, path: str) -> str:
        return self._files.get(path, path)


class _Noting(_Shipped):
    """Knows afterwards which files were asked for."""

    def __init__(self) -> None:
        super().__init__({})
        self.paths: list[str] = []

    def _here(self, path: str) -> str:
        if not path.startswith(("postgresql://", "postgres://")):
            self.paths.append(path)
        return path


class Enriching:
    """The enrichment of one task, as configured. memories: of the steps of these names; pipeline(): anew, with the same steps."""

    def __init__(self, settings: Settings, world: _Shipped) -> None:
        self._settings, self.memories = settings, world.memories
        self.steps: list[Step] = []
        self.remembering: dict[int, str] = {}  # place among the steps -> name of its memory
        for place, instance in enumerate(settings.enrichments()):
            before = set(world.memories)
            self.steps.append(Step(instance.name, instance.plugin(world), instance.on_error))
            for name in world.memories.keys() - before:
                self.remembering[place] = name
        self._lookup, self._templates = building.schema_lookup(settings), building.templates(settings)

    def pipeline(self, steps: Sequence[Step] | None = None) -> Pipeline:
        """A new one. steps: in place of the configured ones. Raises ConfigurationError."""
        from enrich.pipeline import Pipeline

        options = building.enrich_options(self._settings, self._templates)
        return Pipeline(options, self._lookup, self.steps if steps is None else steps)


def pack(settings: Settings, source: Place, to: Place, partial: bool, path: Path) -> Order:
    """Writes the bundle. Raises ConfigurationError, also for what the job cannot do as one machine does it; OSError."""
    noting = _Noting()
    Enriching(settings, noting).pipeline()
    enrich = dict(cast(Mapping[str, Any], settings.values.get("enrich", {})))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".bundle-", delete=False) as file:  # for its owner only
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
                for name in ("webhooks", "schemas"):
                    named = getattr(settings.enrich, name)
                    enrich[name] = [_added(bundle, Path(one), f"{name}-{n}") for n, one in enumerate(named)]
                enrich.pop("registries", None)  # what they had is in the cache
                for folder in (settings.data / name for name in ("schemas", "templates", "schema-cache")):
                    _added(bundle, folder, folder.name)
                files = {one: _added(bundle, Path(one), f"files/{n}") for n, one in enumerate(dict.fromkeys(noting.paths))}
                order = Order(_absolute(source), _absolute(to), partial, enrich, files)
                bundle.writestr(_ORDER, json.dumps(dataclasses.asdict(order)))
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return order


def read(path: Path) -> Order:
    """Raises ConfigurationError."""
    try:
        with zipfile.ZipFile(path) as bundle:
            fields: dict[str, Any] = json.loads(bundle.read(_ORDER))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{path}: no bundle of `spoorway spark`: {error}") from None
    if fields["version"] != __version__:
        raise ConfigurationError(
            f"{path}: made by Spoorway {fields['version']}, and this machine has {__version__}; both must be the same"
        )
    fields["source"], fields["to"] = Place(**fields["source"]), Place(**fields["to"])
    return Order(**fields)


def unpacked(path: Path) -> Path:
    """The bundle's folder, beside it; made once on each machine. Raises OSError."""
    folder = path.with_name(f"{path.name}.d")
    if not folder.is_dir():
        fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=".unpacked-"))
        with zipfile.ZipFile(path) as bundle:
            bundle.extractall(fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another task was quicker
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def opened(path: Path) -> Enriching:
    """The enrichment as it was packed. Raises ConfigurationError, OSError."""
    order, root = read(path), unpacked(path)
    enrich = dict(order.enrich)
    for name in ("webhooks", "schemas"):
        enrich[name] = [str(root / one) for one in enrich[name]]
    settings = merged({"data": str(root), "enrich": enrich})
    return Enriching(settings, _Shipped({name: str(root / place) for name, place in order.files.items()}))


def _added(bundle: zipfile.ZipFile, path: Path, name: str) -> str:
    """Puts a file, or a folder with all that is in it, into the bundle, and says as what."""
    path = path.expanduser()
    if path.is_file():
        name += path.suffix
        bundle.write(path, name)
    for folder, _, members in os.walk(path):
        for member in sorted(members):
            full = Path(folder) / member
            bundle.write(full, f"{name}/{full.relative_to(path)}")
    return name


def _absolute(place: Place) -> Place:
    if "://" in place.url and not place.url.startswith("file://"):
        return place
    return dataclasses.replace(place, url=str(Path(place.url.removeprefix("file://")).expanduser().absolute()))


__all__ = ["Enriching", "Order", "Place", "Recall", "opened", "pack", "read", "unpacked"]
