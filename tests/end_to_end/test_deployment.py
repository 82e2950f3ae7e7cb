"""What deploy/ runs, run: the steps of the image, the mounted configuration, a root file system that is read-only, real probes.

Kafka, PostgreSQL and nginx are real. Neither a container engine nor a cluster is; see docs/deployment.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from protocol.devices import signature
from spoorway.config import load
from tests.end_to_end import image_steps
from tests.peers.kafka_server import KafkaServer
from tests.peers.ports import free_port
from tests.peers.postgres_server import PostgresServer
from tests.peers.programs import missing

DEPLOY = Path(__file__).parents[2] / "deploy"
CLUSTER = DEPLOY / "cluster.toml"
TP2 = "/com.snowplowanalytics.snowplow/tp2"
_WAIT_S = 90.0
# What a container has: one folder to write to, a /tmp of its own, no capability. The rest of the file system cannot be written.
_CONFINED = """
mount --bind "$DATA" "$DATA" && mount --bind "$TMPDIR" "$TMPDIR" && mount -o remount,bind,ro / && cd "$DATA" || exit 99
touch "$OUTSIDE" 2>/dev/null && exit 98
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + _WAIT_S
    while not (found := true()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def get(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def page_views(*numbers: int) -> bytes:
    events = [
        {"e": "pv", "p": "web", "tv": "test", "aid": "shop", "eid": f"00000000-0000-4000-8000-{number:012d}", "duid": "d"}
        for number in numbers
    ]
    schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
    return json.dumps({"schema": schema, "data": events}).encode()


def probes(workload: str) -> dict[str, tuple[str, str]]:
    """Of the manifests: name of the probe -> (port's name, path)."""
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for thing in yaml.safe_load_all(file.read_text("utf-8")):
            if thing["kind"] in ("StatefulSet", "Deployment") and thing["metadata"]["name"] == workload:
                (container,) = thing["spec"]["template"]["spec"]["containers"]
                found = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
                return {name: (asked["port"], asked["path"]) for name, asked in found.items()}
    raise AssertionError(workload)


class Pod:
    """A process with the arguments and the configuration of the manifests, confined as they confine it."""

    def __init__(self, program: Path, name: str, folder: Path, environment: dict[str, str]) -> None:
        if shutil.which("unshare") is None or shutil.which("setpriv") is None or os.geteuid() != 0:
            missing("unshare and setpriv, as root")
        self.name, self.data = name, folder / "data"
        self.said = folder / "said"
        for path in (self.data, folder / "tmp"):
            path.mkdir(parents=True, exist_ok=True)
        confinement = {"DATA": self.data, "TMPDIR": folder / "tmp", "OUTSIDE": folder / "outside"}
        places = {"SPOORWAY__DATA": self.data, "SPOORWAY__ADMIN__HOST": "127.0.0.1"}
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _CONFINED, "sh", program, name, "--config", CLUSTER],
                env={**os.environ, **{key: str(value) for key, value in (confinement | places).items()}, **environment},
                stdout=said,
                stderr=said,
            )

    def url(self, port: str) -> str:
        """Of the port of that name."""
        state = until(lambda: self.state(), f"{self.name} does not start: {self.said.read_text()[-2000:]}")
        return str(state["admin"] if port == "admin" else state["urls"]["http"][0])

    def state(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, self.said.read_text()[-2000:]
        path = self.data / "running.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def probe(self, name: str) -> tuple[int, str]:
        port, path = probes(self.name)[name]
        return get(self.url(port) + path)

    def metric(self, name: str) -> float:
        text = get(self.url("admin") + "/metrics")[1]
        return float(re.findall(rf"^spoorway_{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE)[0])

    def end(self) -> float:
        """As Kubernetes does; the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0, self.said.read_text()[-2000:]
        return time.monotonic() - began


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_steps.build(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as found:
        yield found


@pytest.fixture
def pods(program: Path, tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    made: list[Pod] = []

    def start(name: str, folder: str, **environment: str) -> Pod:
        made.append(Pod(program, name, tmp_path / folder, environment))
        return made[-1]

    yield start
    for pod in made:
        pod.process.kill()
        pod.process.wait()


def of_gateway(kafka: KafkaServer, **more: str) -> dict[str, str]:
    return {
        "SPOORWAY__JOURNAL__KAFKA__BROKERS": kafka.bootstrap,
        "SPOORWAY__JOURNAL__KAFKA__CREATE": "true",
        "SPOORWAY__GATEWAY__TRANSPORTS__HTTP__HOST": "127.0.0.1",
        "SPOORWAY__GATEWAY__TRANSPORTS__HTTP__PORT": "0",
        "SPOORWAY__ADMIN__PORT": "0",
        **more,
    }


def test_the_image_starts_what_it_says(program: Path) -> None:
    entry, *arguments = image_steps.command()
    assert entry == program.name
    assert subprocess.run([program, arguments[0], "--help"], capture_output=True, timeout=60, cwd="/").returncode == 0
    health = image_steps.stages(image_steps.DOCKERFILE.read_text("utf-8"))[-1].last("HEALTHCHECK")
    source = json.loads(health.partition("CMD ")[2])
    assert source[:2] == ["python", "-c"]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        asked = source[2].replace("8081", str(nobody.getsockname()[1]))
        assert subprocess.run([program.parent / "python", "-c", asked], capture_output=True, timeout=60).returncode != 0


def test_an_event_goes_all_the_way_and_a_gateway_keeps_what_kafka_cannot_take(
    pods: Callable[..., Pod], kafka: KafkaServer, tmp_path: Path
) -> None:
    with PostgresServer(tmp_path / "postgres") as postgres:
        (tmp_path / "dsn").write_text(postgres.dsn)
        gateway = pods("gateway", "gateway", **of_gateway(kafka))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert until(lambda probe=probe: gateway.probe(probe)[0] == 200, probe)
        until(lambda: gateway.metric("journal_remote_up") == 1, "Kafka is not reached")
        assert get(gateway.url("http") + TP2, page_views(1, 2)) == (200, "ok")

        worker = pods(
            "worker",
            "worker",
            SPOORWAY__JOURNAL__KAFKA__BROKERS=kafka.bootstrap,
            SPOORWAY__STORAGE__TARGETS__POSTGRES__DSN_FILE=str(tmp_path / "dsn"),
            SPOORWAY__ADMIN__PORT=str(port := free_port()),
        )

        def stored() -> set[int]:
            try:
                with psycopg.connect(postgres.dsn) as db:
                    return {int(str(row[0])[-12:]) for row in db.execute("SELECT event_id FROM atomic.events")}
            except psycopg.Error:
                return set()

        until(lambda: stored() == {1, 2}, f"not stored: {worker.said.read_text()[-2000:]}")
        for _, path in probes("worker").values():
            assert until(lambda path=path: get(f"http://127.0.0.1:{port}{path}")[0] == 200, path)

        kafka.kill()
        assert get(gateway.url("http") + TP2, page_views(3, 4)) == (200, "ok")  # on the volume
        assert [gateway.probe(name)[0] for name in ("livenessProbe", "readinessProbe")] == [200, 200]
        assert gateway.metric("journal_overflow_waiting") == 1
        # The pod is gone; its volume is not, and the next pod of its name hands over what is there.
        gateway.process.kill()
        gateway.process.wait()
        (gateway.data / "running.json").unlink()
        kafka.start()
        gateway = pods("gateway", "gateway", **of_gateway(kafka))
        until(lambda: stored() == {1, 2, 3, 4}, f"not handed over: {gateway.said.read_text()[-2000:]}")
        assert gateway.metric("journal_overflow_waiting") == 0
        for pod in (gateway, worker):
            assert pod.end() < 60  # the terminationGracePeriodSeconds of both


def test_a_gateway_with_no_room_is_unready_and_alive(pods: Callable[..., Pod], kafka: KafkaServer) -> None:
    """That it is ready again by itself, after 15 s, is tests/unit/test_readiness.py's."""
    kafka.kill()
    try:
        gateway = pods("gateway", "full", **of_gateway(kafka, SPOORWAY__JOURNAL__MIN_FREE_BYTES=str(1 << 60)))
        assert get(gateway.url("http") + TP2, page_views(9))[0] == 503
        status, why = gateway.probe("readinessProbe")
        assert status == 503 and "bytes are free" in why
        assert gateway.probe("livenessProbe")[0] == 200
        assert gateway.end() < 60
    finally:
        kafka.start()


def test_the_balancer_leaves_out_a_gateway_that_is_gone(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        missing("nginx")
    configuration = tmp_path / "spoorway.toml"
    configuration.write_text(
        f'data = "{tmp_path / "data"}"\n[admin]\nport = 0\n'
        '[gateway.transports.http]\nport = 0\ntrusted_proxies = ["127.0.0.0/8"]\n'
    )
    command = [sys.executable, "-m", "spoorway", "gateway", "--config", str(configuration)]
    with running(command):
        state = tmp_path / "data" / "running.json"
        until(state.is_file, "no gateway")
        there = json.loads(state.read_text())["urls"]["http"][0].removeprefix("http://")
        port, gone = free_port(), f"127.0.0.1:{free_port()}"
        text = (DEPLOY / "nginx.conf").read_text("utf-8").replace("gateway-1:8080", gone).replace("gateway-2:8080", there)
        text = text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/tmp/", f"{tmp_path}/")
        (tmp_path / "nginx.conf").write_text(text.replace("/dev/stderr", str(tmp_path / "errors")))
        with running(["nginx", "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off; user root;"]):
            until(lambda: connects(port), "nginx does not start")
            for number in range(10):
                assert get(f"http://127.0.0.1:{port}{TP2}", page_views(number)) == (200, "ok")
    (segment,) = (tmp_path / "data" / "journal").rglob("*.ndjson")
    lines = [line for line in segment.read_text().splitlines() if '"transport":"http"' in line]
    assert len(lines) == 10 and all('"ip":"127.0.0.1"' in line for line in lines)


def test_a_copied_register_is_what_the_page_says_of_it(tmp_path: Path) -> None:
    """A second gateway with a copy knows the device; not what the first one took, nor that it was revoked there."""
    folders = [tmp_path / "one", tmp_path / "two"]
    added = spoorway("device", "add", "pump-7", "--kind", "hmac", "--json", "--data", str(folders[0]))
    secrets: Any = json.loads(added)
    key = bytes.fromhex((secrets[0] if isinstance(secrets, list) else secrets)["key"])
    folders[1].mkdir()
    for name in ("devices.db", "device-master.key"):
        shutil.copy2(folders[0] / name, folders[1] / name)
    listen = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    one, other = ([sys.executable, "-m", "spoorway", "gateway", "--data", str(folder), *listen] for folder in folders)
    with running(one), running(other):
        for folder in folders:
            until((folder / "running.json").is_file, "no gateway")
        urls = [json.loads((folder / "running.json").read_text())["urls"]["http"][0] for folder in folders]

        def send(url: str, sequence: int) -> int:
            body = page_views(sequence)
            signed = signature(key, "pump-7", 1, sequence, TP2, body).hex()
            headers = {"Device": "pump-7", "Boot": "1", "Sequence": str(sequence), "Signature": signed}
            return get(url + TP2, body, {f"Spoorway-{name}": value for name, value in headers.items()})[0]

        assert [send(url, 1) for url in urls] == [200, 200]
        spoorway("device", "revoke", "pump-7", "--data", str(folders[0]))
        until(lambda: send(urls[0], 2) == 403, "revoked, and welcome")
        assert send(urls[1], 2) == 200
    taken = [len(re.findall('"transport":"http"', file.read_text())) for folder in folders for file in folder.rglob("*.ndjson")]
    assert taken[0] in (1, 2)  # the second as well, when it came before the revocation was seen
    assert taken[1] == 2


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """A program that is ended with the block, whatever happens in it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spoorway(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "spoorway", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_configuration_is_of_a_remote_journal() -> None:
    remote = load(CLUSTER, {}, {}).remote()
    assert remote is not None and (remote.name, remote.config.topic) == ("kafka", "spoorway-raw")
