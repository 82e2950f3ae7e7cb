"""One of several processes that load the same targets from a journal that is not in files: `spoorway worker`.

Of each target the workers are a group of its own, so that a target that is down delays nobody: GROUP.TARGET. The group gives each
lane of the journal to one of them. Who has a lane decides the group; who may store from it decides the target, in the transaction
of each commit (`storage.targets.Batch.since`). So a worker that was stopped, or cut off, and comes back stores nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.journal import GroupReader
from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.config import Instance, Settings
from spoorway.files import replaying_file
from spoorway.loading import Loading
from spoorway.metrics import Metric
from spoorway.options import unknown
from spoorway.plugins import extra_of
from spoorway.supervisor import archive_metrics, target_metrics, target_trouble

ARCHIVE = "archive"
"""What the archive is called among the targets."""

if TYPE_CHECKING:
    from spoorway.archiving_remote import GroupArchiving


class Worker:
    """Call order: `Worker(...)` opens everything -> `run` until a signal -> exit code. metrics, unready: from any thread."""

    def __init__(self, settings: Settings, group: str | None, targets: Sequence[str] | None, *, supervised: bool) -> None:
        """group: None = as configured. targets: names; None = all that are configured. supervised: as of Loading.

        Raises ConfigurationError.
        """
        remote = settings.remote()
        if remote is None:
            raise ConfigurationError(
                "journal: workers read [journal.kafka] or [journal.kinesis], and neither is configured;"
                " the journal in files is loaded by `spoorway run` or `spoorway load`"
            )
        if group is not None:
            remote = replace(remote, config=replace(remote.config, group=group))
        self.group: str = remote.config.group
        self._instances, archives = _chosen(settings, targets)
        archiving = _archiving(settings, _readers(remote, ahead=True)(ARCHIVE)) if archives else None
        self._loading = Loading(settings, supervised, self._instances, _readers(remote), archiving)

    @property
    def targets(self) -> list[str]:
        """Their names, and that of the archive if it is one of them."""
        return [instance.name for instance in self._instances] + [ARCHIVE] * (self._loading.archiving is not None)

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        return self._loading.run()

    def metrics(self) -> list[Metric]:
        """Of all targets and the archive; see docs/worker.md."""
        archiving = self._loading.archiving
        return target_metrics(self._statuses()) + (archive_metrics(archiving.status.as_dict()) if archiving is not None else [])

    def unready(self) -> str:
        """Why it cannot be relied on yet, or not now; "" when it can."""
        starting = [f"{name} has not read yet" for name in self._waited_for()]
        archiving = self._loading.archiving
        if archiving is not None and not self._loading.loaders and archiving.status.state in ("starting", "retrying"):
            starting.append(f"{ARCHIVE}: {archiving.status.message or 'has not read yet'}")
        return "; ".join(starting) or target_trouble(self._statuses())

    def _waited_for(self) -> list[str]:
        return [loader.status.target for loader in self._loading.loaders if loader.status.state == "starting"]

    def _statuses(self) -> list[Mapping[str, Any]]:
        return [loader.status.as_dict() for loader in self._loading.loaders]


def _chosen(settings: Settings, names: Sequence[str] | None) -> tuple[list[Instance], bool]:
    """The targets, and whether the archive is one more."""
    found = {instance.name: instance for instance in settings.targets()}
    archive = (ARCHIVE,) if settings.archive.url else ()
    if archive and ARCHIVE in found:
        raise ConfigurationError(f"storage.targets.{ARCHIVE}: workers call the archive so; name this target otherwise")
    known = (*found, *archive)
    for name in names or ():
        if name not in known:
            raise unknown(name, known, "--targets")
    wanted = known if names is None else names
    chosen = [found[name] for name in wanted if name in found]
    if not wanted:
        raise ConfigurationError("storage.targets: none is configured, nothing to load")
    for instance in chosen:
        if getattr(instance.module, "TAKES", "events") == "payloads":
            raise ConfigurationError(
                f"storage.targets.{instance.name}: {instance.use} keeps its place by itself and cannot be shared by workers"
            )
        if replaying_file(settings.data, instance.name).exists():
            raise ConfigurationError(
                f"target {instance.name}: `spoorway replay --from archive` was cut short; run it again, or it would lack the rest"
            )
    return chosen, ARCHIVE in wanted


def _archiving(settings: Settings, reader: GroupReader) -> GroupArchiving:
    from spoorway.archiving import open_archive
    from spoorway.archiving_remote import GroupArchiving

    archive, url = open_archive(settings.archive), settings.archive.url
    return GroupArchiving(reader, archive, url, settings.data, settings.journal, building.now_ms)


def _readers(remote: Instance, *, ahead: bool = False) -> Callable[[str], GroupReader]:
    """Of the group that is the target's. Neither waits for anybody. ahead: for one that reads ahead of what it has for good."""
    with extra_of(remote.name):
        if remote.name == "kafka":
            from gateway.journal.kafka.reader import KafkaReader

            return lambda target: KafkaReader(remote.config, target)
        from gateway.journal.kinesis.reader import KinesisReader

        return lambda target: KinesisReader.open(remote.config, target, ahead=ahead)


__all__ = ["Worker"]
