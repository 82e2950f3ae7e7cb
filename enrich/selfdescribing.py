"""`ue_*` and `co/cx` -> validated self-describing JSONs, or every reason why not.

Pure. Order of checks: JSON, self-describing, criterion, wrapper, inner self-describing, inner valid; entities each for
themselves. Source: tracker protocol, "Wrappers".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import orjson

from enrich.parsing import NotJson, parse_json
from enrich.reasons import reason
from enrich.validators import Validators
from protocol.iglu import InvalidUri, is_uri, meets, parse
from protocol.seams import Event, Json, Reason, SelfDescribing

UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-*"
CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-*"


NOTHING: Mapping[str, str] = {}
_MOST_KNOWN = 2_000
_KEYS = ("schema", "data")


class Checked(NamedTuple):
    """What was valid, and why the rest was not. replaced: URI that was sent -> version that took its place."""

    valid: list[SelfDescribing]
    reasons: list[Reason]
    replaced: Mapping[str, str] = NOTHING


def as_self_describing(value: Json | SelfDescribing) -> SelfDescribing | str:
    """The two keys of a self-describing JSON, its URI checked; or the error code. Other keys are ignored."""
    if not isinstance(value, dict):
        return "INVALID_DATA_PAYLOAD"
    uri = value.get("schema")
    if not isinstance(uri, str) or "data" not in value:
        return "INVALID_DATA_PAYLOAD"
    try:
        parse(uri)
    except InvalidUri as error:
        return error.code
    return {"schema": uri, "data": value["data"]}


_MESSAGES = {
    "INVALID_DATA_PAYLOAD": "not a self-describing JSON: expected an object with the keys schema and data",
    "INVALID_IGLUURI": "the schema is not an Iglu URI such as iglu:com.acme/reading/jsonschema/1-0-0",
    "INVALID_SCHEMAVER": "the schema's version is not model-revision-addition such as 1-0-0",
}


def code_reason(step: str, field: str, code: str, value: Json | SelfDescribing) -> Reason:
    shown = orjson.dumps(value).decode() if value is not None else None
    return reason(step, field, _MESSAGES[code], shown, code)


# Tuples: what was sent as a schema is any JSON, and a set would ask a list for its hash.
_WRAPPERS = {
    "unstruct_event": ("iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0",),
    "contexts": tuple(f"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-{n}" for n in (1, 0)),
}


class SelfDescribingStep:
    """Built once with the validators, called for each event that carries such JSON."""

    def __init__(self, validators: Validators) -> None:
        self._validators = validators
        self._known: dict[int, SelfDescribing] = {}  # by identity: what is in it lives, so no other can have that

    def forget(self, uris: Collection[str]) -> None:
        """The documents of these URIs are others now."""
        self._validators.forget(uris)
        self._known.clear()

    def unstruct(self, text: str | bytes, field: str) -> Checked:
        """At most one valid: the self-describing event."""
        return self._checked(text, field, "unstruct_event", UNSTRUCT)

    def entities(self, text: str | bytes, field: str) -> Checked:
        """The valid entities in their order; the reasons of all others."""
        return self._checked(text, field, "contexts", CONTEXTS)

    def each(self, values: Sequence[Json | SelfDescribing], field: str, step: str) -> Checked:
        """Each value for itself: self-describing, and what its schema asks for."""
        valid: list[SelfDescribing] = []
        reasons: list[Reason] = []
        replaced: dict[str, str] = {}
        for value in values:
            if self.sure((value,)):
                valid.append(cast(SelfDescribing, value))
                continue
            inner = as_self_describing(value)
            if isinstance(inner, str):
                reasons.append(code_reason(step, field, inner, value))
                continue
            sent = inner["schema"]
            uri = self._validators.current(sent)
            if found := self._validators.reasons(uri, inner["data"], step):
                reasons += found
                continue
            if uri != sent:
                inner["schema"], replaced[sent] = uri, parse(uri).version
            valid.append(inner)
        return Checked(valid, reasons, replaced)

    def sure(self, values: Sequence[Json | SelfDescribing]) -> bool:
        """Whether `each` would, beyond doubt, take all of them as they are; the quick way, for what is nearly always so."""
        takes = self._validators.takes
        for value in values:
            # A self-describing JSON as it will be kept: these two keys in this order, no others.
            if type(value) is not dict or tuple(value) != _KEYS or type(uri := value["schema"]) is not str:
                return False
            if not (is_uri(uri) and takes(uri, value["data"])):
                return False
        return True

    def sure_of_ours(self, entities: Sequence[SelfDescribing]) -> bool:
        """As `sure`, of what enrichments add: one entity that they give to many events is asked of its schema once."""
        for entity in entities:
            if self._known.get(id(entity)) is not entity:
                if not self.sure((entity,)):
                    return False
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[id(entity)] = entity
        return True

    def _checked(self, text: str | bytes, field: str, step: str, criterion: str) -> Checked:
        try:
            value = parse_json(text)
        except NotJson as error:
            shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
            return Checked([], [reason(step, field, f"not JSON: {error}", shown, "NotJson")])
        if (parts := self._beyond_doubt(value, step)) is not None:
            return Checked(parts, [])
        wrapper = as_self_describing(value)
        if isinstance(wrapper, str):
            return Checked([], [code_reason(step, field, wrapper, value)])
        uri = wrapper["schema"]
        if not meets(parse(uri), criterion):
            why = reason(step, field, f"expected a schema that fits {criterion}", uri, "CriterionMismatch", uri)
            return Checked([], [why])
        if found := self._validators.reasons(uri, wrapper["data"], step):
            return Checked([], [*found])
        return self.each(_parts(wrapper["data"], step), field, step)

    def _beyond_doubt(self, value: Json, step: str) -> list[SelfDescribing] | None:
        """What a wrapper holds, where it and all of that is surely as it should be: what the checks ask for, said faster."""
        if type(value) is not dict or value.get("schema") not in _WRAPPERS[step]:
            return None
        parts = _parts(value.get("data"), step)
        if type(parts) is not list or not parts or not self.sure(parts):
            return None
        return cast(list[SelfDescribing], parts)


def _parts(data: Json, step: str) -> list[Json]:
    """Of a wrapper's data: one event, or a list of entities where its schema has been kept to."""
    return [data] if step == "unstruct_event" else cast(list[Json], data)


@lru_cache(maxsize=4096)
def unstruct_columns(uri: str) -> Event:
    """What names a self-describing event after its schema: to be read, not to be changed."""
    key = parse(uri)
    return {
        "event_vendor": key.vendor,
        "event_name": key.name,
        "event_format": key.format,
        "event_version": key.version,
    }
