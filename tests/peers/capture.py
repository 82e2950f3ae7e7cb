"""Answers like a collector and writes every request down as a payload line, unprocessed.

    python tests/peers/capture.py [--http 127.0.0.1:0] [--out FILE]      (prints its address on stderr)

It stores nothing else and promises nothing: the product is `spoorway run`. The demo recorder builds on it, because what it
records must be what the browser sent and not what a pipeline made of it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

from aiohttp import web

from protocol.payloads import to_json
from protocol.seams import RawPayload

# 43 bytes: one transparent pixel.
PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c000000000100010000020144003b")
NIL = "00000000-0000-0000-0000-000000000000"
"""The network user id of a visitor who asked not to be known."""

Record = Callable[[RawPayload], None]


def application(record: Record) -> web.Application:
    """Routes of a collector: /i by GET, vendor/version by GET and POST, OPTIONS everywhere."""

    async def handle(request: web.Request) -> web.Response:
        cors = {
            "Access-Control-Allow-Origin": request.headers.get("Origin", "*"),
            "Access-Control-Allow-Credentials": "true",
        }
        if request.method == "OPTIONS":
            return web.Response(headers={**cors, "Access-Control-Allow-Headers": "Content-Type, SP-Anonymous"})
        anonymous = "SP-Anonymous" in request.headers
        nuid = NIL if anonymous else unquote(request.cookies.get("sp", "")) or str(uuid4())
        posted = request.method == "POST"
        hidden = {"cookie", "host", "connection", "content-length"}
        if anonymous:
            hidden |= {"x-forwarded-for", "x-real-ip"}
        record(
            RawPayload(
                id=uuid4().hex,
                received_ms=time.time_ns() // 1_000_000,
                transport="http",
                path=request.path,
                query=request.rel_url.raw_query_string,
                body=await request.read() if posted else None,
                content_type=request.headers.get("Content-Type", "").lower() or None if posted else None,
                headers=tuple((name, value) for name, value in request.headers.items() if name.lower() not in hidden),
                ip=None if anonymous else request.remote,
                host=request.host,
                network_userid=nuid,
            )
        )
        answer = (
            web.Response(text="ok", headers=cors) if posted else web.Response(body=PIXEL, content_type="image/gif", headers=cors)
        )
        if not anonymous:
            answer.set_cookie("sp", nuid, max_age=365 * 86_400, httponly=True, samesite="Lax")
        return answer

    app = web.Application(client_max_size=2 << 20)
    app.router.add_route("*", "/{tail:.*}", handle)
    return app


@asynccontextmanager
async def serving(record: Record, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str]:
    """Yields the base URL while the server runs."""
    runner = web.AppRunner(application(record), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--http", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"))
    options = parser.parse_args()
    host, _, port = options.http.rpartition(":")
    with options.out.open("ab", buffering=0) as out:
        async with serving(lambda payload: out.write(to_json(payload) + b"\n") and None, host, int(port)) as url:
            print(url, file=sys.stderr, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
