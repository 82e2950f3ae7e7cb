"""Requests to OpenSearch over one kept connection: JSON in, JSON out, every error one of ours. Knows nothing of events."""

from __future__ import annotations

import http.client
import select
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from protocol.seams import ConfigurationError, PermanentError, TransientError

_PASSING = (408, 409, 429)
_ADVICE = dict.fromkeys((401, 403), "; see username, password, api_key and their rights") | {413: "; see bulk_bytes"}


@dataclass(frozen=True, slots=True)
class Config:
    """url: http or https, with a path where there is one. name: of the data stream NAME-events, and of NAME-failed, NAME-state.

    username, password: of basic authentication; api_key: as Elasticsearch gives it, in base64. password_file, api_key_file: files
    with these. ca_file: PEM, in place of the system's authorities. shards, replicas: of new indices. bulk_bytes: of one request.
    remember_days: so long an event that was erased or has expired is known as a duplicate when it comes again.
    """

    url: str = "http://127.0.0.1:9200"
    name: str = "spoorway"
    username: str = ""
    password: str = ""
    password_file: str = ""
    api_key: str = ""
    api_key_file: str = ""
    ca_file: str = ""
    shards: int = 1
    replicas: int = 1
    bulk_bytes: int = 8_388_608
    timeout_s: float = 60.0
    remember_days: float = 7.0


class Server:
    """A request is never repeated here, for only who sent it knows what that would mean. One thread at a time."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigurationError."""
        parts = urlsplit(config.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"opensearch: url: {config.url!r}; expected http://HOST:PORT or https://HOST:PORT")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._path = parts.path.rstrip("/")
        password = config.password or _secret(config.password_file, "password_file")
        api_key = config.api_key or _secret(config.api_key_file, "api_key_file")
        self._headers = {"Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"ApiKey {api_key}"
        elif config.username:
            self._headers["Authorization"] = "Basic " + b64encode(f"{config.username}:{password}".encode()).decode()
        self._new: Callable[[], http.client.HTTPConnection]
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=config.ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(f"opensearch: ca_file: {config.ca_file}: {error}") from error
            self._new = lambda: http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=config.timeout_s, context=context
            )
        else:
            self._new = lambda: http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=config.timeout_s)
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json", passing: Sequence[int] = ()
    ) -> dict[str, Any]:
        """The answer's JSON. passing: statuses above 299 that are answers too. Raises TransientError, PermanentError."""
        self._drop_if_closed()
        connection = self._connection or self._new()
        self._connection = None
        headers = self._headers | ({"Content-Type": kind} if body is not None else {})
        try:
            connection.request(method, self._path + path, body, headers)
            response = connection.getresponse()
            data = response.read()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise PermanentError(f"{self.url}: its certificate is not trusted: {error.verify_message}; see ca_file") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise TransientError(f"{self.url}: {str(error) or type(error).__name__}") from error
        self._connection = connection
        status, answer = response.status, _object(data)
        if answer is not None and (status < 300 or status in passing):
            return answer
        if answer is None:
            kind_of = TransientError if status < 300 else trouble(status, {})
            raise kind_of(f"{self.url}: status {status}: what came is not OpenSearch's{_ADVICE.get(status, '')}")
        refusal: object = answer.get("error")
        told = cast(Mapping[str, Any], refusal) if isinstance(refusal, dict) else {"reason": str(refusal or "refused")}
        raise trouble(status, told)(f"{self.url}: status {status}: {why(told)}{_ADVICE.get(status, '')}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _drop_if_closed(self) -> None:
        """A server closes what was idle for long; a connection on which something came unasked is closed, or of no use."""
        sock = self._connection.sock if self._connection is not None else None
        if sock is not None and select.select([sock], [], [], 0)[0]:
            self.close()


def _secret(path: str, option: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"opensearch: {option}: {path}: {error}") from error


def _object(data: bytes) -> dict[str, Any] | None:
    """None: it is no JSON object, so it does not come from the store itself."""
    try:
        found: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return cast(dict[str, Any], found) if isinstance(found, dict) else None


def trouble(status: int, error: Mapping[str, Any]) -> type[TransientError | PermanentError]:
    """Whether the same again later may do. A full disk makes indices read-only, until somebody has made room."""
    passing = status in _PASSING or status >= 500 or error.get("type") == "cluster_block_exception"
    return TransientError if passing else PermanentError


def why(error: Mapping[str, Any]) -> str:
    """An error of the store and what caused it, in one line."""
    told = [str(error.get("reason") or error.get("type") or "no reason given")]
    cause = error.get("caused_by")
    while isinstance(cause, dict):
        told.append(str(cast(Mapping[str, Any], cause).get("reason")))
        cause = cast(Mapping[str, Any], cause).get("caused_by")
    return ": ".join(told).replace("\n", " ")
