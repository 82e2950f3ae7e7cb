"""RawPayload -> raw events: flat sets of text parameters, chosen by the request's path.

Pure. A payload that cannot be taken apart gives one Refusal, or one per bad object where the leniency `bad_object` is on.
Source: tracker protocol, "From payload to raw events"; vectors enrich/adapter-*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast
from urllib.parse import parse_qsl

import orjson

from enrich.compact import readings
from enrich.enrichments import RawEvent
from enrich.parsing import DEEPEST, NotJson, deeper_than, parse_json
from enrich.reasons import reason
from enrich.selfdescribing import as_self_describing, code_reason
from enrich.urls import QUERY_STRING
from enrich.validators import Validators
from enrich.webhooks import WebhookMapping
from protocol.compact import TemplateLookup
from protocol.devices import RETAIN_HEADER, TOPIC_HEADER
from protocol.iglu import InvalidUri, meets, parse
from protocol.seams import ConfigurationError, FailedKind, Json, RawPayload, Reason
from protocol.tables import PARAMETERS
from protocol.templates import bundled_template
from protocol.wire import decode_base64, encode_base64, parse_query

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-*"
_UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
_CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
_REDIRECT = "iglu:com.snowplowanalytics.snowplow/uri_redirect/jsonschema/1-0-0"
_JSON_TYPES = frozenset({"application/json", "application/json; charset=utf-8"})
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8"})
# As lenient as the reference about a cookie's or nuid's form: five groups of hex digits, 36 characters at most.
_NETWORK_USERID = re.compile(r"(?=.{9,36}\Z)[0-9a-fA-F]+(?:-[0-9a-fA-F]+){4}")
_PATH = re.compile(r"/?([^/]+)/([^/]+)/?")
_PIXELS = ("/i", "/ice.png")


@dataclass(frozen=True, slots=True)
class Refusal:
    """index: the object's place in the payload; None when the whole payload was refused."""

    kind: FailedKind
    reasons: tuple[Reason, ...]
    index: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


Split = Iterable[RawEvent | Refusal]
Adapter = Callable[[RawPayload, dict[str, str]], Split]


def _post_tables() -> dict[str, frozenset[str]]:
    """payload_data schema -> the keys it allows."""
    keys = {p.name: p.post_since for p in PARAMETERS.values() if p.post_since is not None}
    versions = [f"1-0-{addition}" for addition in range(5)]
    uris = {v: f"{PAYLOAD_DATA.removesuffix('1-0-*')}{v}" for v in versions}
    return {uris[v]: frozenset(name for name, since in keys.items() if since <= v) for v in versions}


_POST_KEYS = _post_tables()
_POST_REQUIRED = ("tv", "p", "e")


class Adapters:
    """Built once per configuration; `split` is called for each payload."""

    def __init__(
        self,
        validators: Validators,
        lenient: frozenset[str],
        webhooks: Sequence[WebhookMapping] = (),
        templates: TemplateLookup = bundled_template,
    ) -> None:
        """webhooks: of two with the same path the later one counts. Raises ConfigurationError for a path that is a tracker's."""
        self._validators = validators
        self._bad_object_alone = "bad_object" in lenient
        self._by_path: dict[tuple[str, str], Adapter] = {
            ("com.snowplowanalytics.snowplow", "tp1"): _tp1,
            ("com.snowplowanalytics.snowplow", "tp2"): self._tp2,
            ("r", "tp2"): _redirect,
            ("com.snowplowanalytics.iglu", "v1"): _iglu,
            ("io.spoorway", "c1"): _compact(templates),
        }
        for mapping in {mapping.path: mapping for mapping in webhooks}.values():
            _, vendor, version = mapping.path.split("/")
            if (vendor, version) in self._by_path:
                raise ConfigurationError(f"enrich.webhooks: {mapping.path} is taken by the tracker protocol")
            self._by_path[vendor, version] = _mapped(mapping)

    def split(self, payload: RawPayload) -> Split:
        reasons: list[Reason] = []
        route = _route(payload.path)
        if route is None:
            reasons.append(reason("payload", "path", "expected /vendor/version, /i or /ice.png", payload.path))
        query, _, after = payload.query.partition("#")
        if payload.query and not (QUERY_STRING.fullmatch(query) and QUERY_STRING.fullmatch(after)):
            reasons.append(reason("payload", "querystring", "holds characters that must be percent-encoded", payload.query))
        if payload.network_userid is not None and not _NETWORK_USERID.match(payload.network_userid):
            reasons.append(reason("payload", "networkUserId", "expected a UUID", payload.network_userid))
        for name, value in payload.headers:
            if len(name) == 16 and name.lower() == "content-encoding":
                reasons.append(reason("payload", "body", "could not be decompressed", value, "NotDecompressed"))
        if reasons or route is None:
            return (Refusal("collector_payload_format_violation", tuple(reasons)),)
        adapter = self._by_path.get(route)
        if adapter is None:
            known = ", ".join("/" + "/".join(pair) for pair in self._by_path)
            return (_adapter_failure("path", f"no adapter takes this path; there are {known}", payload.path.partition("?")[0]),)
        parameters = {name: value for name, value in parse_query(query).items() if value is not None} if query else {}
        return adapter(payload, parameters)

    def _tp2(self, payload: RawPayload, parameters: dict[str, str]) -> Split:
        body, kind = payload.body, _media_type(payload.content_type)
        if kind is not None and kind not in _JSON_TYPES:
            expected = f"expected {' or '.join(sorted(_JSON_TYPES))}"
            return (_violation(reason("adapter", "contentType", expected, payload.content_type)),)
        if body is None and kind is None:
            if parameters:
                return (RawEvent(payload, 0, parameters),)
            return (
                _violation(
                    reason("adapter", "body", "expected a body or a query string, both are empty"),
                    reason("adapter", "querystring", "expected a body or a query string, both are empty"),
                ),
            )
        if body is None:
            return (_violation(reason("adapter", "body", "expected a body for this content type")),)
        if kind is None:
            return (_violation(reason("adapter", "contentType", "expected application/json, there is none")),)
        return self._payload_data(payload, body, parameters)

    def _payload_data(self, payload: RawPayload, body: bytes, query: dict[str, str]) -> Split:
        try:
            value = parse_json(body, deepest=None)  # a good one is flat, a bad object is found below
        except NotJson as error:
            text = body[:1_000].decode("utf-8", "replace")
            return (_violation(reason("adapter", "body", f"not JSON: {error}", text, "NotJson")),)
        envelope = as_self_describing(value)
        if isinstance(envelope, str):
            return (_violation(code_reason("adapter", "body", envelope, value)),)
        if isinstance(value, dict) and len(value) > 2 and deeper_than(value, DEEPEST):
            return (_violation(reason("adapter", "body", f"not JSON: deeper than {DEEPEST} levels", None, "NotJson")),)
        uri, objects = envelope["schema"], envelope["data"]
        allowed = _POST_KEYS.get(uri)
        if allowed is None or not isinstance(objects, list) or not objects:
            found = [*self._validators.reasons(uri, objects, "adapter")]
            if not found and not meets(parse(uri), PAYLOAD_DATA):
                found = [reason("adapter", "body", f"expected a schema that fits {PAYLOAD_DATA}", uri, "CriterionMismatch", uri)]
            return (Refusal("tracker_protocol_violations", tuple(found)),)
        wrong = [] if self._bad_object_alone else [r for o in objects for r in _object_reasons(o, allowed, uri)]
        if wrong and deeper_than(value, DEEPEST):
            wrong = [reason("adapter", "body", f"not JSON: deeper than {DEEPEST} levels", None, "NotJson")]
        if wrong:
            return (Refusal("tracker_protocol_violations", tuple(wrong[:50])),)
        split: list[RawEvent | Refusal] = []
        for index, sent in enumerate(objects):
            if found := _object_reasons(sent, allowed, uri):
                split.append(Refusal("tracker_protocol_violations", tuple(found), index, _texts(sent)))
            else:
                parameters = cast(dict[str, str], sent)
                split.append(RawEvent(payload, index, {**parameters, **query} if query else parameters))
        return split


@lru_cache(maxsize=1_024)
def _route(path: str) -> tuple[str, str] | None:
    """Vendor and version of a request's path; None when it has none."""
    path = path.partition("?")[0]
    if path in _PIXELS:
        return "com.snowplowanalytics.snowplow", "tp1"
    match = _PATH.fullmatch(path)
    return None if match is None else (match[1], match[2])


def _object_reasons(sent: Json, allowed: frozenset[str], uri: str) -> list[Reason]:
    """What payload_data has against one object; the fast way to say what its schema says."""
    if not isinstance(sent, dict):
        return [reason("adapter", "body", "expected an object", orjson.dumps(sent).decode(), "ValidationError", uri)]
    if "e" in sent and "p" in sent and "tv" in sent and allowed.issuperset(sent):
        try:
            "".join(cast(Iterable[str], sent.values()))  # the quickest way to ask whether all are texts
        except TypeError:
            pass  # told below
        else:
            return []
    reasons: list[Reason] = []
    if not sent.keys() <= allowed:
        reasons += [
            reason("adapter", name, "payload_data does not allow this key", None, "ValidationError", uri)
            for name in sent.keys() - allowed
        ]
    reasons += [
        reason("adapter", name, "required by payload_data", None, "ValidationError", uri)
        for name in _POST_REQUIRED
        if name not in sent
    ]
    reasons += [
        reason("adapter", name, "expected a string", orjson.dumps(value).decode(), "ValidationError", uri)
        for name, value in sent.items()
        if type(value) is not str
    ]
    return reasons


def _texts(sent: Json) -> dict[str, str]:
    if not isinstance(sent, dict):
        return {}
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in sent.items()}


def _tp1(payload: RawPayload, parameters: dict[str, str]) -> Split:
    if parameters:
        yield RawEvent(payload, 0, parameters)
    else:
        yield _adapter_failure("querystring", "expected parameters, the query string is empty", payload.query)


def _redirect(payload: RawPayload, parameters: dict[str, str]) -> Split:
    target = parameters.pop("u", "")
    if not target:
        yield _violation(reason("adapter", "querystring", "a redirect needs its target in the parameter u"))
        return
    entity: Json = {"schema": _REDIRECT, "data": {"uri": target}}
    plain, encoded = parameters.get("co", ""), parameters.get("cx", "")
    if "e" not in parameters:
        parameters["e"] = "ue"
        parameters["ue_pr"] = orjson.dumps({"schema": _UNSTRUCT, "data": entity}).decode()
        parameters.pop("ue_px", None)
    elif not plain and "cx" not in parameters:
        parameters["co"] = orjson.dumps({"schema": _CONTEXTS, "data": [entity]}).decode()
    else:
        try:
            wrapper = parse_json(plain or decode_base64(encoded))
        except NotJson as error:
            yield _violation(reason("adapter", "co" if plain else "cx", f"not JSON: {error}", plain or encoded, "NotJson"))
            return
        if isinstance(wrapper, dict) and isinstance(data := wrapper.get("data"), list):
            wrapper["data"] = [entity, *data]
        text = orjson.dumps(wrapper).decode()
        parameters["co" if plain else "cx"] = text if plain else encode_base64(text)
    parameters.setdefault("p", "web")
    parameters["tv"] = "r-tp2"
    yield RawEvent(payload, 0, parameters)


_IGLU_COPIED = ("nuid", "aid", "cv", "eid", "ttm", "url")
_IGLU_NOT_DATA = frozenset({"schema", "nuid", "aid", "cv", "p"})


def _iglu(payload: RawPayload, parameters: dict[str, str]) -> Split:
    """Events that no tracker made: a self-describing JSON, or plain data with its schema in the query string."""
    kind = _media_type(payload.content_type)
    uri = parameters.get("schema")
    body = payload.body or None
    if body is None and uri is None:
        yield _adapter_failure("schema", "expected a schema in the query string or a self-describing JSON as the body")
    elif body is None:
        data: Json = {name: value or None for name, value in parameters.items() if name not in _IGLU_NOT_DATA}
        yield from _iglu_events(payload, parameters, uri, [data], "app")
    elif kind in _FORM_TYPES:
        if uri is None:
            yield _adapter_failure("schema", "a form needs its schema in the query string")
            return
        fields: Json = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        yield from _iglu_events(payload, parameters, uri, [fields], "srv")
    elif kind in _JSON_TYPES:
        try:
            value = parse_json(body)
        except NotJson as error:
            yield _adapter_failure("body", f"not JSON: {error}", body[:1_000].decode("utf-8", "replace"), "NotJson")
            return
        if uri is not None:
            data_list: list[Json] = value if isinstance(value, list) else [value]
            if value in ({}, []):
                yield _adapter_failure("body", "expected data, it is empty")
                return
            yield from _iglu_events(payload, parameters, uri, data_list, "app")
            return
        inner = as_self_describing(value)
        if isinstance(inner, str):
            yield _adapter_failure("body", "expected a self-describing JSON", orjson.dumps(value).decode(), inner)
            return
        yield from _iglu_events(payload, parameters, inner["schema"], [inner["data"]], "app")
    else:
        yield _adapter_failure("contentType", "expected application/json or a form", payload.content_type)


def _iglu_events(payload: RawPayload, query: dict[str, str], uri: str | None, data: list[Json], platform: str) -> Split:
    try:
        parse(uri or "")
    except InvalidUri as error:
        yield _adapter_failure("schema", "expected an Iglu URI such as iglu:com.acme/reading/jsonschema/1-0-0", uri, error.code)
        return
    for index, each in enumerate(data):
        event = {"schema": _UNSTRUCT, "data": {"schema": uri, "data": each}}
        parameters = {name: query[name] for name in _IGLU_COPIED if name in query}
        parameters |= {"e": "ue", "ue_pr": orjson.dumps(event).decode(), "tv": "com.snowplowanalytics.iglu-v1"}
        parameters["p"] = query.get("p") or platform
        yield RawEvent(payload, index, parameters)


def _compact(templates: TemplateLookup) -> Adapter:
    """The adapter of compact frames."""

    def adapter(payload: RawPayload, parameters: dict[str, str]) -> Split:
        for index, event in enumerate(readings(payload, parameters, templates)):
            if isinstance(event, Reason):
                yield Refusal("adapter_failures", (event,), index)
            else:
                yield RawEvent(payload, index, event)

    return adapter


def _mapped(mapping: WebhookMapping) -> Adapter:
    """The adapter of a webhook, or of messages of foreign topics, that a mapping file describes."""

    def adapter(payload: RawPayload, parameters: dict[str, str]) -> Split:
        headers = dict(payload.headers)
        if RETAIN_HEADER in headers and not mapping.retained:
            return  # an old state that a new subscription brought along: nothing happened
        kind = (_media_type(payload.content_type) or "application/json").partition(";")[0]
        if not (mapping.text or kind == "application/json" or kind.endswith("+json")):
            yield _adapter_failure("contentType", "expected application/json", payload.content_type)
            return
        body = payload.body or b""
        try:
            document = parse_json(body) if not mapping.text or body.lstrip()[:1] in (b"{", b"[") else body.decode()
        except NotJson as error:
            text = body[:1_000].decode("utf-8", "replace")
            yield _adapter_failure("body", f"not JSON: {error}", text, "NotJson")
            return
        except UnicodeDecodeError:
            yield _adapter_failure("body", "not UTF-8 text", body[:1_000].decode("utf-8", "replace"))
            return
        found = list(mapping.parameters(document, parameters, headers.get(TOPIC_HEADER, "")))
        for index, event in enumerate(found):
            if isinstance(event, Reason):
                yield Refusal("adapter_failures", (event,), index if len(found) > 1 else None)
            else:
                yield RawEvent(payload, index, event)

    return adapter


@lru_cache(maxsize=1_024)
def _media_type(content_type: str | None) -> str | None:
    if content_type is None:
        return None
    return "; ".join(part.strip() for part in content_type.lower().split(";") if part.strip()).replace('"', "")


def _violation(*reasons: Reason) -> Refusal:
    return Refusal("tracker_protocol_violations", reasons)


def _adapter_failure(field_name: str, message: str, value: str | None = None, keyword: str = "") -> Refusal:
    return Refusal("adapter_failures", (reason("adapter", field_name, message, value, keyword),))
