"""Replaces what identifies a person by a keyed hash: the same person stays the same, and nobody can be read off the row.

In columns, and in any self-describing JSON of the event. Put it after every enrichment that needs the plain values. Never
fails an event. Source: the reference's PII pseudonymisation; its plain algorithms hash the text followed by the salt.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson

from enrich import places
from enrich.enrichments import OnError, RawEvent, Replacing, World
from enrich.places import Place
from protocol.seams import ConfigurationError, Event, Json, Reason, SelfDescribing

COLUMNS = (
    "user_id",
    "user_ipaddress",
    "user_fingerprint",
    "domain_userid",
    "network_userid",
    "ip_organization",
    "ip_domain",
    "tr_orderid",
    "ti_orderid",
    "mkt_term",
    "mkt_content",
    "se_category",
    "se_action",
    "se_label",
    "se_property",
    "mkt_clickid",
    "refr_domain_userid",
    "domain_sessionid",
)
_RECORD = "iglu:com.snowplowanalytics.snowplow/pii_transformation/jsonschema/1-0-0"
ON_ERROR: tuple[OnError, ...] = ("fail",)
"""An event that could not be hashed must not be stored."""
_FUNCTIONS = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


@dataclass(frozen=True, slots=True)
class Config:
    """columns: which to hash. json: places such as 'contexts iglu:com.acme/user/jsonschema/1-*-* $.email'.

    salt, salt_file: the key, one of them; who loses it can never match old rows with new ones.
    anonymous_only: only events whose request carries SP-Anonymous. record: add what was replaced by what, as an entity.
    """

    columns: tuple[str, ...] = ()
    json: tuple[str, ...] = ()
    algorithm: Literal["hmac_sha256", "sha256", "sha384", "sha512", "sha1", "md5"] = "hmac_sha256"
    salt: str = ""
    salt_file: str = ""
    anonymous_only: bool = False
    record: bool = False


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        if strange := [name for name in config.columns if name not in COLUMNS]:
            raise ConfigurationError(f"pii.columns: no {', '.join(strange)}; there are {', '.join(COLUMNS)}")
        if not config.columns and not config.json:
            raise ConfigurationError("pii: name what is to be hashed, in columns or json")
        self._columns = config.columns
        self._places = [(_json_place(text), text.split(None, 2)[2].strip()) for text in config.json]
        self._digest = _digest(config.algorithm, _salt(config, world))
        self._function = _FUNCTIONS[config.algorithm.removeprefix("hmac_")]
        self._anonymous_only, self._record = config.anonymous_only, config.record

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        if self._anonymous_only and not any(name.lower() == "sp-anonymous" for name, _ in raw.payload.headers):
            return {}
        before = cast(dict[str, Any], event)
        after: dict[str, Any] = {}
        plain: list[Json] = []
        for name in self._columns:
            if (old := before.get(name)) is not None:
                after[name] = new = self._hashed(old, name)
                plain.append({"fieldName": name, "originalValue": old, "modifiedValue": new})
        inside: list[Json] = []
        for place, path in self._places:
            old = after.get(place.column, before.get(place.column))
            if old is not None and (new := self._rewritten(old, place, path, inside)) is not old:
                after[place.column] = new
        if "derived_contexts" in after:
            after["derived_contexts"] = Replacing(after["derived_contexts"])
        if self._record and (plain or inside):
            entities = after.get("derived_contexts", Replacing(before.get("derived_contexts", ())))
            after["derived_contexts"] = Replacing([self._recorded(plain, inside), *entities])
        return cast(Event, after)

    def _rewritten(self, old: Any, place: Place, path: str, inside: list[Json]) -> Any:
        """The column with the leaves at the place hashed; the same object when there are none."""
        if place.column == "unstruct_event":
            return self._entity(old, place, path, inside)
        entities: list[SelfDescribing] = old
        new = [self._entity(entity, place, path, inside) for entity in entities]
        return entities if all(a is b for a, b in zip(entities, new, strict=True)) else new

    def _entity(self, entity: SelfDescribing, place: Place, path: str, inside: list[Json]) -> SelfDescribing:
        if not places.fits(entity, place.criterion):
            return entity
        schema = entity["schema"]

        def change(value: Json) -> Json:
            if isinstance(value, dict):
                return {key: change(each) for key, each in value.items()}
            if isinstance(value, list):
                return [change(each) for each in value]
            if value is None or isinstance(value, bool):
                return value
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            hashed = self._digest(text).hex()
            mapping: dict[str, Json] = {"fieldName": place.column, "jsonPath": path, "schema": schema}
            inside.append({"fieldMapping": {**mapping, "originalValue": text, "modifiedValue": hashed}})
            return hashed

        data = places.changed(entity["data"], place.path, change)
        return entity if data is entity["data"] else {"schema": schema, "data": data}

    def _hashed(self, text: str, column: str) -> str:
        digest = self._digest(text)
        # The one column that must stay a UUID.
        return str(uuid.UUID(bytes=digest[:16], version=5)) if column == "domain_sessionid" else digest.hex()

    def _recorded(self, plain: list[Json], inside: list[Json]) -> SelfDescribing:
        pii: dict[str, Json] = {}
        if plain:
            pii["pojo"] = plain
        if inside:
            pii["json"] = inside
        return {"schema": _RECORD, "data": {"pii": pii, "strategy": {"pseudonymize": {"hashFunction": self._function}}}}


def _json_place(text: str) -> Place:
    place = places.place(text, "pii.json")
    if not place.criterion:
        raise ConfigurationError(f"pii.json: {text!r} is a column; name it in columns")
    return place


def _salt(config: Config, world: World) -> bytes:
    if config.salt and config.salt_file:
        raise ConfigurationError("pii: salt and salt_file are two answers to one question")
    # Read once: a salt that changed under way would make two people of one.
    salt = world.watch(config.salt_file, bytes.strip)() if config.salt_file else config.salt.encode()
    if not salt:
        raise ConfigurationError("pii: a hash without salt is undone by trying; set salt_file (or salt)")
    return salt


def _digest(algorithm: str, salt: bytes) -> Callable[[str], bytes]:
    if algorithm == "hmac_sha256":
        return lambda text: hmac.digest(salt, text.encode("utf-8", "replace"), "sha256")
    function = getattr(hashlib, algorithm)
    return lambda text: function(text.encode("utf-8", "replace") + salt, usedforsecurity=False).digest()
