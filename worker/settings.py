"""What the worker is told by its environment: read once, every problem at once, secrets never shown.

Each setting is one line: its variable, its default as one would write it, how it is read, what it means. The
cache's own (`REDIS_*`, `CACHE_*`) are read by the library, for every app reads those.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_args

from cachebus.durations import milliseconds
from cachebus.errors import ConfigurationError
from cachebus.settings import CacheSettings
from cachebus.signatures import Policy, Signatures
from worker.masking import Masking

Section = TypeVar("Section")


class CannotStart(ConfigurationError):
    """Something only a person can mend. `problems` has one line each: field, value, what is wrong, the fix."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable of the environment."""

    variable: str
    default: str
    read: Callable[[str, str], Any]
    meaning: str
    secret: bool = False


def setting(variable: str, default: str, read: Callable[[str, str], Any], meaning: str, *, secret: bool = False) -> Any:
    """Declare a field that is read from *variable*."""
    return field(repr=not secret, metadata={"setting": Setting(variable, default, read, meaning, secret)})


# -- how a text becomes a value; each raises ConfigurationError: field, value, what is wrong, the fix ---------------


def whole(least: int, most: int) -> Callable[[str, str], int]:
    """Read a whole number within bounds."""

    def read(variable: str, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ConfigurationError(f"{variable}: {text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read


def duration_ms(least: str, most: str) -> Callable[[str, str], int]:
    """Read a duration such as "90s"; a bare number is seconds."""

    def read(variable: str, text: str) -> int:
        ms = milliseconds(float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else text, variable)
        if not milliseconds(least, variable) <= ms <= milliseconds(most, variable):
            raise ConfigurationError(f"{variable}: {text!r} is out of bounds; choose {least} to {most}")
        return ms

    return read


def one_of(*words: str) -> Callable[[str, str], str]:
    """Read one of a few words, in any case."""

    def read(variable: str, text: str) -> str:
        if text.lower() not in words:
            raise ConfigurationError(f"{variable}: {text!r} is unknown; choose {', '.join(words)}")
        return text.lower()

    return read


def modules(variable: str, text: str) -> tuple[str, ...]:
    """Read dotted names separated by commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigurationError(f"{variable}: {name!r} is not the name of a package; write it like handlers")
    return names


def attribute(variable: str, text: str) -> tuple[str, str]:
    """Read `package.module:name`."""
    module, colon, name = text.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigurationError(
            f"{variable}: {text!r} is not package.module:name; write it like tradesense.views:cache"
        )
    return module, name


def database_url(variable: str, text: str) -> str:
    """Read the URL of a database, by its scheme only: whoever uses it knows the rest."""
    scheme = text.partition("://")[0].partition("+")[0] if "://" in text else ""
    if scheme not in {"postgres", "postgresql", "sqlite"}:
        raise ConfigurationError(
            f"{variable}: {scheme!r} is not a known form; use postgresql://user:password@host/name or sqlite:///file"
        )
    return text


def keys(_variable: str, text: str) -> tuple[str, ...]:
    """Read keys separated by commas; what they must be is told with the channels they are for."""
    return tuple(key.strip() for key in text.split(",") if key.strip())


def channels(variable: str, text: str) -> tuple[tuple[str, Policy], ...]:
    """Read `pattern=policy` separated by commas."""
    pairs = [pair.strip().rpartition("=") for pair in text.split(",") if pair.strip()]
    for pattern, _, policy in pairs:
        if not pattern or policy not in get_args(Policy):
            raise ConfigurationError(f"{variable}: write it like trade:*=require, with off, warn or require")
    return tuple((pattern, cast("Policy", policy)) for pattern, _, policy in pairs)


def text(_variable: str, text: str) -> str:
    """Take the value as it is."""
    return text


# -- the settings, by concern ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BusSettings:
    """How events are taken and kept."""

    shards: int = setting(
        "BUS_SHARDS", "1", whole(1, 64), "Streams that events are spread over by their key; order holds within each"
    )
    retention_ms: int = setting(
        "BUS_RETENTION", "1h", duration_ms("1s", "30d"), "How long handled events stay readable; unhandled ones stay"
    )
    signing_keys: tuple[str, ...] | None = setting(
        "BUS_SIGNING_KEYS", "", keys, "whsec_… keys, comma-separated; the first signs, all are accepted", secret=True
    )
    signed_channels: tuple[tuple[str, Policy], ...] | None = setting(
        "BUS_SIGNED_CHANNELS", "", channels, "Channels whose events must be signed, such as trade:*=require"
    )

    socketio_channel: str = setting(
        "SOCKETIO_CHANNEL", "", text, "Broadcasts also for Socket.IO's Redis managers, on this channel: socketio"
    )
    channels_prefix: str = setting(
        "CHANNELS_PREFIX", "", text, "Broadcasts also for Django Channels' pub/sub layer, with this prefix: asgi"
    )

    def signatures(self) -> Signatures | None:
        """Return how events are signed and checked, None where they are not. Raises: ConfigurationError."""
        if not self.signed_channels:
            return None
        return Signatures(self.signing_keys or (), dict(self.signed_channels))


@dataclass(frozen=True, slots=True)
class ApplicationSettings:
    """What is loaded, by name."""

    handlers: tuple[str, ...] = setting(
        "HANDLERS", "handlers", modules, "Packages, comma-separated, whose handlers say what an event does"
    )
    schedules: tuple[str, ...] = setting(
        "SCHEDULES", "schedules", modules, "Packages, comma-separated, whose jobs keep views warm"
    )
    cache: tuple[str, str] = setting(
        "CACHE", "tradesense.views:cache", attribute, "The cache that the application's views belong to"
    )
    outbox: tuple[str, str] | None = setting(
        "OUTBOX", "", attribute, "The outbox, package.module:name, whose events this worker publishes"
    )
    database_url: str | None = setting(
        "DATABASE_URL", "", database_url, "The application's database; without one, a local SQLite file", secret=True
    )


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """How the process itself behaves."""

    drain_ms: int = setting(
        "DRAIN_BUDGET", "8s", duration_ms("100ms", "10m"), "How long work under way may go on after SIGTERM"
    )
    data_dir: str = setting("DATA_DIR", ".data", text, "Folder of the heartbeat files that `check` reads")
    host: str | None = setting("HOST", "", text, "Address of the health pages; without one, all, IPv4 and IPv6")
    port: int | None = setting(
        "PORT", "", whole(1, 65535), "Port of /healthz, /readyz and /metrics; without one, no port is opened"
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is said, and how."""

    level: str = setting(
        "LOG_LEVEL", "info", one_of("debug", "info", "warning", "error"), "The least that is worth a line"
    )
    format: str = setting(
        "LOG_FORMAT", "auto", one_of("auto", "json", "console"), "auto: console on a terminal, JSON lines elsewhere"
    )


CACHE_VARIABLES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "REDIS_PRIVATE_URL": ("url", "", "The platform's internal address; preferred to REDIS_URL when set"),
        "REDIS_URL": ("url", "", "Redis or Valkey; without one the embedded server is started"),
        "STORE_REDIS_URL": ("store_url", "", "A second server for what must not be evicted: bus, locks, sessions"),
        "REDIS_ENABLED": ("redis_enabled", "true", "false: this process alone; nothing is shared, no events"),
        "CACHE_ENABLED": ("enabled", "true", "false: every read loads"),
        "CACHE_NAMESPACE": ("namespace", "cachebus", "First word of every name in Redis"),
        "CACHE_DEFAULT_TTL": ("default_ttl_ms", "5m", "TTL of a view that names none"),
        "CACHE_MAX_MEMORY_ENTRIES": ("max_memory_entries", "1000", "Entries kept in this process"),
        "CACHE_MAX_MEMORY_BYTES": ("max_memory_bytes", "", "Bytes kept in this process; without one, by count only"),
        "CACHE_MAX_STALENESS": ("max_staleness_ms", "30s", "How long memory may answer alone while Redis is away"),
        "CACHE_REPORT": ("report", "true", "false: the counters of this process do not go to the live page"),
    }
)
"""The library's variables: field of `CacheSettings`, default as one would write it, meaning."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the worker is told."""

    cache: CacheSettings = field(repr=False)
    bus: BusSettings
    application: ApplicationSettings
    process: ProcessSettings
    log: LogSettings
    written: Mapping[str, str] = field(repr=False)
    """The variables that were set, as they were written: with secrets."""
    unknown: tuple[str, ...]
    """Variables that look like a setting misspelt; worth a warning, not a refusal."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read every setting. Raises: CannotStart that lists every bad value with the fix."""
        problems: list[str] = []
        cache = CacheSettings()
        try:
            cache = CacheSettings.from_environment(environment)
        except ConfigurationError as several:
            problems += str(several).splitlines()
        settings = cls(
            cache,
            _section(BusSettings, environment, problems),
            _section(ApplicationSettings, environment, problems),
            _section(ProcessSettings, environment, problems),
            _section(LogSettings, environment, problems),
            _written(environment),
            tuple(_misspelt(environment)),
        )
        if cache.store_url is not None and cache.url is None:
            problems.append("STORE_REDIS_URL: is set but REDIS_URL is not; set REDIS_URL too, for the cached values")
        try:
            settings.bus.signatures()
        except ConfigurationError as problem:
            problems.append(f"BUS_SIGNING_KEYS, BUS_SIGNED_CHANNELS: {problem}")
        if problems:
            raise CannotStart(problems)
        return settings

    def masking(self) -> Masking:
        """Return what makes every secret of these settings unreadable in a text."""
        urls = (self.cache.url, self.cache.store_url, self.application.database_url)
        return Masking(urls, self.bus.signing_keys or ())


def declared() -> Iterator[Setting]:
    """Return the worker's own settings, in the order of the documentation."""
    for section in (BusSettings, ApplicationSettings, ProcessSettings, LogSettings):
        for each in fields(section):
            yield each.metadata["setting"]


def _section(section: type[Section], environment: Mapping[str, str], problems: list[str]) -> Section:
    values: dict[str, Any] = {}
    for each in fields(section):  # type: ignore[arg-type]  # every section is a dataclass
        setting: Setting = each.metadata["setting"]
        text = environment.get(setting.variable, "").strip()  # platforms pass an unset variable as an empty one
        try:
            values[each.name] = _value(setting, text)
        except ConfigurationError as problem:
            problems.append(str(problem))
            values[each.name] = _value(setting, "")
    return section(**values)


def _value(setting: Setting, text: str) -> Any:
    text = text or setting.default
    return setting.read(setting.variable, text) if text else None


def _known() -> list[str]:
    return [*CACHE_VARIABLES, *(setting.variable for setting in declared())]


def _written(environment: Mapping[str, str]) -> Mapping[str, str]:
    return {variable: environment[variable] for variable in _known() if environment.get(variable, "").strip()}


def _misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    known = _known()
    for variable in environment:
        if variable not in known and (close := difflib.get_close_matches(variable, known, n=1, cutoff=0.9)):
            yield f"{variable}: is not a setting; did you mean {close[0]}?"
