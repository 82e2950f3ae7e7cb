"""The gateway takes of aiohttp what it needs, and leaves the package whole for others."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
{first}
import gateway.http.parser as ours
assert ("aiohttp.client" in sys.modules) == {whole}, "what is loaded"
import asyncio, aiohttp
from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
assert (HttpRequestParser, RawRequestMessage) == (ours.HttpRequestParser, ours.RawRequestMessage)
assert aiohttp.StreamReader is ours.StreamReader and aiohttp.http_parser.HttpRequestParser is ours.HttpRequestParser

async def ask():
    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{{}}:{{}}/".format(*runner.addresses[0][:2])
    async with aiohttp.ClientSession() as session, session.post(url, data="x") as got:
        print(got.status, await got.text())
    await runner.cleanup()

async def answer(request):
    return web.Response(text="you said " + await request.text())

asyncio.run(ask())
"""


def _run(first: str, whole: bool) -> str:
    program = PROGRAM.format(first=first, whole=whole)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_rest_of_aiohttp_is_not_loaded_and_works_for_who_asks() -> None:
    assert _run("", whole=False) == "200 you said x\n"


def test_one_that_is_there_is_taken() -> None:
    assert _run("import aiohttp", whole=True) == "200 you said x\n"
