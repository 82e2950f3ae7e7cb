"""Objects in S3, or in a store that speaks as S3 does, by boto3; every error of it becomes one of ours.

What is made only if it does not exist, or replaced only if it is a known version, is decided by the store (If-None-Match,
If-Match). A refusal may be the echo of our own first attempt, whose answer was lost: each body carries a mark that tells.
Large files go in parts, and are seen when the last one is there.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from protocol.seams import ConfigurationError, PermanentError, TransientError
from storage.objects import Found, NoSuchObject, checked

boto3: Any = import_module("boto3")
configuration: Any = import_module("botocore.config")
errors: Any = import_module("botocore.exceptions")

PARTS_ABOVE_BYTES = 64 << 20
_PART_BYTES = 16 << 20
_MOST_PARTS = 10_000
_DELETED_AT_ONCE = 1_000
_MARK = "spoorway-mark"
_PASSING = {"408", "409", "429", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
_MISSING = {"404", "NoSuchKey", "NotFound"}
_OPENING = Lock()  # a session makes one client at a time
_CHANGED = {"412", "PreconditionFailed", "404", "NoSuchKey"}


@lru_cache(8)
def _session(profile: str, region: str, environment: frozenset[tuple[str, str]]) -> Any:
    """One for all that is opened with the same credentials, for it takes a while to make. The environment is a part of those."""
    return boto3.session.Session(profile_name=profile or None, region_name=region or None)


class S3Objects:
    """An `Objects` in a bucket, below a prefix. Any thread; the credentials are found as the AWS command line finds them."""

    def __init__(self, url: str, *, endpoint: str = "", region: str = "", profile: str = "") -> None:
        """Raises ConfigurationError."""
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = prefix.rstrip("/") + "/" if prefix.rstrip("/") else ""
        if not self._bucket:
            raise ConfigurationError(f"{url}: expected s3://BUCKET/PREFIX")
        try:
            # A store of one's own seldom has a host name per bucket.
            style = configuration.Config(s3={"addressing_style": "path"}) if endpoint else configuration.Config()
            patience = configuration.Config(
                connect_timeout=5, read_timeout=60, max_pool_connections=16, retries={"mode": "standard", "total_max_attempts": 3}
            )
            with _OPENING:
                session = _session(profile, region, frozenset(item for item in os.environ.items() if item[0].startswith("AWS_")))
                self._credentials: Any = session.get_credentials()
                if self._credentials is None:
                    raise ConfigurationError(
                        f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
                    )
                self._client: Any = session.client("s3", endpoint_url=endpoint or None, config=patience.merge(style))
        except (errors.BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"{url}: {error}") from error

    def put_new(self, name: str, body: bytes | Path) -> bool:
        return self._put_conditionally(name, body, {"IfNoneMatch": "*"})

    def put_if(self, name: str, body: bytes, etag: str) -> bool:
        return self._put_conditionally(name, body, {"IfMatch": etag})

    def put(self, name: str, body: bytes | Path) -> None:
        with self._translating(name):
            self._put(name, body, {}, "")

    def copy(self, source: str, name: str) -> None:
        with self._translating(source):
            self._client.copy_object(**self._place(name), CopySource=self._place(source))

    def get(self, name: str) -> bytes:
        with self.open(name) as stream:
            return stream.read()

    def get_with_etag(self, name: str) -> tuple[bytes, str] | None:
        try:
            with self._translating(name):
                found = self._client.get_object(**self._place(name))
        except NoSuchObject:
            return None
        with self._stream(name, found["Body"]) as stream:
            return stream.read(), str(found["ETag"])

    def open(self, name: str) -> BinaryIO:
        with self._translating(name):
            return self._stream(name, self._client.get_object(**self._place(name))["Body"])

    def sha256(self, name: str) -> str:
        with self._translating(name):
            about = self._client.head_object(**self._place(name), ChecksumMode="ENABLED")
        told = str(about.get("ChecksumSHA256", ""))
        if told and "-" not in told and about.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            return b64decode(told).hex()
        digest = hashlib.sha256()
        with self.open(name) as stream:
            while data := stream.read(1 << 20):
                digest.update(data)
        return digest.hexdigest()

    def list(self, prefix: str = "") -> Iterator[Found]:
        with self._translating(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield Found(str(entry["Key"])[len(self._prefix) :], int(entry["Size"]), str(entry["ETag"]))

    def delete(self, names: Iterable[str]) -> None:
        rest = iter(names)
        while some := [{"Key": self._prefix + checked(name)} for name in islice(rest, _DELETED_AT_ONCE)]:
            with self._translating(some[0]["Key"]):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": some, "Quiet": True})
            for refused in answer.get("Errors", ()):
                kind = TransientError if refused.get("Code") in {"InternalError", *_PASSING} else PermanentError
                raise kind(f"{refused.get('Key')}: not deleted: {refused.get('Code')} {refused.get('Message', '')}".rstrip())

    def url(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{checked(name)}"

    def about(self) -> str:
        with self._translating(""):
            key = self._credentials.get_frozen_credentials().access_key
        meta, how = self._client.meta, self._credentials.method
        return f"s3://{self._bucket}/{self._prefix} at {meta.endpoint_url} ({meta.region_name}), access key {key} ({how})"

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked(name)}

    def _put_conditionally(self, name: str, body: bytes | Path, condition: dict[str, str]) -> bool:
        mark = secrets.token_hex(8)
        with self._translating(name):
            try:
                self._put(name, body, condition, mark)
            except errors.ClientError as error:
                if _code(error) not in _CHANGED:
                    raise
                return self._marked(name, mark)
        return True

    def _marked(self, name: str, mark: str) -> bool:
        """True when what lies there is what we put with this mark."""
        try:
            return bool(self._client.head_object(**self._place(name))["Metadata"].get(_MARK) == mark)
        except errors.ClientError as error:
            if _code(error) in _MISSING:
                return False
            raise

    def _put(self, name: str, body: bytes | Path, condition: dict[str, str], mark: str) -> None:
        about = self._place(name) | {"Metadata": {_MARK: mark} if mark else {}}
        if isinstance(body, bytes):
            self._client.put_object(**about, **condition, Body=body, ChecksumSHA256=_base64(hashlib.sha256(body).digest()))
            return
        with body.open("rb") as file:
            if body.stat().st_size > PARTS_ABOVE_BYTES:
                self._put_parts(about, file, body.stat().st_size, condition)
                return
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            self._client.put_object(**about, **condition, Body=file, ChecksumSHA256=_base64(digest))

    def _put_parts(self, about: dict[str, Any], file: BinaryIO, size: int, condition: dict[str, str]) -> None:
        """One part in memory at a time."""
        place = {"Bucket": about["Bucket"], "Key": about["Key"]}
        upload = place | {"UploadId": self._client.create_multipart_upload(**about)["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            while data := file.read(max(_PART_BYTES, -(-size // _MOST_PARTS))):
                number = len(parts) + 1
                parts.append(
                    {"PartNumber": number, "ETag": self._client.upload_part(**upload, PartNumber=number, Body=data)["ETag"]}
                )
            self._client.complete_multipart_upload(**upload, **condition, MultipartUpload={"Parts": parts})
        except BaseException:
            # What is not completed costs money until it is given up; a rule of the bucket should see to what a kill leaves.
            with suppress(errors.BotoCoreError, errors.ClientError):
                self._client.abort_multipart_upload(**upload)
            raise

    def _stream(self, name: str, body: Any) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Stream(body, lambda: self._translating(name)), 256 << 10))

    @contextmanager
    def _translating(self, name: str) -> Generator[None, None, None]:
        try:
            yield
        except errors.ClientError as error:
            raise _trouble(f"s3://{self._bucket}/{self._prefix}{name}", error) from error
        except (errors.NoCredentialsError, errors.ParamValidationError) as error:
            raise PermanentError(f"s3://{self._bucket}: {error}") from error
        except (errors.BotoCoreError, errors.HTTPClientError) as error:
            raise TransientError(f"s3://{self._bucket}: {error}") from error
        except OSError as error:  # of the file that is put
            raise TransientError(f"{error.filename or name}: {error.strerror or error}") from error


class _Stream(io.RawIOBase):
    """A body under way, whose errors are ours."""

    def __init__(self, body: Any, translating: Callable[[], Any]) -> None:
        self._body, self._translating = body, translating

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._translating():
            data: bytes = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _trouble(url: str, error: Any) -> TransientError | PermanentError:
    code, status = _code(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING:
        return NoSuchObject(f"{url}: no such object")
    about = error.response.get("Error", {}).get("Message", "")
    passing = status >= 500 or code in _PASSING or status in (408, 409, 429) or not status
    return (TransientError if passing else PermanentError)(f"{url}: {code} {about}".rstrip())


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()


__all__ = ["PARTS_ABOVE_BYTES", "S3Objects"]
