"""Every case of protocol/vectors/gateway, over a real loopback socket, against the HTTP transport itself."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
import pytest

from gateway.transports.http import Config, Cookie, CrossDomain, Plugin, RedirectOptions, RootAnswer
from protocol.payloads import to_json
from protocol.seams import RawPayload, TransientError
from tests.conformance import comparer, vectors

CASES = list(vectors.cases("gateway"))
LONGEST_S = 10
NEW_UUID = "11111111-2222-4333-8444-555555555555"
_SECTIONS: dict[str, type[Any]] = {"cookie": Cookie, "root": RootAnswer, "crossdomain": CrossDomain, "redirects": RedirectOptions}


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def _option(value: Any) -> Any:
    items: list[Any] = value
    return tuple(items) if isinstance(value, list) else value


def _config(options: Mapping[str, Any]) -> Config:
    """A case's `config`, which is written as in spoorway.toml."""
    values: dict[str, Any] = {name: _option(value) for name, value in options.items()}
    for name, section in _SECTIONS.items():
        if name in values:
            values[name] = section(**{key: _option(value) for key, value in options[name].items()})
    if key_file := options.get("redirects", {}).get("key_file"):
        values["redirects"] = replace(values["redirects"], key_file=str(vectors.FOLDER / "gateway" / key_file))
    values |= {"host": "127.0.0.1", "port": 0}
    return Config(**values)


def _request(fields: Mapping[str, Any]) -> bytes:
    """The request's bytes. Nothing tidies it up on the way, so malformed ones can be sent too."""
    headers: list[Sequence[str]] = list(fields.get("headers", ()))
    names = {name.lower() for name, _ in headers}
    body = base64.b64decode(fields["body64"]) if "body64" in fields else fields.get("body", "").encode()
    if "chunks" in fields:
        parts = [part.encode() for part in fields["chunks"]]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        headers.append(("Transfer-Encoding", "chunked"))
    elif "body" in fields or "body64" in fields or fields["method"] == "POST":
        headers.append(("Content-Length", str(len(body))))
    if "host" not in names:
        headers.insert(0, ("Host", "127.0.0.1"))
    lines = [f"{fields['method']} {fields['target']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


async def _exchange(address: tuple[str, int], fields: Mapping[str, Any]) -> Answer:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(_request(fields))
        await writer.drain()
        data = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return Answer(int(status.split(" ")[1]), [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines)], body)


async def _play(case: Mapping[str, Any]) -> tuple[Answer, list[Mapping[str, Any]]]:
    recorded: list[Mapping[str, Any]] = []

    async def accept(payload: RawPayload) -> None:
        if case.get("journal") == "full":
            raise TransientError("the journal is full")
        recorded.append(orjson.loads(to_json(payload)))

    transport = Plugin(
        _config(case.get("config", {})),
        clock_ns=lambda: vectors.RECEIVED_MS * 1_000_000,
        new_id=lambda: vectors.PAYLOAD_ID,
        new_uuid=lambda: NEW_UUID,
    )
    await transport.start(accept)
    try:
        for earlier in case.get("before", ()):
            await _exchange(transport.addresses[0], earlier)
        answer = await _exchange(transport.addresses[0], case["request"])
    finally:
        await transport.stop()
    return answer, recorded


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_request_is_answered_and_recorded_as_expected(case: vectors.Case) -> None:
    answer, recorded = asyncio.run(asyncio.wait_for(_play(case.fields), LONGEST_S))
    found = comparer.answer_differences(case.fields["response"], *answer)
    found += comparer.recorded_differences(case.fields["recorded"], recorded)
    assert found == [], case.fields["why"]
