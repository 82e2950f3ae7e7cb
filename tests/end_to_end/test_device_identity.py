"""Devices that prove who they are, against the running product: a shell with openssl and curl, kill -9, the command line."""

import hashlib
import hmac
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gateway.journal import Damage
from gateway.journal.reader import FileReader

DOCUMENT = Path(__file__).parents[2] / "docs/identity.md"
TP2 = "/com.snowplowanalytics.snowplow/tp2"

pytestmark = pytest.mark.slow


def device(data: Path, *arguments: str, code: int = 0) -> Any:
    """The JSON that `spoorway device` prints; a list where there are several lines."""
    command = [sys.executable, "-m", "spoorway", "device", *arguments, "--data", str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    if code:
        return done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return found[0] if len(found) == 1 else found


class Pump:
    """A device of an author who has read docs/devices.md and nothing of ours."""

    def __init__(self, url: str, secrets: dict[str, str], boot: int = 1) -> None:
        self.url, self.name, self.key, self.boot = url, secrets["device"], bytes.fromhex(secrets["key"]), boot

    def send(self, sequence: int, body: bytes = b"", *, boot: int | None = None, length: int = 64) -> tuple[int, str | None]:
        """(status, Retry-After)."""
        boot = self.boot if boot is None else boot
        body = body or event(boot, sequence)
        covered = f"{self.name}\n{boot}\n{sequence}\n{TP2}\n".encode() + body
        headers = {
            "Content-Type": "application/json",
            "Spoorway-Device": self.name,
            "Spoorway-Boot": str(boot),
            "Spoorway-Sequence": str(sequence),
            "Spoorway-Signature": hmac.new(self.key, covered, hashlib.sha256).hexdigest()[:length],
        }
        return post(self.url + TP2, body, headers)[:2]


def event(boot: int, sequence: int) -> bytes:
    data = {"e": "se", "p": "iot", "tv": "test", "aid": "pumps", "se_ca": "pump", "se_ac": f"{boot}/{sequence}"}
    return json.dumps({"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [data]}).encode()


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str | None, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return answer.status, None, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Retry-After"], error.read().decode()


def claim(url: str, code: str, **headers: str) -> tuple[int, str | None, str]:
    return post(f"{url}/io.spoorway/claim", json.dumps({"code": code}).encode(), {"Content-Type": "application/json", **headers})


def journaled(data: Path) -> Counter[tuple[str | None, str, str]]:
    """How often each (device, boot, sequence) is in the journal."""
    reader, cursor = FileReader(data / "journal"), {}
    found: Counter[tuple[str | None, str, str]] = Counter()
    while (chunk := reader.read(cursor)).items:
        cursor = dict(chunk.cursor)
        for item in chunk.items:
            assert not isinstance(item, Damage)
            headers = dict(item.headers)
            found[item.device, headers.get("Spoorway-Boot", ""), headers.get("Spoorway-Sequence", "")] += 1
    reader.close()
    return found


def test_documented_shell_sample_is_taken_and_its_copy_acknowledged(tmp_path: Path, start: Callable[..., Any]) -> None:
    secrets = device(tmp_path / "data", "add", "pump-7")
    run = start()
    (sample,) = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "URL": run.url, "KEY": secrets["key"]}

    def shell(script: str) -> str:
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=20).stdout

    assert shell(sample) == "ok200\n"
    assert shell(sample) == "ok200\n"
    assert shell(sample.replace('"on"', '"off"')) == "a sequence from the past409\n"
    assert shell(sample.replace("BOOT=1", "BOOT=2")) == "ok200\n"
    assert shell(sample.replace('--data-binary "$BODY"', '--data-binary "$BODY "')) == "unknown device or wrong signature401\n"
    assert shell(sample.replace("DEVICE=pump-7", "DEVICE=pump-8")) == "unknown device or wrong signature401\n"
    run.wait(2)
    assert run.totals() == 2
    assert journaled(run.data) == {("pump-7", "1", "1"): 1, ("pump-7", "2", "1"): 1}


def test_replays_are_refused_and_copies_kept_once_across_restart_and_kill(tmp_path: Path, start: Callable[..., Any]) -> None:
    secrets = device(tmp_path / "data", "add", "pump")
    run = start()
    assert Pump(run.url, secrets).send(1) == (200, None)
    for number in (signal.SIGTERM, signal.SIGKILL):
        run.stop(number)
        run = start()
        sent = Pump(run.url, secrets)
        assert sent.send(1) == (200, None)
        assert sent.send(1, event(9, 9))[0] == 409
        assert sent.send(2, length=16) == (200, None)
        assert sent.send(5, boot=0)[0] == 409
    run.wait(2)
    assert journaled(run.data) == {("pump", "1", "1"): 1, ("pump", "1", "2"): 1}


def test_kill_in_the_middle_loses_nothing_and_takes_nothing_twice(tmp_path: Path, start: Callable[..., Any]) -> None:
    """Devices that send on and on and repeat what was not acknowledged, as theirs do, while the gateway is killed."""
    every = device(tmp_path / "data", "add", *(f"pump-{n}" for n in range(4)), "--kind", "hmac")
    run = start("--http", "127.0.0.1:0")
    url, ending = [run.url], threading.Event()
    acknowledged: dict[str, int] = {}

    def pump(secrets: dict[str, str]) -> None:
        sequence = 1
        while not ending.is_set():
            try:
                status, _ = Pump(url[0], secrets).send(sequence)
            except OSError:
                ending.wait(0.02)
                continue
            if status == 429:  # its first copy is still under way
                continue
            assert status == 200, status
            acknowledged[secrets["device"]] = sequence
            sequence += 1

    threads = [threading.Thread(target=pump, args=(secrets,)) for secrets in every]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(0.5)
            run.stop(signal.SIGKILL)
            run = start()
            url[0] = run.url
        time.sleep(0.2)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    found = journaled(run.data)
    assert max(found.values()) == 1
    assert min(acknowledged.values()) > 20
    for name, last in acknowledged.items():
        assert {int(sequence) for device_, _, sequence in found if device_ == name} >= set(range(1, last + 1))


def test_rotation_and_revocation_from_the_command_line_hold_within_a_second(tmp_path: Path, start: Callable[..., Any]) -> None:
    data = tmp_path / "data"
    old = device(data, "add", "pump")
    run = start()

    def until(sender: Pump, status: int) -> float:
        began = time.monotonic()
        number = 1_000
        while sender.send(number := number + 1)[0] != status:
            assert time.monotonic() - began < 15  # a second on a machine that is not shared
        return time.monotonic() - began

    assert Pump(run.url, old).send(1)[0] == 200
    new = device(data, "rotate", "pump")
    until(Pump(run.url, old), 401)
    assert Pump(run.url, new).send(1)[0] == 200
    assert device(data, "revoke", "pump") == {"device": "pump", "done": "revoked"}
    until(Pump(run.url, new), 403)
    assert "--again" in device(data, "add", "pump", code=1)
    again = device(data, "add", "pump", "--again")
    until(Pump(run.url, again), 200)
    assert device(data, "add", "later")["key"]
    assert device(data, "show", "later")["state"] == "active"


def test_code_is_redeemed_over_http_once_before_it_expires_and_is_not_guessed(tmp_path: Path, start: Callable[..., Any]) -> None:
    data = tmp_path / "data"
    run = start()  # no device yet
    assert claim(run.url, "0000-0000-0000-0000-0000")[0] == 401
    given = device(data, "add", "pump", "--claim")
    status, _, text = claim(run.url, given["code"])
    assert status == 200
    assert Pump(run.url, json.loads(text)).send(1)[0] == 200  # at once
    assert claim(run.url, given["code"])[0] == 401
    short = device(data, "add", "late", "--claim", "--valid", "1s")
    other = device(data, "add", "other", "--claim")
    assert "https only" in device(data, "claim", other["code"], "--url", "http://example.com", code=1)
    by_command = device(data, "claim", other["code"], "--url", run.url)
    assert by_command["device"] == "other"
    assert "used" in device(data, "claim", other["code"], "--url", run.url, code=1)
    time.sleep(1.1)
    assert claim(run.url, short["code"])[0] == 401
    for header in ("X-Forwarded-For", "Forwarded", "Via"):
        assert claim(run.url, given["code"], **{header: "203.0.113.5"})[0] == 403
    assert post(f"{run.url}/io.spoorway/claim", b"[]", {})[0] == 400
    assert post(f"{run.url}/io.spoorway/claim", b"x" * 5_000, {})[0] == 400
    answers = [claim(run.url, "0000-0000-0000-0000-0000") for _ in range(12)]
    assert answers[-1][0] == 429
    assert 1 <= int(answers[-1][1] or 0) <= 6
    assert journaled(run.data) == {("pump", "1", "1"): 1}
    assert given["code"] not in run.errors.read_text()


def test_password_opens_mqtt_and_revocation_closes_it_within_a_second(tmp_path: Path, start: Callable[..., Any]) -> None:
    data = tmp_path / "data"
    secrets = device(data, "add", "pump")
    run = start("--mqtt", "127.0.0.1:0")
    port = int(json.loads((data / "running.json").read_text())["urls"]["mqtt"][0].rpartition(":")[2])
    published, ended = threading.Event(), threading.Event()
    codes: list[int] = []

    def client(password: str) -> Client:
        made = Client(CallbackAPIVersion.VERSION2, "pump", reconnect_on_failure=False, protocol=MQTTProtocolVersion.MQTTv5)
        made.username_pw_set("pump", password)
        made.on_connect = lambda *arguments: codes.append(arguments[3].value)
        made.on_publish = lambda *_: published.set()
        made.on_disconnect = lambda *_: ended.set()
        made.connect("127.0.0.1", port)
        made.loop_start()
        return made

    wrong = client("wrong")
    assert ended.wait(10)
    wrong.loop_stop()
    ended.clear()
    right = client(secrets["password"])
    right.publish("spoorway/pump/tp2", event(1, 1), qos=1)
    assert published.wait(10)
    assert codes == [0x86, 0]
    device(data, "revoke", "pump")
    assert ended.wait(1)
    right.loop_stop()
    devices = [item.device for item in FileReader(data / "journal").read({}).items if not isinstance(item, Damage)]
    assert "pump" in devices
    run.wait(1)


def test_limit_is_told_with_the_time_to_wait_and_metrics_tell_of_all(tmp_path: Path, start: Callable[..., Any]) -> None:
    data = tmp_path / "data"
    secrets = device(data, "add", "pump", "--payloads-per-s", "0.1")
    run = start()
    sent = Pump(run.url, secrets)
    assert sent.send(1) == (200, None)
    status, wait = sent.send(2)
    assert (status, wait) == (429, "10")
    assert sent.send(1) == (200, None)  # a copy costs nothing
    assert post(run.url + TP2, event(0, 0), {"Content-Type": "application/json"})[0] == 200  # an ordinary request stays open
    run.wait(2)
    _, metrics = run.get(f"{run.admin}/metrics")
    for line in (
        'spoorway_devices{state="active"} 1',
        'spoorway_device_messages_total{outcome="taken"} 1',
        'spoorway_device_messages_total{outcome="repeated"} 1',
        "spoorway_device_delays_total 1",
        'spoorway_device_refusals_total{reason="replayed"} 0',
    ):
        assert line in metrics.splitlines()
    assert journaled(run.data) == {("pump", "1", "1"): 1, (None, "", ""): 1}


def test_doctor_and_the_start_name_what_is_wrong(tmp_path: Path, start: Callable[..., Any]) -> None:
    data = tmp_path / "data"
    secrets = device(data, "add", "pump")
    key = data / "device-master.key"
    key.chmod(0o644)
    run = start("--http", "0.0.0.0:0")
    url = run.url.replace("0.0.0.0", "127.0.0.1")
    assert Pump(url, secrets).send(1) == (429, "1")
    assert f"chmod 600 {key}" in run.errors.read_text()
    assert "without TLS" in run.errors.read_text()

    def doctor() -> list[dict[str, str]]:
        command = [sys.executable, "-m", "spoorway", "doctor", "--quick", "--json", "--data", str(data)]
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.splitlines()
        return [found for found in map(json.loads, lines) if found["check"] == "devices"]

    assert [(found["state"], "chmod 600" in found["message"]) for found in doctor()] == [("wrong", True), ("ok", False)]
    key.chmod(0o600)
    assert [(found["state"], found["message"]) for found in doctor()] == [("ok", "1 active, 0 waiting, 0 revoked")]
    run.until(lambda: Pump(url, secrets).send(1)[0] == 200, lambda: "the mended key was not noticed")
    assert "device" in device(data, "list") and secrets["key"] not in json.dumps(device(data, "list"))
