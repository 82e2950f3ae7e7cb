"""Settings -> the parts that run: the pipeline, the targets. The same parts for every command."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich.enrichments import Step
from protocol.seams import ConfigurationError
from spoorway import __version__
from spoorway.config import Instance, Settings
from spoorway.options import unknown
from spoorway.registry.cache import Cache
from spoorway.registry.lookup import Lookup
from spoorway.registry.templates import Templates

if TYPE_CHECKING:  # a process that only forwards loads none of it
    from enrich.pipeline import Options, Pipeline


def schema_folder(settings: Settings) -> Path:
    """Where `schema add` and `schema pull` put schemas."""
    return settings.data / "schemas"


def schema_cache(settings: Settings) -> Cache:
    return Cache(settings.data / "schema-cache")


def schema_lookup(settings: Settings) -> Lookup:
    folders = [schema_folder(settings), *(Path(folder).expanduser() for folder in settings.enrich.schemas)]
    return Lookup(folders, schema_cache(settings))


def template_folder(settings: Settings) -> Path:
    """Where `template add` puts templates."""
    return settings.data / "templates"


def templates(settings: Settings) -> Templates:
    return Templates(template_folder(settings))


def enrich_options(settings: Settings, known: Templates | None = None) -> Options:
    """known: templates, by default its own look-up. Raises ConfigurationError."""
    from enrich.pipeline import Options
    from spoorway import webhooks

    enrich = settings.enrich
    mappings = webhooks.mappings(enrich.webhooks)
    return Options(__version__, enrich.lenient, enrich.limits, mappings, known or templates(settings))


def pipeline(
    settings: Settings,
    schemas: Lookup | None = None,
    last: Sequence[Step] = (),
    known: Templates | None = None,
    *,
    remember: bool = True,
) -> Pipeline:
    """schemas, known (templates): one look-up for several pipelines and targets; by default its own. last: steps after the
    configured ones. remember: what enrichments learn is kept in the data folder; otherwise it ends with the pipeline.

    Raises ConfigurationError.
    """
    from enrich.pipeline import Pipeline
    from spoorway.world import World

    world = World(memory=settings.data / "memory.db" if remember else None)
    steps = [Step(instance.name, instance.plugin(world), instance.on_error) for instance in settings.enrichments()]
    return Pipeline(enrich_options(settings, known), schemas or schema_lookup(settings), [*steps, *last])


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


def open_target(settings: Settings, instance: Instance, schemas: Lookup | None = None) -> Any:
    """The target, ready for `commit`; without a path a file is DATA/events.db. Raises ConfigurationError, PermanentError."""
    return instance.module.Plugin(placed(settings, instance), schemas or schema_lookup(settings))


def placed(settings: Settings, instance: Instance) -> Any:
    """The target's options, with the files in the data folder that are meant where none is named."""
    config = instance.config
    if getattr(config, "state", None) == "":
        kind = instance.use.rpartition(".")[2]
        config = dataclasses.replace(config, state=str(settings.data / f"{instance.name}.{kind}.db"))
    if getattr(config, "path", None) == "":
        config = dataclasses.replace(config, path=str(settings.data / "events.db"))
    return config


def data_folder(settings: Settings) -> Path:
    """Of a gateway that has been there. Raises ConfigurationError: a mistyped one is not made, and found empty."""
    if not settings.data.is_dir():
        raise ConfigurationError(f"there is no {settings.data} yet; start `spoorway run`, or say --data DIR")
    return settings.data


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
