"""A real S3 protocol server (moto) in a process of its own, on loopback, at a port of the system's choice; it keeps nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

_START_S = 60.0


class S3Server:
    """`with S3Server() as s3`. environment: what a process must have in its environment to reach it without other options."""

    # The names of what moto can be are read from its folder once, not at each request: a quarter of what it does.
    PROGRAM = (
        "from moto import backends; names = list(backends.list_of_moto_modules()); backends.list_of_moto_modules = lambda: names;"
        " from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
    )

    def __init__(self) -> None:
        self.endpoint = ""
        self.environment: dict[str, str] = {}

    def __enter__(self) -> S3Server:
        self._log = tempfile.NamedTemporaryFile("ab")
        self._process = subprocess.Popen([sys.executable, "-c", self.PROGRAM], stdout=self._log, stderr=self._log)
        try:
            self.endpoint = self._address()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """While it lasts, this process and those that it starts reach the server without other options."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield

    def client(self) -> Any:
        """A boto3 client of it."""
        return import_module("boto3").client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def bucket(self, name: str) -> str:
        """Makes a bucket (a name of three characters at least) and returns its URL, s3://NAME."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def _address(self) -> str:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            told = Path(self._log.name).read_text("utf-8", "replace")
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", told):
                return found[1]
            if self._process.poll() is not None:
                raise AssertionError(f"moto ended: {told[-2000:]}")
            time.sleep(0.05)
        raise AssertionError("moto did not start")
