"""Who is meant by an erasure -> whether an event is theirs.

Pure. An event is looked at as it was sent (parameters) or as it is stored (columns); what is compared is compared whole, with
upper and lower case told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from hashlib import sha256
from typing import Any, cast

_EMPTY = frozenset[str]()

# Kind of identifier -> the columns, and the tracker's parameters, that hold it.
COLUMNS: dict[str, tuple[str, ...]] = {
    "user": ("user_id",),
    "domain_user": ("domain_userid", "refr_domain_userid"),
    "network_user": ("network_userid",),
}
PARAMETERS: dict[str, tuple[str, ...]] = {"user": ("uid",), "domain_user": ("duid",), "network_user": ("nuid", "tnuid")}

# Where a device's name is found in our own entities and events: device_time, device_clock.
ENTITY_COLUMNS = ("contexts", "derived_contexts", "unstruct_event")
_OURS = "iglu:io.spoorway/"
_NAMES = ("device", "device_id")


@dataclass(frozen=True, slots=True)
class Person:
    """Identifiers; whoever has one of them is meant. device: the name of a device, proven or claimed."""

    user: frozenset[str] = _EMPTY
    domain_user: frozenset[str] = _EMPTY
    network_user: frozenset[str] = _EMPTY
    device: frozenset[str] = _EMPTY

    def values(self) -> frozenset[str]:
        return frozenset[str]().union(*astuple(self))

    def merged(self, other: Person) -> Person:
        return Person(*(one | another for one, another in zip(astuple(self), astuple(other), strict=True)))

    def in_columns(self, columns: Mapping[str, Any]) -> bool:
        """Of a stored or finished event, also of what was understood of a failed one."""
        return self._in(COLUMNS, columns) or self.in_entities(columns)

    def in_parameters(self, parameters: Mapping[str, str]) -> bool:
        """Of an event as its tracker sent it."""
        return self._in(PARAMETERS, parameters)

    def in_entities(self, columns: Mapping[str, Any]) -> bool:
        """Whether an entity of ours, or the event itself, names the device. Columns are apart, not text."""
        if not self.device:
            return False
        return any(
            isinstance(data := part.get("data"), dict)
            and any(cast(dict[str, Any], data).get(name) in self.device for name in _NAMES)
            for part in _parts(columns)
            if str(part.get("schema", "")).startswith(_OURS)
        )

    def hashed(self, salt: str) -> dict[str, list[str]]:
        """The identifiers by kind as a receipt names them: SHA-256 over "SALT\\nKIND\\nIDENTIFIER"."""
        return {
            f.name: sorted(sha256(f"{salt}\n{f.name}\n{value}".encode()).hexdigest() for value in getattr(self, f.name))
            for f in fields(self)
            if getattr(self, f.name)
        }

    def _in(self, places: Mapping[str, tuple[str, ...]], values: Mapping[str, Any]) -> bool:
        return any(
            values.get(name) in wanted for kind, names in places.items() if (wanted := getattr(self, kind)) for name in names
        )


def _parts(columns: Mapping[str, object]) -> Iterable[dict[str, Any]]:
    """The self-describing parts of an event: of an `Event`, or of a row with its wrappers, taken apart."""
    for name in ENTITY_COLUMNS:
        for found in _objects(columns.get(name)):
            yield found
            yield from _objects(found.get("data"))


def _objects(value: object) -> Iterable[dict[str, Any]]:
    many = cast(list[object], value) if isinstance(value, list | tuple) else [value]
    return [cast(dict[str, Any], one) for one in many if isinstance(one, dict)]
