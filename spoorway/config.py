"""Where the settings come from: flag > environment > file > default. One TOML file; every option has a default.

Reads, merges and checks; builds nothing. Environment names are SPOORWAY__ and the option's place, parts joined by two
underscores: SPOORWAY__GATEWAY__TRANSPORTS__HTTP__PORT; with _FILE at the end the value is that file's text.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from enrich.enrichments import OnError
from enrich.leniency import EVERY_LENIENCY
from gateway.devices.options import Options as DeviceOptions
from gateway.journal.options import Options as JournalOptions
from protocol.seams import ConfigurationError
from spoorway.options import build, convert, table, unknown
from spoorway.plugins import configure
from spoorway.registry.options import Remote, Resolver
from spoorway.retention import Options as Rule
from storage.archive import Options as ArchiveOptions

PREFIX = "SPOORWAY__"
FILE = "spoorway.toml"
SECRET_WORDS = ("password", "secret", "token", "key", "salt", "dsn")
_TOP = ("data", "journal", "retention", "archive", "gateway", "enrich", "storage", "admin")
# Journals that take the place of the one in files: gateway/journal/NAME has `Config`, and imports no client.
_REMOTE = ("kafka", "kinesis")
# What runs where the file has no table of that kind.
_DEFAULTS: dict[str, tuple[str, ...]] = {
    "gateway.transports": ("http",),
    "enrich.enrichments": ("referer", "campaign", "event_fingerprint", "anon_ip", "device_time", "email_agent"),
    "storage.targets": ("sqlite",),
}


@dataclass(frozen=True, slots=True)
class Instance:
    """A named plugin of the configuration: module has `Plugin`, config is its filled Config. on_error: of enrichments only."""

    name: str
    use: str
    module: Any
    config: Any
    on_error: OnError = "fail"

    def plugin(self, *arguments: Any) -> Any:
        return self.module.Plugin(self.config, *arguments)


@dataclass(frozen=True, slots=True)
class Enrichment:
    lenient: frozenset[str] = EVERY_LENIENCY
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    schemas: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()
    registries: Mapping[str, Remote] = field(default_factory=dict[str, Remote])
    resolver: Resolver = field(default_factory=Resolver)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the journal is kept once every target, and the archive, has it: days, then bytes; 0 = for ever, without bound."""

    journal_days: float = 0
    journal_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Admin:
    """Where metrics and health are served; enabled = false serves neither."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 8081


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration. values: what was given; sources: option's place -> flag, environment or file.

    Plugins are looked up when they are asked for, so that the process that loads does not import the one that listens.
    Each look-up raises ConfigurationError.
    """

    data: Path
    journal: JournalOptions
    devices: DeviceOptions
    retention: Retention
    archive: ArchiveOptions
    rules: Mapping[str, Rule]
    enrich: Enrichment
    admin: Admin
    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def transports(self) -> tuple[Instance, ...]:
        return _instances(self.values, "gateway", "transports")

    def enrichments(self) -> tuple[Instance, ...]:
        return _instances(self.values, "enrich", "enrichments")

    def targets(self) -> tuple[Instance, ...]:
        return _instances(self.values, "storage", "targets")

    def remote(self) -> Instance | None:
        """The journal that takes the place of the one in files: [journal.kafka] or [journal.kinesis]; None = neither is there."""
        journal = _table(self.values, "journal")
        given = [name for name in _REMOTE if name in journal]
        if len(given) > 1:
            raise ConfigurationError(f"journal: {' and '.join(given)} are both configured; one of them takes what comes in")
        for name in given:
            path = f"journal.{name}"
            module, config = configure("gateway.journal", name, table(journal[name], path), path)
            config.check()
            return Instance(name, name, module, config)
        return None

    def target_names(self) -> list[str]:
        """Without importing them."""
        return [name for name, _ in _enabled(self.values, "storage", "targets")]


def sample() -> str:
    """The commented configuration file: every option with its default."""
    return files("spoorway").joinpath("sample.toml").read_text("utf-8")


def load(file: Path | None = None, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """flags: option's place ("gateway.transports.http.port") -> value; None values are skipped.

    file: None = ./spoorway.toml if there is one. Raises ConfigurationError with the one thing that is wrong.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    path = file if file is not None else Path(FILE)
    if file is not None or path.is_file():
        _merge(values, _read(path), sources, f"file {path}")
    for place, value in _from_environment(os.environ if environ is None else environ).items():
        _put(values, place, value)
        sources[place] = "environment"
    for place, value in (flags or {}).items():
        if value is not None:
            _put(values, place, value)
            sources[place] = "flag"
    for name in values:
        if name not in _TOP:
            raise unknown(name, _TOP, "")
    return _settings(values, sources)


def merged(values: Mapping[str, Any]) -> Settings:
    """Of `Settings.values` that another machine handed over; nothing of this one is asked. Raises ConfigurationError."""
    return _settings(dict(values), {})


def _settings(values: dict[str, Any], sources: dict[str, str]) -> Settings:
    data = Path(convert(str, values.get("data", "spoorway-data"), "data")).expanduser()
    gateway, enrich, storage = (_table(values, name) for name in ("gateway", "enrich", "storage"))
    _only(gateway, ("devices", "transports"), "gateway")
    _only(storage, ("targets", "retention"), "storage")
    rules = table(storage.get("retention", {}), "storage.retention")
    return Settings(
        data,
        build(JournalOptions, {k: v for k, v in _table(values, "journal").items() if k not in _REMOTE}, "journal"),
        build(DeviceOptions, table(gateway.get("devices", {}), "gateway.devices"), "gateway.devices"),
        build(Retention, _table(values, "retention"), "retention"),
        build(ArchiveOptions, _table(values, "archive"), "archive"),
        {
            name: build(Rule, table(rule, f"storage.retention.{name}"), f"storage.retention.{name}")
            for name, rule in rules.items()
        },
        build(Enrichment, {name: value for name, value in enrich.items() if name != "enrichments"}, "enrich"),
        build(Admin, _table(values, "admin"), "admin"),
        values,
        sources,
    )


def _instances(values: Mapping[str, Any], room: str, folder: str) -> tuple[Instance, ...]:
    place = f"{room}.{folder}"
    found: list[Instance] = []
    for name, options in _enabled(values, room, folder):
        path = f"{place}.{name}"
        rest = {key: value for key, value in options.items() if key not in ("use", "enabled")}
        on_error: OnError = "fail"
        if folder == "enrichments":
            on_error = convert(OnError, rest.pop("on_error", on_error), f"{path}.on_error")
        use = convert(str, options.get("use", name), f"{path}.use")
        module, config = configure(place, use, rest, path)
        if on_error not in (allowed := getattr(module, "ON_ERROR", (on_error,))):
            raise ConfigurationError(f"{path}.on_error: {use} allows {', '.join(allowed)} only, not {on_error!r}")
        found.append(Instance(name, use, module, config, on_error))
    return tuple(found)


def _enabled(values: Mapping[str, Any], room: str, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and options of each instance that is to run."""
    place = f"{room}.{folder}"
    default: dict[str, dict[str, Any]] = {name: {} for name in _DEFAULTS[place]}
    for name, value in table(_table(values, room).get(folder, default), place).items():
        options = table(value, f"{place}.{name}")
        if convert(bool, options.get("enabled", True), f"{place}.{name}.enabled"):
            yield name, options


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return table(values.get(name, {}), name)


def _only(table: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    for name in table:
        if name not in known:
            raise unknown(name, known, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; `spoorway init` writes one") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX):
            continue
        place = name.removeprefix(PREFIX).lower().replace("__", ".")
        if place.endswith("_file"):
            try:
                value = Path(value).read_text("utf-8").strip()
            except OSError as error:
                raise ConfigurationError(f"{name}: {value}: {error.strerror}") from None
            place = place.removesuffix("_file")
        found[place] = value
    return found


def _put(values: dict[str, Any], place: str, value: Any) -> None:
    *path, name = place.split(".")
    inner = values
    for depth, key in enumerate(path):
        here = ".".join(path[: depth + 1])
        if key not in inner:  # an override of one default instance must not switch off the others
            inner[key] = {default: {} for default in _DEFAULTS.get(here, ())}
        inner = cast(dict[str, Any], table(inner[key], here))
    inner[name] = value


def _merge(values: dict[str, Any], new: Mapping[str, Any], sources: dict[str, str], source: str, path: str = "") -> None:
    for name, value in new.items():
        place = f"{path}{name}"
        if isinstance(value, dict):
            _merge(values.setdefault(name, {}), cast(dict[str, Any], value), sources, source, f"{place}.")
        else:
            values[name] = value
            sources[place] = source
