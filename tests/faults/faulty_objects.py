"""An object store that fails where a test wants it to: before a call was done, after it was, or with something done meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from protocol.seams import TransientError
from storage.objects import Objects


class Faulty:
    """Objects whose calls fail, by name, before or after they were done; `between` is called once, before the call it names.

    calls: the name and the first argument of each.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.before: set[str] = set()
        self.after: set[str] = set()
        self.between: dict[str, Callable[[], None]] = {}
        self.calls: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> object:
        whole = getattr(self._objects, name)

        def call(*args: object) -> object:
            self.calls.append((name, str(args[0]) if args else ""))
            if name in self.before:
                raise TransientError(f"{name} failed")
            if (step := self.between.pop(name, None)) is not None:
                step()
            result = whole(*args)
            if name in self.after:
                raise TransientError(f"{name}'s answer was lost")
            return result

        return call
