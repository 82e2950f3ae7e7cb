"""What tests of the journal in Kinesis share: payloads, a stream of a test's own, and a hand in the requests to it.

`Refusing` stands between boto3 and the real server: some records of a request are refused, as Kinesis does it under load, and
the server gets the others. Servers refuse nobody for asking too much, and Amazon does: this is how that is tried.
"""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest

from gateway.journal import Chunk, Damage, Reader, Reassigned
from gateway.journal.kinesis.writer import KinesisWriter
from protocol.seams import Cursor, RawPayload
from tests.peers.kinesis_server import KEYS, aws

_NAMES = iter(range(1_000_000))


@contextmanager
def credentials() -> Iterator[None]:
    """So that every session finds some, and asks no machine for them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield


def a_name() -> str:
    return f"stream-{next(_NAMES)}"


def payload(number: int, device: str | None = None, body: bytes = b"{}") -> RawPayload:
    return RawPayload(f"{number:032x}", 1_700_000_000_000 + number, "http", "/i", body=body, device=device)


def everything(reader: Reader, cursor: Cursor | None = None, **limits: int) -> tuple[list[RawPayload | Damage], Cursor]:
    """Until a look finds nothing; the cursor of the last one. A reader of a group begins again where it has other shards."""
    chunk, found = Chunk((), cursor or {}, True), list[RawPayload | Damage]()
    while True:
        try:
            chunk = reader.read(chunk.cursor, **limits)
        except Reassigned:
            continue
        found += chunk.items
        if not chunk.items:
            return found, chunk.cursor


def once(payloads: Sequence[object]) -> list[object]:
    """Without the copies that an unknown outcome leaves."""
    return list(dict.fromkeys(payloads))


@dataclass
class Refusing:
    """Registered at a remote's client. records: (keys, bytes) of each PutRecords that was made, refused ones included.

    refuse: (request's number, partition key, what it is the nth sending of) -> the error code that Kinesis gives, or "".
    whole: number -> an error code for the whole request, "lost" = the server has it and the answer is lost, or "".
    """

    remote: KinesisWriter
    refuse: Callable[[int, str, int], str] = lambda number, key, nth: ""
    whole: Callable[[int], str] = lambda number: ""
    records: list[tuple[list[str], int]] = field(default_factory=list[tuple[list[str], int]])
    _sent: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        client = self.remote.service.kinesis
        self._direct = aws("kinesis", client.meta.endpoint_url)
        client.meta.events.register("before-send.kinesis.PutRecords", self._before)

    def _before(self, request: Any, **_: Any) -> Any:
        asked = json.loads(request.body)
        records = asked["Records"]
        number = len(self.records)
        size = sum(len(b64decode(record["Data"])) + len(record["PartitionKey"].encode()) for record in records)
        self.records.append(([record["PartitionKey"] for record in records], size))
        if code := self.whole(number):
            if code != "lost":
                return _answer(400 if code.endswith("Exception") else 500, {"__type": code, "message": "as asked"})
            self._put(asked["StreamName"], records)
            raise import_module("botocore.exceptions").ReadTimeoutError(endpoint_url=request.url)
        codes = list[str]()
        for record in records:
            self._sent[record["Data"]] = nth = self._sent.get(record["Data"], 0) + 1
            codes.append(self.refuse(number, record["PartitionKey"], nth))
        if not any(codes):
            return None
        taken = [record for record, code in zip(records, codes, strict=True) if not code]
        answers = iter(self._put(asked["StreamName"], taken) if taken else ())
        merged = [{"ErrorCode": code, "ErrorMessage": "as asked"} if code else next(answers) for code in codes]
        return _answer(200, {"FailedRecordCount": len(records) - len(taken), "Records": merged})

    def _put(self, stream: str, records: list[dict[str, Any]]) -> Sequence[Any]:
        raw = [{"Data": b64decode(record["Data"]), "PartitionKey": record["PartitionKey"]} for record in records]
        answers: Sequence[Any] = self._direct.put_records(StreamName=stream, Records=raw)["Records"]
        return answers


def _answer(status: int, body: Any) -> Any:
    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield self.read()

    response = import_module("botocore.awsrequest").AWSResponse
    return response("http://here/", status, {"Content-Type": "application/x-amz-json-1.1"}, Raw(json.dumps(body).encode()))


def answering(client: Any, operation: str, answer: Callable[[Any], Any]) -> None:
    """What a service of Amazon's would answer: answer(request as JSON) -> None to ask the server, or (status, body)."""

    def before(request: Any, **_: Any) -> Any:
        found = answer(json.loads(request.body))
        return None if found is None else _answer(*found)

    client.meta.events.register(f"before-send.*.{operation}", before)


__all__ = ["Refusing", "a_name", "answering", "credentials", "everything", "once", "payload"]
