"""A test server inside the test: real HTTP on loopback, an event loop per test, a clock that stands still."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.http.config import Config, Cookie
from spoorway.config import load
from spoorway.micro.records import Record, Recorder
from spoorway.micro.server import Micro
from spoorway.micro.store import Bounds, Store
from tests.unit import http_site
from tests.unit.http_site import TP2, Reply

NOW_MS = 1_768_471_205_000  # 2026-01-15T10:00:05Z
SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
PAYLOAD_DATA = f"{SNOWPLOW}/payload_data/jsonschema/1-0-4"
LINK_CLICK = f"{SNOWPLOW}/link_click/jsonschema/1-0-1"
WEB_PAGE = f"{SNOWPLOW}/web_page/jsonschema/1-0-0"
GEOLOCATION = f"{SNOWPLOW}/geolocation_context/jsonschema/1-1-0"


def event_id(number: int) -> str:
    return str(UUID(int=number, version=4))


def described(data: object, schema: str = LINK_CLICK) -> dict[str, str]:
    """A self-describing event's parameters."""
    wrapper = {"schema": f"{SNOWPLOW}/unstruct_event/jsonschema/1-0-0", "data": {"schema": schema, "data": data}}
    return {"e": "ue", "ue_pr": json.dumps(wrapper)}


def entities(*pairs: tuple[str, object]) -> dict[str, str]:
    data = [{"schema": schema, "data": data} for schema, data in pairs]
    return {"co": json.dumps({"schema": f"{SNOWPLOW}/contexts/jsonschema/1-0-1", "data": data})}


class Site(http_site.Site):
    """store: what the server remembers. labels: what it says of each event."""

    def __init__(self, micro: Micro, labels: list[str]) -> None:
        super().__init__(micro.http, http_site.Recorder())
        self.micro, self.store, self.labels = micro, micro.store, labels

    async def track(self, *events: Mapping[str, str], below: str = "", **headers: str) -> Reply:
        data = [{"tv": "test-1", "p": "web", **event} for event in events]
        body = json.dumps({"schema": PAYLOAD_DATA, "data": data}).encode()
        return await self.post(body, f"{below}{TP2}", **headers)

    async def micro_get(self, path: str) -> Any:
        reply = await self.ask(path)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    async def micro_post(self, path: str, body: object) -> Any:
        reply = await self.post(json.dumps(body).encode(), path)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)


@asynccontextmanager
async def site(bounds: Bounds, cors: bool, configuration: str, schemas: Path | None, http: dict[str, Any]) -> AsyncIterator[Site]:
    folder = schemas or Path("/nonexistent")
    file = folder.parent / "spoorway.toml" if schemas else None
    if file is not None:
        file.write_text(configuration)
    settings = load(file, {"data": "/nonexistent", "enrich.schemas": [str(folder)]}, {})
    config = Config(port=0, cookie=Cookie(enabled=True), stored_headers=("*",), stop_timeout_s=1, **http)
    labels: list[str] = []

    def notice(record: Record) -> None:
        labels.append(record.label)

    micro = Micro(config, Recorder(settings), Store(bounds), lambda: NOW_MS, notice, cors=cors)
    await micro.start()
    running = Site(micro, labels)
    try:
        yield running
    finally:
        running.close()
        await micro.stop()


def served(
    bounds: Bounds = Bounds(),  # noqa: B008  a frozen value
    cors: bool = False,
    **http: Any,
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Makes a test of `async def test(site)`."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        async def scenario() -> None:
            async with asyncio.timeout(20), site(bounds, cors, "", None, http) as running:
                await test(running)

        def run() -> None:
            asyncio.run(scenario())

        run.__name__ = getattr(test, "__name__", "run")
        return run

    return decorate
