"""The cache's settings from the environment: built once, every problem listed at once, secrets never shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cachebus.durations import milliseconds
from cachebus.errors import ConfigurationError
from cachebus.names import Names
from cachebus.wire import Address

T = TypeVar("T")

DEFAULT_TTL = "5m"
"""`CACHE_DEFAULT_TTL`'s default, the specification's."""
DEFAULT_ENTRIES = 1000
"""`CACHE_MAX_MEMORY_ENTRIES`' default, the specification's."""
DEFAULT_STALENESS = "30s"
"""`CACHE_MAX_STALENESS`' default: how long memory may answer alone while Redis is away."""

_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How a process caches. `url` None with `redis_enabled` means: start, or share, the embedded server."""

    url: str | None = None
    store_url: str | None = None
    namespace: str = "cachebus"
    enabled: bool = True
    redis_enabled: bool = True
    default_ttl_ms: int = 300_000
    max_memory_entries: int = DEFAULT_ENTRIES
    max_memory_bytes: int | None = None
    max_staleness_ms: int = 30_000
    consistency_sample: int = 0
    """Compare one in so many memory hits with the source; 0: never. Each costs a load."""
    report: bool = True
    """Add this process's counters to the history that the live page shows: one command in ten seconds."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> CacheSettings:
        """Read `REDIS_PRIVATE_URL` (preferred), `REDIS_URL`, `STORE_REDIS_URL`, `CACHE_*` and `REDIS_ENABLED`.

        Raises: ConfigurationError that lists every bad value with the fix.
        """
        problems: list[str] = []

        def read(name: str, parse: Callable[[str, str], T], default: T) -> T:
            text = environment.get(name, "").strip()
            if not text:
                return default
            try:
                return parse(name, text)
            except ConfigurationError as problem:
                problems.append(str(problem))
                return default

        url = read("REDIS_PRIVATE_URL", _url, None) or read("REDIS_URL", _url, None)
        settings = cls(
            url=url,
            store_url=read("STORE_REDIS_URL", _url, None),
            namespace=read("CACHE_NAMESPACE", _namespace, "cachebus"),
            enabled=read("CACHE_ENABLED", _flag, default=True),
            redis_enabled=read("REDIS_ENABLED", _flag, default=True),
            default_ttl_ms=read("CACHE_DEFAULT_TTL", _duration_ms, milliseconds(DEFAULT_TTL, "CACHE_DEFAULT_TTL")),
            max_memory_entries=read("CACHE_MAX_MEMORY_ENTRIES", _count, DEFAULT_ENTRIES),
            max_memory_bytes=read("CACHE_MAX_MEMORY_BYTES", _count, None),
            max_staleness_ms=read("CACHE_MAX_STALENESS", _staleness_ms, 30_000),
            consistency_sample=read("CACHE_CONSISTENCY_SAMPLE", _count, 0),
            report=read("CACHE_REPORT", _flag, default=True),
        )
        if problems:
            raise ConfigurationError("\n".join(problems))
        return settings


def _url(name: str, text: str) -> str:
    try:
        Address(text)
    except ConfigurationError as problem:
        raise ConfigurationError(str(problem).replace("REDIS_URL", name, 1)) from None
    return text


def _namespace(name: str, text: str) -> str:
    try:
        return Names(text).namespace
    except ConfigurationError as problem:
        raise ConfigurationError(str(problem).replace("namespace", name, 1)) from None


def _flag(name: str, text: str) -> bool:
    if text.lower() in _YES | _NO:
        return text.lower() in _YES
    raise ConfigurationError(f"{name}: {text!r} is neither yes nor no; write true or false")


def _seconds(text: str) -> str | float:
    """A bare number in an environment variable is seconds, as the specification writes it."""
    return float(text) if text.replace(".", "", 1).isdigit() else text


def _duration_ms(name: str, text: str) -> int:
    return milliseconds(_seconds(text), name)


def _staleness_ms(name: str, text: str) -> int:
    return 0 if text.strip("0.s") == "" else milliseconds(_seconds(text), name)


def _count(name: str, text: str) -> int:
    if not text.isdigit():
        raise ConfigurationError(f"{name}: {text!r} is not a whole number of 0 or more")
    return int(text)
