"""Finds the file a configuration name points to: ("storage.targets", "sqlite") -> storage/targets/sqlite.py.

Only what the configuration names is imported: no boto3 on a Pi. A wrong name or option is answered with the known ones.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from protocol.seams import ConfigurationError
from spoorway.options import build, unknown


def available(room: str) -> list[str]:
    """Names of the plugins in a room's folder, such as "storage.targets"."""
    return sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(room).__path__))


def find(room: str, name: str, path: str) -> Any:
    """The plugin's module, which has `Config` and `Plugin`. path: where the configuration names it, for messages.

    A name with a dot is a module of the user's own. Raises ConfigurationError.
    """
    if "." not in name and name not in available(room):
        raise unknown(name, available(room), path)
    module_name = name if "." in name else f"{room}.{name}"
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            raise ConfigurationError(f"{path}: there is no module {module_name}") from None
        raise ConfigurationError(f"{path}: {name} needs the package {error.name}; install it beside spoorway") from None


def configure(room: str, name: str, options: Mapping[str, Any], path: str) -> tuple[Any, Any]:
    """The plugin's module and its filled Config. Raises ConfigurationError."""
    module = find(room, name, path)
    return module, build(module.Config, options, path)


@contextmanager
def extra_of(journal: str) -> Generator[None]:
    """Around the imports that [journal.JOURNAL] asks for. Raises ConfigurationError, which names the extra that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"journal.{journal} needs {error.name}; install spoorway[{journal}]") from None
