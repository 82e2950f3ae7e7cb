"""protocol/vectors/*.json -> cases, and a case -> what is fed to the room it examines. Judges nothing: that is comparer.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from protocol.payloads import from_fields
from protocol.seams import RawPayload
from protocol.wire import write_query

FOLDER = Path(__file__).parents[2] / "protocol" / "vectors"

RECEIVED_MS = 1_768_471_205_000  # 2026-01-15 10:00:05 UTC
ENRICHED_AFTER_MS = 1_000
PAYLOAD_ID = "a" * 32
TP2 = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"


class Case(NamedTuple):
    """One case. group: the folder; file: the file's name without its ending; fields: the JSON object as written."""

    group: str
    file: str
    fields: Mapping[str, Any]

    @property
    def id(self) -> str:
        name: str = self.fields["id"]
        return name


def files(group: str = "*") -> list[Path]:
    return sorted(FOLDER.glob(f"{group}/*.json"))


def cases(group: str) -> Iterator[Case]:
    """Every case of a group (enrich, gateway or tracker), in the order of the files."""
    for file in files(group):
        for fields in json.loads(file.read_text("utf-8"))["cases"]:
            yield Case(group, file.stem, fields)


def raw_payload(case: Case) -> RawPayload:
    """The payload an enrich case describes: its `payload` fields, completed by its shorthand, completed by the defaults."""
    fields = case.fields
    payload: dict[str, Any] = {"id": PAYLOAD_ID, "at": RECEIVED_MS, "transport": "http"}
    if "parameters" in fields:
        payload["query"] = write_query(fields["parameters"])
    if "event" in fields:
        payload["path"] = TP2
        payload["type"] = "application/json"
        payload["body"] = json.dumps({"schema": PAYLOAD_DATA, "data": [fields["event"]]}, ensure_ascii=False)
    return from_fields({"path": "/i", **payload, **fields.get("payload", {})})


def now_ms(payload: RawPayload) -> int:
    """The time of enrichment in every case: one second after receipt."""
    return payload.received_ms + ENRICHED_AFTER_MS
