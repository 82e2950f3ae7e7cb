"""Settings -> the parts that run: the pipeline, the targets. The same parts for every command."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from enrich.enrichments import Step
from enrich.pipeline import Pipeline
from protocol.seams import ConfigurationError
from spoorway.config import Instance, Settings
from spoorway.options import unknown
from spoorway.schemas import SchemaLookup, lookup
from spoorway.world import World


def schema_lookup(settings: Settings) -> SchemaLookup:
    return lookup([settings.data / "schemas", *(Path(folder) for folder in settings.enrich.schemas)])


def pipeline(settings: Settings) -> Pipeline:
    """Raises ConfigurationError."""
    world = World()
    steps = [Step(instance.name, instance.plugin(world), instance.on_error) for instance in settings.enrichments()]
    return Pipeline(settings.enrich_options, schema_lookup(settings), steps)


def target_instance(settings: Settings, name: str | None) -> Instance:
    """The target of that name, or the first one. Raises ConfigurationError."""
    instances = {instance.name: instance for instance in settings.targets()}
    if not instances:
        raise ConfigurationError("storage.targets: none is configured")
    if name is None:
        return next(iter(instances.values()))
    if name not in instances:
        raise unknown(name, instances, "--target")
    return instances[name]


def open_target(settings: Settings, instance: Instance) -> Any:
    """The target, ready for `commit`; without a path a file is DATA/events.db. Raises ConfigurationError, PermanentError."""
    config = instance.config
    if getattr(config, "path", None) == "":
        config = dataclasses.replace(config, path=str(settings.data / "events.db"))
    return instance.module.Plugin(config, schema_lookup(settings))


def database(settings: Settings) -> Path:
    """The SQLite file that `sql`, `tail` and `doctor` read. Raises ConfigurationError when none is configured or made yet."""
    for instance in settings.targets():
        if instance.use == "sqlite":
            path = Path(instance.config.path or settings.data / "events.db")
            if path.exists():
                return path
            raise ConfigurationError(f"there is no {path} yet; start `spoorway run`, or say --data DIR")
    raise ConfigurationError("storage.targets: no sqlite target is configured")


def now_ms() -> int:
    """The clock of everything that runs: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
