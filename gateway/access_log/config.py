"""Every option of the access-log transport, with its default. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.http.config import STORED_HEADERS

_NO_TEXT: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Options of `[gateway.transports.access_log]`. Sizes in bytes, times in seconds.

    path: a file, a pattern such as /var/log/nginx/spoorway.log*, a folder with everything below it, or s3://BUCKET/PREFIX.
    fields: the columns of lines between tabs that no `#Fields` line names, as CloudFront calls them.
    paths: path of the pixel where it is your own -> the path it stands for.
    after: of S3, the name (below the prefix) after which objects are looked for; "" = all. See docs/cdn.md before using it.
    endpoint, region, profile: of S3; "" = as the AWS command line finds them.
    state: a SQLite file that holds how far each file was read; "" = NAME.state.db in the data folder.
    scan_s: pause between two looks; 0 = 1 s for files, 60 s for S3.
    truncate_ip: forget the host part of addresses (/24, /48) before the payload exists.
    cookie: name of the cookie whose value is the network user id, where the log has cookies.
    longest_line_bytes: what is longer comes apart, and its parts are failed events.
    retry_s: pause before the journal is offered again what it could not take.
    """

    path: str
    fields: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=_NO_TEXT.copy)
    after: str = ""
    endpoint: str = ""
    region: str = ""
    profile: str = ""
    state: str = ""
    scan_s: float = 0.0
    truncate_ip: bool = False
    stored_headers: tuple[str, ...] = STORED_HEADERS
    cookie: str = "sp"
    longest_line_bytes: int = 262_144
    retry_s: float = 1.0
