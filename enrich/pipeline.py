"""RawPayload -> Event | FailedEvent, one or many: the tour of this room.

Pure: the time of enrichment and the schemas are handed in. Three phases as in the reference: what the tracker sent, what
the steps and enrichments make of it, what the result must keep to. All run; a failed event names the reasons of all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from enrich import pages
from enrich.adapters import Adapters, Refusal
from enrich.device_clock import device_event
from enrich.enrichments import RawEvent, Replacing, Step
from enrich.lengths import LIMITS, Lengths
from enrich.leniency import EVERY_LENIENCY, LENIENCIES, mended
from enrich.reasons import derived_id, reason, shortened
from enrich.selfdescribing import SelfDescribingStep, unstruct_columns
from enrich.transform import Transform
from enrich.validators import SchemaLookup, Validators
from enrich.webhooks import WebhookMapping
from protocol.compact import TemplateLookup
from protocol.seams import ConfigurationError, Event, FailedEvent, FailedKind, Outcome, RawPayload, Reason, SelfDescribing
from protocol.templates import bundled_template
from protocol.wire import decode_base64

_VALIDATION_INFO = "iglu:com.snowplowanalytics.iglu/validation_info/jsonschema/1-0-0"
_FLAG = "iglu:io.spoorway/enrichment_flag/jsonschema/1-0-0"

# The parameters of an event -> what they should have been.
Mend = Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Options:
    """version: ours, for v_collector and v_etl. lenient: names from LENIENCIES; empty = strict.

    limits: column -> UTF-16 code units, replacing the canonical ones. webhooks: paths beside those of the protocol.
    templates: of compact frames.
    """

    version: str = "0.0.0"
    lenient: frozenset[str] = EVERY_LENIENCY
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    webhooks: tuple[WebhookMapping, ...] = ()
    templates: TemplateLookup = bundled_template

    def __post_init__(self) -> None:
        if unknown := self.lenient - LENIENCIES.keys():
            raise ConfigurationError(f"enrich.lenient: no {sorted(unknown)}; there are {', '.join(LENIENCIES)}")
        if strange := self.limits.keys() - LIMITS.keys():
            raise ConfigurationError(f"enrich.limits: no text column {sorted(strange)}")


class Pipeline:
    """Built once per configuration; not safe to share between threads."""

    def __init__(self, options: Options, schemas: SchemaLookup, enrichments: Sequence[Step]) -> None:
        self._options = options
        validators = Validators(schemas)
        self._adapters = Adapters(validators, options.lenient, options.webhooks, options.templates)
        self._transform = Transform(options.lenient)
        self._self_describing = SelfDescribingStep(validators)
        # Plain tuples and bound methods: what the interpreter is quickest with, and every event meets all of them.
        self._enrichments = [(step.name, step.enrichment.__call__, step.on_error) for step in enrichments]
        self._too_long = Lengths({**LIMITS, **options.limits})
        self._v_etl = f"spoorway-{options.version}"

    def outcomes(self, payload: RawPayload, now_ms: int, mend: Mend | None = None) -> Iterator[Outcome]:
        """What became of each event of the payload that was not erased, in order. now_ms: the time of enrichment, for etl_tstamp.

        mend: changes the parameters of each event before anybody looks at them.
        """
        if payload.erased and not payload.query and not payload.body:
            return  # nothing is left of it
        common, referer = self._common(payload, now_ms)
        for place, found in enumerate(self._adapters.split(payload)):
            if place in payload.erased:
                continue
            if isinstance(found, Refusal):
                yield _refused(payload, found, now_ms)
            else:
                raw = found if mend is None else RawEvent(payload, found.index, mend(found.parameters))
                yield self._outcome(raw, common.copy(), referer, now_ms)

    def outcome(self, raw: RawEvent, now_ms: int) -> Outcome:
        """What becomes of one event whose parameters are apart already, mended perhaps."""
        event, referer = self._common(raw.payload, now_ms)
        return self._outcome(raw, event, referer, now_ms)

    def _common(self, payload: RawPayload, now_ms: int) -> tuple[Event, str | None]:
        """The columns that all events of a payload share, and its Referer header."""
        event: Event = {
            "etl_tstamp": now_ms,
            "collector_tstamp": payload.received_ms,
            "v_collector": f"{self._v_etl}-{payload.transport}",
            "v_etl": self._v_etl,
            "user_ipaddress": payload.ip or "unknown",
        }
        if payload.network_userid is not None:
            event["network_userid"] = payload.network_userid
        referer = None
        for name, value in payload.headers:
            name = name.lower()
            if name == "user-agent":
                if not value.isprintable():
                    value = value.replace("\t", "    ").replace("\r", "").replace("\n", "")
                if value:
                    event["useragent"] = value
            elif name == "referer":
                referer = value
        return event, referer

    def forget_schemas(self, uris: Collection[str]) -> None:
        """These schemas' documents are others now; between two payloads only."""
        self._self_describing.forget(uris)

    def _outcome(self, raw: RawEvent, event: Event, referer: str | None, now_ms: int) -> Outcome:
        payload = raw.payload
        parameters = mended(raw.parameters, self._options.lenient)
        sent = self._transform(parameters, event)
        replaced: dict[str, str] = {}
        sent += self._self_describing_columns(parameters, event, replaced)
        if "eid" not in parameters:
            event["event_id"] = device_event(event, payload) or derived_id(payload.id, raw.index)

        made: list[Reason] = []
        if referer is not None or "page_url" in event:
            made += pages.page(event, referer)
            made += pages.cross_navigation(event)
        if "page_referrer" in event:
            made += pages.referrer(event)
        event["derived_tstamp"] = pages.derived_tstamp(event, payload.received_ms)
        made += pages.schema_columns(event, sent="e" in parameters)
        made += self._enrich(event, raw)
        if replaced:
            notes: list[SelfDescribing] = [
                {"schema": _VALIDATION_INFO, "data": {"originalSchema": uri, "validatedWith": version}}
                for uri, version in replaced.items()
            ]
            event["derived_contexts"] = [*event.get("derived_contexts", ()), *notes]

        kept = self._flaws(event)
        if sent or made or kept:
            kind: FailedKind = "enrichment_failures" if made and not sent else "schema_violations"
            return _failed(payload, kind, (*sent, *made, *kept), now_ms, raw.index, raw.parameters, event)
        return event

    def _self_describing_columns(self, parameters: Mapping[str, str], event: Event, replaced: dict[str, str]) -> list[Reason]:
        reasons: list[Reason] = []
        name = "ue_px" if "ue_px" in parameters else "ue_pr"
        if (text := parameters.get(name)) is not None:
            checked = self._self_describing.unstruct(decode_base64(text) if name == "ue_px" else text, name)
            reasons += checked.reasons
            replaced |= checked.replaced
            if checked.valid:
                event["unstruct_event"] = checked.valid[0]
                if event.get("event") == "unstruct":
                    event.update(unstruct_columns(checked.valid[0]["schema"]))
        name = "cx" if "cx" in parameters else "co"
        if (text := parameters.get(name)) is not None:
            checked = self._self_describing.entities(decode_base64(text) if name == "cx" else text, name)
            reasons += checked.reasons
            replaced |= checked.replaced
            if checked.valid:
                event["contexts"] = checked.valid
        return reasons

    def _enrich(self, event: Event, raw: RawEvent) -> list[Reason]:
        reasons: list[Reason] = []
        for name, enrichment, on_error in self._enrichments:
            try:
                added = enrichment(event, raw)
                if on_error != "fail" and not isinstance(added, Reason):
                    flaws = self._flaws(added)
                    added = flaws[0] if flaws else added
            except Exception as error:  # a fault in one enrichment costs nothing but its own answer
                text = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
                added = reason(name, "", shortened(text) or "", None, "EnrichmentError")
            if not added:
                continue  # most have nothing to say of most events
            if isinstance(added, Reason):
                if on_error == "fail":
                    reasons.append(added if added.step == name else replace(added, step=name))
                elif on_error == "flag":
                    _join(event, {"derived_contexts": [_flag(name, added)]})
            elif "derived_contexts" in added and "derived_contexts" in event:
                _join(event, added)
            else:
                event.update(added)
        return reasons

    def _flaws(self, event: Event) -> list[Reason]:
        """What fails an event at last; of an enrichment's answer told while it can still be told whose fault it is."""
        reasons = self._too_long(event)
        if (derived := event.get("derived_contexts")) and not self._self_describing.sure_of_ours(derived):
            reasons += self._self_describing.each(derived, "", "derived_contexts").reasons
        return reasons


def _join(event: Event, added: Event) -> None:
    earlier = event.get("derived_contexts")
    event.update(added)
    if earlier and (entities := added.get("derived_contexts")) and not isinstance(entities, Replacing):
        event["derived_contexts"] = [*entities, *earlier]


def _flag(name: str, reason: Reason) -> SelfDescribing:
    message = f"{reason.field}: {reason.message}" if reason.field else reason.message
    return {"schema": _FLAG, "data": {"enrichment": shortened(name), "message": shortened(message)}}


def _refused(payload: RawPayload, refusal: Refusal, now_ms: int) -> FailedEvent:
    return _failed(payload, refusal.kind, refusal.reasons, now_ms, refusal.index, refusal.parameters, Event())


def _failed(
    payload: RawPayload,
    kind: FailedKind,
    reasons: tuple[Reason, ...],
    now_ms: int,
    index: int | None,
    parameters: Mapping[str, str],
    event: Event,
) -> FailedEvent:
    place = "payload" if index is None else index
    return FailedEvent(derived_id(payload.id, place, "failed"), kind, reasons, payload, now_ms, index, dict(parameters), event)
