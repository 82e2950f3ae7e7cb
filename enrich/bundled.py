"""The lists that come with the package, or the user's own in their place, as something an enrichment can look things up in.

A list of the package is read once; a user's file is watched by the world and read again when it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import TypeVar

from enrich.enrichments import World

T = TypeVar("T")


def watched(world: World, path: str, name: str, build: Callable[[bytes], T]) -> Callable[[], T]:
    """A getter of what `build` makes of the file at `path`, or of enrich/data/`name` where path is "".

    build: raises ValueError for bytes it cannot use. Raises ConfigurationError when the user's file is such a one.
    """
    if path:
        return world.watch(path, build)
    made = build(files(__package__ or "enrich").joinpath("data", name).read_bytes())
    return lambda: made
