"""The calls to Kinesis and DynamoDB, by boto3; every error of it becomes one of ours, and nothing is repeated behind our back.

The credentials are found as the AWS command line finds them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from threading import Lock
from typing import Any, TypeVar

from gateway.journal.kinesis import Config
from gateway.journal.kinesis.positions import lane_of, stream_name
from protocol.seams import ConfigurationError, PermanentError, TransientError

boto3: Any = import_module("boto3")
configuration: Any = import_module("botocore.config")
errors: Any = import_module("botocore.exceptions")

T = TypeVar("T")

logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells each time where it found credentials

_MAKING = Lock()  # a session makes one client at a time

_CONNECT_S = 3
_MADE_WITHIN_S = 120.0
_PASSING = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InternalFailure",
    "InternalFailureException",
    "InternalServerError",
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ResourceInUseException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
}


class Missing(PermanentError):
    """There is no such stream, shard or table."""


class Throttled(TransientError):
    """More was asked of the service than it gives; the same again a little later."""


class Expired(TransientError):
    """The iterator is older than five minutes."""


class Unknown(PermanentError):
    """Kinesis does not know this sequence number in this shard."""


_KINDS: dict[str, type[PermanentError | TransientError]] = {
    "ResourceNotFoundException": Missing,
    "ExpiredIteratorException": Expired,
    "InvalidArgumentException": Unknown,
    "ProvisionedThroughputExceededException": Throttled,
    "LimitExceededException": Throttled,
    "ThrottlingException": Throttled,
}


@dataclass(frozen=True, slots=True)
class Stream:
    """name: the first part of its lanes' names. retention_s: Kinesis forgets a record after so long."""

    name: str
    retention_s: float


@dataclass(frozen=True, slots=True)
class Shard:
    """parents: the shards that it was made of, one after a split, two after a merge."""

    id: str
    lane: str
    parents: tuple[str, ...]


@cache
def _session(profile: str, region: str) -> Any:
    """One for all targets of a worker: it reads megabytes of descriptions of services."""
    return boto3.session.Session(profile_name=profile or None, region_name=region or None)


class Service:
    """Any thread."""

    def __init__(self, config: Config, answer_s: float = 15.0) -> None:
        """Asks nobody yet. answer_s: how long to wait for an answer. Raises ConfigurationError."""
        config.check()
        self.config, self._answer_s = config, answer_s
        try:
            with _MAKING:
                self._session = _session(config.profile, config.region)
            if self._session.get_credentials() is None:
                raise ConfigurationError(
                    "journal.kinesis: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
                )
            self.kinesis: Any = self._client("kinesis")
        except (errors.BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"journal.kinesis: {error}") from error

    def _client(self, service: str) -> Any:
        patience = configuration.Config(
            connect_timeout=_CONNECT_S, read_timeout=self._answer_s, max_pool_connections=16, retries={"total_max_attempts": 1}
        )
        with _MAKING:
            return self._session.client(service, endpoint_url=self.config.endpoint or None, config=patience)

    @cached_property
    def dynamodb(self) -> Any:
        """Workers only."""
        return self._client("dynamodb")

    def close(self) -> None:
        self.kinesis.close()
        if "dynamodb" in self.__dict__:
            self.dynamodb.close()

    def stream(self) -> Stream:
        """The stream, which is made where it is missing and that was asked for.

        Raises ConfigurationError when it is not there or not fit, TransientError, PermanentError.
        """
        name = self.config.stream
        try:
            about = self._described()
        except Missing:
            if not self.config.create:
                region = self.kinesis.meta.region_name
                raise ConfigurationError(
                    f"journal.kinesis.stream: there is no {name!r} in {region}; make it, or set create to a number of shards"
                ) from None
            about = self._made()
        allowed = int(about.get("MaxRecordSizeInKiB", 1024)) << 10
        if self.config.max_record_bytes > allowed:
            raise ConfigurationError(
                f"journal.kinesis.max_record_bytes = {self.config.max_record_bytes}: the stream {name!r} takes {allowed}"
            )
        if about.get("RecordDistributionStrategy") == "AUTO":
            raise ConfigurationError(
                f"journal.kinesis.stream: {name!r} spreads records as it likes, which keeps no order;"
                " set its record distribution strategy to USER_PARTITION_KEY"
            )
        made = int(about["StreamCreationTimestamp"].timestamp())
        return Stream(stream_name(str(about["StreamARN"]), made), float(about["RetentionPeriodHours"]) * 3600)

    def shards(self, stream: Stream) -> dict[str, Shard]:
        """Every shard that still has, or may get, records; by id."""
        found: dict[str, Shard] = {}
        with translating("the list of shards"):
            for page in self._pages():
                for shard in page["Shards"]:
                    parents = [shard.get("ParentShardId"), shard.get("AdjacentParentShardId")]
                    name = str(shard["ShardId"])
                    found[name] = Shard(name, lane_of(stream.name, name), tuple(str(parent) for parent in parents if parent))
        return found

    def _pages(self) -> Iterator[Any]:
        page = self.kinesis.list_shards(StreamName=self.config.stream)
        yield page
        while token := page.get("NextToken"):
            page = self.kinesis.list_shards(NextToken=token)
            yield page

    def _described(self) -> dict[str, Any]:
        with translating(f"the stream {self.config.stream!r}"):
            about: dict[str, Any] = self.kinesis.describe_stream_summary(StreamName=self.config.stream)[
                "StreamDescriptionSummary"
            ]
        if about["StreamStatus"] == "DELETING":
            raise Missing(f"the stream {self.config.stream!r} is being deleted")
        if about["StreamStatus"] == "CREATING":
            raise TransientError(f"the stream {self.config.stream!r} is being made")
        return about

    def _made(self) -> dict[str, Any]:
        try:
            with translating(f"making the stream {self.config.stream!r}"):
                self.kinesis.create_stream(StreamName=self.config.stream, ShardCount=self.config.create)
        except TransientError:  # another gateway makes it at this moment, perhaps
            pass
        return wait_for(self._described)


def wait_for(ready: Callable[[], T]) -> T:
    """What `ready` answers when it no longer raises: what was just made takes seconds to be there. Raises its last error."""
    end = time.monotonic() + _MADE_WITHIN_S
    while True:
        try:
            return ready()
        except (TransientError, Missing):
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


@contextmanager
def translating(what: str) -> Generator[None, None, None]:
    """Raises TransientError (nobody knows whether it was done) or PermanentError (refused)."""
    try:
        yield
    except errors.ClientError as error:
        raise _trouble(what, error) from error
    except (errors.NoCredentialsError, errors.ParamValidationError) as error:
        raise PermanentError(f"{what}: {error}") from error
    except (errors.BotoCoreError, errors.HTTPClientError, OSError) as error:
        raise TransientError(f"{what}: {error}") from error


def code_of(error: Any) -> str:
    """AWS's name of what went wrong, of a botocore ClientError; "" where it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _trouble(what: str, error: Any) -> PermanentError | TransientError:
    code, status = code_of(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    about = f"{what}: {code} {error.response.get('Error', {}).get('Message', '')}".rstrip()
    if kind := _KINDS.get(code):
        return kind(about)
    passing = status >= 500 or code in _PASSING or status == 429 or not status
    return (TransientError if passing else PermanentError)(about)


__all__ = [
    "Expired",
    "Missing",
    "Service",
    "Shard",
    "Stream",
    "Throttled",
    "Unknown",
    "code_of",
    "errors",
    "translating",
    "wait_for",
]
