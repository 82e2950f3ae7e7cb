"""One of several processes that load the same targets from a journal that is not in files: `spoorway worker`.

Of each target the workers are a group of its own, so that a target that is down delays nobody: GROUP.TARGET. The group gives each
lane of the journal to one of them. Who has a lane decides the group; who may store from it decides the target, in the transaction
of each commit (`storage.targets.Batch.since`). So a worker that was stopped, or cut off, and comes back stores nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.journal import GroupReader
from protocol.seams import ConfigurationError
from spoorway.config import Instance, Settings
from spoorway.loading import Loading
from spoorway.metrics import Metric
from spoorway.options import unknown
from spoorway.supervisor import target_metrics, target_trouble


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
        if settings.archive.url:
            raise ConfigurationError(f"archive.url: there are no segments to archive with [journal.{remote.name}]; remove it")
        if group is not None:
            remote = replace(remote, config=replace(remote.config, group=group))
        self.group: str = remote.config.group
        self._instances = _chosen(settings, targets)
        self._loading = Loading(settings, supervised, self._instances, _readers(remote))

    @property
    def targets(self) -> list[str]:
        """Their names."""
        return [instance.name for instance in self._instances]

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        return self._loading.run()

    def metrics(self) -> list[Metric]:
        """Of all targets; see docs/worker.md."""
        return target_metrics(self._statuses())

    def unready(self) -> str:
        """Why it cannot be relied on yet, or not now; "" when it can."""
        starting = [f"{name} has not read yet" for name in self._waited_for()]
        return "; ".join(starting) or target_trouble(self._statuses())

    def _waited_for(self) -> list[str]:
        return [loader.status.target for loader in self._loading.loaders if loader.status.state == "starting"]

    def _statuses(self) -> list[Mapping[str, Any]]:
        return [loader.status.as_dict() for loader in self._loading.loaders]


def _chosen(settings: Settings, names: Sequence[str] | None) -> list[Instance]:
    found = {instance.name: instance for instance in settings.targets()}
    for name in names or ():
        if name not in found:
            raise unknown(name, found, "--targets")
    chosen = [found[name] for name in (names if names is not None else found)]
    if not chosen:
        raise ConfigurationError("storage.targets: none is configured, nothing to load")
    for instance in chosen:
        if getattr(instance.module, "TAKES", "events") == "payloads":
            raise ConfigurationError(
                f"storage.targets.{instance.name}: {instance.use} keeps its place by itself and cannot be shared by workers"
            )
    return chosen


def _readers(remote: Instance) -> Callable[[str], GroupReader]:
    """Of the group that is the target's. Neither waits for anybody."""
    try:
        if remote.name == "kafka":
            from gateway.journal.kafka.reader import KafkaReader

            return lambda target: KafkaReader(remote.config, target)
        from gateway.journal.kinesis.reader import KinesisReader

        return lambda target: KinesisReader.open(remote.config, target)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"journal.{remote.name} needs {error.name}; install spoorway[{remote.name}]") from None


__all__ = ["Worker"]
