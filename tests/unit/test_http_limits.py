"""Clients that are slow, huge, broken or hostile: the process lives, memory stays bounded, good requests are still taken."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from gateway.transports.http import Config, Plugin
from protocol.payloads import from_json, to_json
from protocol.seams import ConfigurationError
from tests.unit.http_site import PATIENCE_S, TP2, Client, Recorder, Site, gzipped, request, served, site, until

SHORT = 0.15


async def alive(site: Site) -> bool:
    before = len(site.recorder.payloads)
    return (await site.post()).status == 200 and len(site.recorder.payloads) == before + 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\nnonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /i HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /i HTTP/1.1\r\n\r\n",
        b"GET /i?a=b c HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /i?\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G\xc9T /i HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /i HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
        b"GET /i HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET example.com HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
@served()
async def test_garbage_is_a_bad_request(site: Site, garbage: bytes) -> None:
    client = await site.connect()
    await client.send(garbage)
    reply = await client.reply()
    assert (reply.status, reply["Connection"]) == (400, "close")
    assert await client.is_closed()
    assert site.counters.requests["bad_request"] == 1
    assert await alive(site)


@pytest.mark.parametrize("split", [False, True])
@served()
async def test_the_request_line_has_a_limit(site: Site, split: bool) -> None:
    fits = "/i?" + "x" * (20_480 - len("GET /i? HTTP/1.1") - 10)
    assert (await site.ask(fits)).status == 200
    client = await site.connect()
    line = b"GET /i?" + b"x" * 21_000
    await client.send(line[:9_000] if split else line)
    if split:
        await client.send(line[9_000:])
    assert (await client.reply()).status == 400
    assert await client.is_closed()


@served()
async def test_the_headers_have_a_limit_together(site: Site) -> None:
    assert (await site.ask("/i", A="a" * 20_000, B="b" * 20_000)).status == 200
    assert (await site.ask("/i", A="a" * 21_000, B="b" * 21_000)).status == 400
    assert (await site.ask("/i", A="a" * 41_000)).status == 400
    client = await site.connect()
    await client.send(request("/i") + b"GET /i HTTP/1.1\r\nHost: x\r\n")  # the second one's headers never end
    assert (await client.reply()).status == 200
    for _ in range(2000):
        await client.send(b"X: 1234567890123456789012345678901234567890\r\n")
    assert (await client.reply()).status == 400
    assert await client.is_closed()


@served(max_body_bytes=10_000)
async def test_bodies_have_a_limit(site: Site) -> None:
    assert (await site.post(b"x" * 10_000)).status == 200
    reply = await site.post(b"x" * 10_001, Origin="https://a.example")
    assert (reply.status, reply["Access-Control-Allow-Origin"]) == (413, "https://a.example")
    announced = await site.connect()
    await announced.send(request(TP2, "POST", Content_Length="9000000000", Expect="100-continue"))
    assert (await announced.reply()).status == 413  # before a byte of it was sent
    assert await announced.is_closed()
    chunked = await site.connect()
    await chunked.send(request(TP2, "POST", Transfer_Encoding="chunked") + b"400\r\n" + b"x" * 1024 + b"\r\n")
    for _ in range(9):
        await chunked.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
    assert (await chunked.reply()).status == 413
    assert await chunked.is_closed()
    assert len(site.recorder.payloads) == 1
    assert site.counters.requests["too_large"] == 3


def test_by_default_two_mebibytes_fit() -> None:
    async def scenario() -> None:
        async with site() as running:
            body = b"x" * 2_097_152
            assert (await running.post(body)).status == 200
            assert running.payload.body == body
            assert (await running.post(body + b"x")).status == 413

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [1, 1000, 70_000, 300_000])
@served()
async def test_chunked_bodies(site: Site, size: int) -> None:
    body = bytes(range(256)) * 1200
    pieces = [body[i : i + size] for i in range(0, len(body) if size > 1 else 3000, size)]
    client = await site.connect()
    await client.send(request(TP2, "POST", Transfer_Encoding="chunked"))
    await client.send(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" + request("/i"))
    assert (await client.reply()).status == 200
    assert (await client.reply()).status == 200
    assert [p.body for p in site.recorder.payloads] == [b"".join(pieces), None]


@served()
async def test_a_broken_chunk_is_a_bad_request(site: Site) -> None:
    client = await site.connect()
    await client.send(request(TP2, "POST", Transfer_Encoding="chunked") + b"5\r\nhello\r\nnonsense\r\n")
    assert (await client.reply()).status == 400
    assert await client.is_closed()
    assert site.recorder.payloads == [] and await alive(site)


@served()
async def test_a_client_that_waits_for_100_continue(site: Site) -> None:
    client = await site.connect()
    await client.send(request(TP2, "POST", Expect="100-continue", Content_Length="5"))
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hello")
    assert (await client.reply()).status == 200
    assert site.payload.body == b"hello"


@served(header_timeout_s=SHORT)
async def test_slow_headers_are_cut_off(site: Site) -> None:
    silent, dripping = await site.connect(), await site.connect()
    await dripping.send(b"GET /i HTTP/1.1\r\nHost")

    async def drip() -> None:
        while True:
            await dripping.send(b"x")
            await asyncio.sleep(SHORT / 10)

    task = asyncio.create_task(drip())
    assert (await dripping.reply()).status == 408
    assert await dripping.is_closed() and await silent.is_closed()
    task.cancel()
    await asyncio.wait([task])
    assert await alive(site)


@served(body_timeout_s=SHORT)
async def test_slow_bodies_are_cut_off(site: Site) -> None:
    client = await site.connect()
    await client.send(request(TP2, "POST", Content_Length="1000", Origin="https://a.example") + b"{")
    reply = await client.reply()
    assert (reply.status, reply["Access-Control-Allow-Origin"], reply["Connection"]) == (408, "https://a.example", "close")
    assert await client.is_closed()
    assert site.recorder.payloads == [] and site.counters.requests["timeout"] == 1
    assert await alive(site)


@served(idle_timeout_s=SHORT)
async def test_idle_connections_are_closed_quietly(site: Site) -> None:
    client = await site.connect()
    await client.send(request("/i"))
    assert (await client.reply()).status == 200
    assert await client.is_closed()


@served(accept_timeout_s=SHORT)
async def test_a_journal_that_hangs_means_come_back_later(site: Site) -> None:
    site.recorder.gate.clear()
    left, waiting = await site.connect(), await site.connect()
    await left.send(request(TP2, "POST", b"{}"))
    await site.recorder.entered.wait()
    left.close()
    await waiting.send(request(TP2, "POST", b"{}", Origin="https://a.example"))
    reply = await waiting.reply()
    assert (reply.status, reply["Retry-After"], reply["Access-Control-Allow-Origin"]) == (503, "5", "https://a.example")
    assert (await site.ask("/sink-health")).status == 503
    site.recorder.gate.set()
    assert await alive(site)
    assert (await site.ask("/sink-health")).status == 200


@served()
async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    client = await site.connect()
    count = 500
    everything = b"".join(
        request(f"{TP2}?n={n}", "POST", b"x" * (n % 7)) if n % 3 else request(f"/i?n={n}", "HEAD") for n in range(count)
    )
    sending = asyncio.create_task(client.send(everything + request("/health")))
    for n in range(count):
        assert (await client.reply(head=n % 3 == 0)).status == 200
    assert (await client.reply()).body == b"ok"
    await sending
    assert [p.query for p in site.recorder.payloads] == [f"n={n}" for n in range(count)]


@served()
async def test_a_request_that_arrives_byte_by_byte(site: Site) -> None:
    client = await site.connect()
    for byte in request("/a.b/c?x=\u00e9", "POST", b"{}", User_Agent="Caf\u00e9") * 2:
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.reply()).status == (await client.reply()).status == 200
    assert [(p.query, p.headers) for p in site.recorder.payloads] == [("x=%C3%A9", (("User-Agent", "Caf\u00e9"),))] * 2


@served(header_timeout_s=SHORT, idle_timeout_s=5)
async def test_a_client_that_never_reads_is_cut(site: Site) -> None:
    client = await site.connect(limit=1024)
    client.writer.transport.pause_reading()
    flood = asyncio.create_task(client.send(request("/i") * 200_000))
    await until(lambda: site.counters.sent_bytes > 0)
    await until(lambda: site.counters.open_connections == 0)
    assert len(site.recorder.payloads) < 200_000
    await asyncio.wait([flood])
    assert isinstance(flood.exception(), ConnectionError)
    assert await alive(site)


@pytest.mark.parametrize("sent", [b"GET /i HTT", request(TP2, "POST", Content_Length="10") + b"abc"])
@served()
async def test_a_client_that_leaves_before_its_request_is_complete(site: Site, sent: bytes) -> None:
    client = await site.connect()
    await client.send(sent)
    await until(lambda: site.counters.received_bytes > 0)
    client.close()
    await until(lambda: site.counters.open_connections == 0)
    assert site.recorder.payloads == [] and await alive(site)


@served()
async def test_a_client_that_leaves_after_its_request_is_recorded(site: Site) -> None:
    for abort in (False, True):
        client = await site.connect()
        await client.send(request(TP2, "POST", b"{}") + request("/i"))
        await asyncio.sleep(0)
        client.writer.transport.abort() if abort else client.close()
    await until(lambda: len(site.recorder.payloads) == 2)


@served()
async def test_a_client_that_half_closes_still_gets_its_answers(site: Site) -> None:
    client = await site.connect()
    await client.send(request(TP2, "POST", b"{}") + request("/i"))
    client.writer.write_eof()
    assert [(await client.reply()).status, (await client.reply()).status] == [200, 200]
    assert await client.is_closed()


@served()
async def test_keep_alive_and_close(site: Site) -> None:
    old = await site.connect()
    await old.send(b"GET /i HTTP/1.0\r\n\r\n")
    assert (await old.reply())["Connection"] == "close" and await old.is_closed()
    kept = await site.connect()
    await kept.send(b"GET /i HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
    assert [(await kept.reply())["Connection"], (await kept.reply())["Connection"]] == ["keep-alive"] * 2
    closing = await site.connect()
    await closing.send(request("/i", Connection="close"))
    assert (await closing.reply())["Connection"] == "close" and await closing.is_closed()


@served()
async def test_an_unread_body_does_not_confuse_what_follows(site: Site) -> None:
    client = await site.connect()
    await client.send(request("/nowhere", "POST", b"GET /i HTTP/1.1\r\nHost: x\r\n\r\n") + request("/i?real"))
    assert [(await client.reply()).status, (await client.reply()).status] == [404, 200]
    assert site.payload.query == "real"
    big = await site.connect()
    await big.send(request("/nowhere", "POST", b"x" * 200_000))
    assert (await big.reply()).status == 404


@served(max_buffered_bytes=100_000)
async def test_all_bodies_together_have_a_limit(site: Site) -> None:
    clients = [await site.connect() for _ in range(20)]
    for client in clients:
        await client.send(request(TP2, "POST", Content_Length="50000", Origin="https://a.example") + b"x" * 30_000)
    refused = [asyncio.create_task(client.reply()) for client in clients]
    await until(lambda: site.counters.requests["unavailable"] == 17)  # three times 30,000 bytes fit
    done, pending = await asyncio.wait(refused, timeout=0.05)
    assert len(done) == 17
    for reply in (task.result() for task in done):
        assert (reply.status, reply["Retry-After"], reply["Access-Control-Allow-Origin"]) == (503, "5", "https://a.example")
    for client in clients:
        client.close()
    for task in pending:
        task.cancel()
    await asyncio.wait(refused)
    await until(lambda: site.counters.open_connections == 0)
    assert await alive(site)


@served(max_buffered_bytes=100_000)
async def test_inflated_bodies_count_too(site: Site) -> None:
    assert (await site.post(gzipped(b"".join(b"%d" % (n * n) for n in range(20_000))), Content_Encoding="gzip")).status == 503
    assert await alive(site)


def allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 8192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))


@served(max_connections=1024, retry_after_s=9)
async def test_1500_connections_where_1024_may_be(site: Site) -> None:
    allow_many_files()
    clients: list[Client] = []
    for _ in range(30):
        clients += await asyncio.gather(*(site.connect() for _ in range(50)))
    await until(lambda: site.counters.connections == 1500)
    assert (site.counters.open_connections, site.counters.refused_connections) == (1024, 476)

    async def outcome(client: Client) -> str:
        try:
            await client.send(request("/i"))
            reply = await client.reply()
        except (ConnectionError, asyncio.IncompleteReadError):
            return "cut"
        if reply.status == 503:
            assert (reply["Retry-After"], reply["Connection"]) == ("9", "close")
            assert await client.is_closed()
        return str(reply.status)

    outcomes = await asyncio.gather(*map(outcome, clients))
    assert outcomes.count("200") == 1024 == len(site.recorder.payloads)
    assert outcomes.count("503") + outcomes.count("cut") == 476
    assert outcomes.count("503") >= 100
    for client in clients:
        client.close()
    await until(lambda: site.counters.open_connections == 0)
    assert await alive(site)


@served(max_connections=1)
async def test_a_refused_connection_that_stays_is_cut(site: Site) -> None:
    first = await site.connect()
    await first.send(request("/i"))
    assert (await first.reply()).status == 200
    second = await site.connect()
    assert (await second.reply()).status == 503
    assert await second.is_closed()
    second.close()
    first.close()


def test_stop_finishes_what_is_under_way() -> None:
    async def scenario() -> None:
        async with site() as running:
            running.recorder.gate.clear()
            busy, idle = await running.connect(), await running.connect()
            await idle.send(request("/health"))
            await idle.reply()
            await busy.send(request(TP2, "POST", b"{}"))
            await running.recorder.entered.wait()
            stopping = asyncio.create_task(running.plugin.stop())
            assert await idle.is_closed()
            with pytest.raises(OSError):
                await running.connect()
            assert not stopping.done()
            running.recorder.gate.set()
            reply = await busy.reply()
            assert (reply.status, reply["Connection"]) == (200, "close")
            await stopping
            assert len(running.recorder.payloads) == 1
            assert running.plugin.addresses == [] and running.counters.open_connections == 0

    asyncio.run(scenario())


def test_stop_does_not_wait_for_ever() -> None:
    async def scenario() -> None:
        async with site(stop_timeout_s=SHORT) as running:
            running.recorder.gate.clear()
            client = await running.connect()
            await client.send(request(TP2, "POST", b"{}"))
            await running.recorder.entered.wait()
            async with asyncio.timeout(5):
                await running.plugin.stop()
            assert await client.is_closed() and running.recorder.payloads == []

    asyncio.run(scenario())


def test_a_port_in_use_is_explained() -> None:
    async def scenario() -> None:
        async with site() as running:
            with pytest.raises(ConfigurationError, match=f"127.0.0.1:{running.port} is in use.*choose another port"):
                await Plugin(Config(port=running.port)).start(Recorder().accept)

    asyncio.run(scenario())


@pytest.mark.parametrize("options", [{"host": "192.0.2.1"}, {"port": 70_000}, {"host": "no such host"}])
def test_an_address_that_cannot_be_is_explained(options: dict[str, Any]) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match=r"^http: "):
            await Plugin(Config(**{"port": 0, **options})).start(Recorder().accept)

    asyncio.run(scenario())


def test_two_processes_worth_of_plugins_share_a_port() -> None:
    async def scenario() -> None:
        async with site(reuse_port=True) as first:
            second = Plugin(Config(port=first.port, reuse_port=True))
            await second.start(first.recorder.accept)
            for _ in range(40):
                assert (await first.post()).status == 200
            assert first.plugin.counters.requests["accepted"] + second.counters.requests["accepted"] == 40
            await second.stop()

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(pem), *names], check=True, capture_output=True)
    return pem, key


def test_tls(certificate: tuple[Path, Path]) -> None:
    pem, key = certificate

    async def scenario() -> None:
        async with site(tls_certificate=str(pem), tls_key=str(key), hsts_max_age_s=60, max_body_bytes=1000) as running:
            trust = ssl.create_default_context(cafile=str(pem))
            async with aiohttp.ClientSession() as session:
                url = f"https://127.0.0.1:{running.port}{TP2}"
                async with session.post(url, data=b"{}", ssl=trust) as reply:
                    assert (reply.status, reply.headers["Strict-Transport-Security"]) == (200, "max-age=60")
                async with session.post(url, data=b"x" * 1001, ssl=trust) as reply:
                    assert reply.status == 413
            old = ssl.create_default_context(cafile=str(pem))
            with pytest.warns(DeprecationWarning):
                old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await running.connect(ssl=old)
            plain = await running.connect()
            await plain.send(request("/i"))
            assert await plain.is_closed()
            assert len(running.recorder.payloads) == 1

    asyncio.run(scenario())


def test_where_it_listens_is_told_as_it_must_be_asked(certificate: tuple[Path, Path]) -> None:
    pem, key = certificate
    assert Plugin(Config(tls_certificate=str(pem), tls_key=str(key))).scheme == "https"
    assert Plugin(Config()).scheme == "http"


def test_a_missing_certificate_is_explained(certificate: tuple[Path, Path]) -> None:
    pem, key = certificate
    for options in ({"tls_certificate": "/nowhere.pem"}, {"tls_certificate": str(pem)}, {"tls_certificate": str(key)}):
        with pytest.raises(ConfigurationError, match="tls_certificate"):
            Plugin(Config(**options))


@pytest.mark.parametrize("name", ["max_request_line_bytes", "max_body_bytes", "max_connections", "idle_timeout_s"])
def test_limits_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} = 0; it must be at least"):
        Plugin(Config(**{name: 0}))


@pytest.mark.parametrize("seed", range(5))
@served(header_timeout_s=1, body_timeout_s=1)
async def test_damaged_requests_harm_nobody_else(site: Site, seed: int) -> None:
    random = Random(seed)
    good = request(f"{TP2}?a=1", "POST", b"{}" * 50, Content_Type="application/json", Cookie="a=b") + request("/i", "HEAD")

    async def send_damaged() -> None:
        data = bytearray(good)
        for _ in range(random.randrange(1, 6)):
            at = random.randrange(len(data))
            data[at : at + random.choice((0, 1, 1, 20))] = random.randbytes(random.choice((0, 1, 1, 20)))
        client = await site.connect()
        cut = random.randrange(len(data))
        await client.send(bytes(data[:cut]))
        await client.send(bytes(data[cut:]))
        client.writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while await client.reader.read(65_536):
                    pass
        client.close()

    await asyncio.gather(*(send_damaged() for _ in range(60)))
    await until(lambda: site.counters.open_connections == 0)
    assert await alive(site)
    for payload in site.recorder.payloads:
        assert from_json(to_json(payload)) == payload


@pytest.mark.slow
def test_memory_stays_bounded_under_hostile_load() -> None:
    """A process of its own is offered 900 bodies of 1 MB that never end, and heads that never end beside them."""
    program = """
import asyncio, uvloop
from gateway.transports.http import Config, Plugin
async def main():
    async def accept(payload): pass
    plugin = Plugin(Config(port=0, max_buffered_bytes=16_777_216, max_connections=1000))
    await plugin.start(accept)
    print(plugin.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input)
    await plugin.stop()
uvloop.run(main())
"""
    allow_many_files()
    server = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None

    def peak_kib() -> int:
        status = Path(f"/proc/{server.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    try:
        port = int(server.stdout.readline())
        before = peak_kib()
        body = request(TP2, "POST", Content_Length="1000001") + b"x" * 1_000_000
        head = b"GET /i HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000
        sockets = []
        for n in range(1000):
            client = socket.create_connection(("127.0.0.1", port))
            client.setblocking(False)
            sockets.append((client, memoryview(body if n % 10 else head)))
        for _ in range(40):
            for n, (client, rest) in enumerate(sockets):
                with contextlib.suppress(OSError):
                    sockets[n] = client, rest[client.send(rest) :]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(PATIENCE_S)
            client.sendall(request("/health"))
            assert client.recv(100)  # it still answers, if only that it has enough
        grown = (peak_kib() - before) // 1024
        for client, _ in sockets:
            client.close()
        assert grown < 150, f"{grown} MiB for {len(body) * 900 >> 20} MiB offered"
    finally:
        server.stdin.close()
        server.wait(PATIENCE_S)
        server.stdout.close()
