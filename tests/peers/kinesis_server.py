"""Servers that speak as Amazon Kinesis does, each in a process of its own, on loopback, at a port of the system's choice.

`Moto` has DynamoDB beside it; its sequence numbers are 1, 2, 3, it never closes a shard, forgets nothing and expires nothing.
`Kinesalite` does all that as Amazon does, and refuses what is larger than Amazon's limits were; it has no DynamoDB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.peers.programs import missing
from tests.peers.s3_server import S3Server

_FOLDER = Path(__file__).parent / "kinesis"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@cache
def aws(service: str, endpoint: str) -> Any:
    """A boto3 client of a server at `endpoint`."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return import_module("boto3").client(service, endpoint_url=endpoint, **keys)


class Moto(S3Server):
    """`with Moto() as moto`; one request at a time: two at once lose records, which get the same number, and both get a lease."""

    PROGRAM = (
        "import moto.server as server; run = server.run_simple;"
        " server.run_simple = lambda *a, **k: run(*a, **{**k, 'threaded': False}); " + S3Server.PROGRAM
    )

    def stream(self, name: str, shards: int) -> Any:
        """Makes a stream; a client of Kinesis."""
        return made(aws("kinesis", self.endpoint), name, shards)


class Kinesalite:
    """`with Kinesalite() as kinesis`: kinesis.endpoint; `advance` puts its clock forward."""

    endpoint = ""

    def __enter__(self) -> Kinesalite:
        node = shutil.which("node")
        if node is None or not (_FOLDER / "node_modules" / "kinesalite").is_dir():
            missing("kinesalite")
        self._process = subprocess.Popen(
            [str(node), "server.cjs"],
            cwd=_FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "NODE_NO_WARNINGS": "1"},
        )
        self.endpoint = f"http://127.0.0.1:{self._told('listening')}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def advance(self, seconds: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{int(seconds * 1000)}\n")
        self._process.stdin.flush()
        self._told("ahead")

    def stream(self, name: str, shards: int) -> Any:
        """Makes a stream; a client of it."""
        return made(aws("kinesis", self.endpoint), name, shards)

    def _told(self, word: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().split()
        assert line and line[0] == word, f"the server ended, or said {line}"
        return line[1]


def made(client: Any, name: str, shards: int) -> Any:
    client.create_stream(StreamName=name, ShardCount=shards)
    active(client, name)
    return client


def active(client: Any, name: str) -> None:
    """Waits until what was asked of the stream is done."""
    end = time.monotonic() + 60
    while client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
        assert time.monotonic() < end, "the stream is not active"
        time.sleep(0.02)


__all__ = ["KEYS", "Kinesalite", "Moto", "active", "aws", "made"]
