"""What the configuration says of registries: `[enrich.registries.NAME]` and `[enrich.resolver]`. Values, checked."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from protocol.seams import ConfigurationError


@dataclass(frozen=True, slots=True)
class Remote:
    """A static registry: GET url/schemas/VENDOR/NAME/FORMAT/VERSION.

    vendor_prefixes: it is asked first for vendors that begin so; exclusive: and for no others.
    priority: among registries that fit equally well, the lowest is asked first.
    apikey_file: its text is sent as the header `apikey`; needs https, or allow_private.
    allow_private: it may live at a loopback, private or link-local address.
    """

    url: str
    vendor_prefixes: tuple[str, ...] = ()
    exclusive: bool = False
    priority: int = 0
    apikey_file: str = ""
    allow_private: bool = False
    timeout_s: float = 10.0
    max_bytes: int = 1_048_576
    max_per_minute: int = 600

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            parts, good = None, False
        if parts is None or not good or parts.username is not None or parts.query or parts.fragment:
            raise ConfigurationError(f"url: expected one such as https://iglucentral.com, not {self.url!r}")
        if self.apikey_file and parts.scheme == "http" and not self.allow_private:
            raise ConfigurationError(f"apikey_file: {self.url} would send the key unencrypted; use https")
        if self.timeout_s <= 0 or self.max_bytes <= 0 or self.max_per_minute <= 0:
            raise ConfigurationError(f"{self.url}: timeout_s, max_bytes and max_per_minute must be above 0")

    def fits(self, vendor: str) -> bool:
        return any(vendor.startswith(prefix) for prefix in self.vendor_prefixes)


@dataclass(frozen=True, slots=True)
class Resolver:
    """refresh_s: age at which a fetched schema is asked for again, while it stays in use.

    retry_s, longest_retry_s: when a schema that no registry has is asked for again: after the first, doubled up to the second.
    come_back: failed events that waited for a schema are replayed when it is there.
    """

    refresh_s: float = 86_400.0
    retry_s: float = 10.0
    longest_retry_s: float = 600.0
    come_back: bool = True
