"""The cache's settings: built once, from code or from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from cachebus.environment import (
    Variable,
    amount,
    attribute,
    duration_ms,
    flag,
    misspelt,
    one_of,
    read,
    variable,
    variables,
    warn_once,
    whole,
    words,
)
from cachebus.errors import CannotStart, ConfigurationError
from cachebus.redis.address import Address
from cachebus.redis.credentials import Credentials, Provider, named
from cachebus.redis.keyspace import Names


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


_PRIVATE = Variable(
    "REDIS_PRIVATE_URL", "", _url, "The platform's internal address; preferred to REDIS_URL when set", secret=True
)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How a process caches. `url` None with `redis_enabled` means: start, or share, the embedded server."""

    url: str | None = variable(
        "REDIS_URL", "", _url, "Redis or Valkey; without it the embedded server", secret=True, preferred=_PRIVATE
    )
    store_url: str | None = variable(
        "STORE_REDIS_URL", "", _url, "A second server for what must not be evicted: bus, locks, sessions", secret=True
    )
    credentials: tuple[str, str] | Provider | None = variable(  # noqa: RUF009 - as every other field here
        "REDIS_CREDENTIALS",
        "",
        attribute,
        "An async function, package.module:name, that returns (user, password, expires_at)",
    )
    redis_enabled: bool = variable("REDIS_ENABLED", "true", flag, "false: this process alone; nothing is shared")
    enabled: bool = variable("CACHE_ENABLED", "true", flag, "false: every read loads")
    namespace: str = variable("CACHE_NAMESPACE", "cachebus", _namespace, "First word of every name in Redis")
    default_ttl_ms: int = variable("CACHE_DEFAULT_TTL", "5m", duration_ms(), "TTL of a view that names none")
    max_memory_entries: int = variable("CACHE_MAX_MEMORY_ENTRIES", "1000", whole(0), "Entries kept in this process")
    max_memory_bytes: int | None = variable(
        "CACHE_MAX_MEMORY_BYTES", "", whole(0), "Bytes kept in this process; without it, by count only"
    )
    max_staleness_ms: int = variable(
        "CACHE_MAX_STALENESS", "30s", duration_ms("0s"), "How long memory may answer alone while Redis is unavailable"
    )
    trust_restarts: bool = variable(
        "CACHE_TRUST_RESTARTS",
        "false",
        flag,
        "true: a restarted or promoted server lacks no write (`appendfsync always`, WAIT), so the cache stays warm",
    )
    max_lag_ms: int = variable(
        "CACHE_MAX_LAG", "250ms", duration_ms(), "How far behind the journal this process may be before reads ask Redis"
    )
    ledger_scopes: int | None = variable(
        "CACHE_LEDGER_SCOPES",
        "",
        whole(1000),
        "Invalidated keys and tags that Redis remembers, 100 bytes each; entries older than the oldest load again;"
        " without it 200,000, or what another process has set",
    )
    consistency_sample: int = variable(
        "CACHE_CONSISTENCY_SAMPLE", "0", whole(0), "Compare one in this many memory hits with its source; 0: none"
    )
    predict: str = variable(
        "CACHE_PREDICT",
        "live",
        one_of("off", "shadow", "live"),
        "Loads ahead of views with `predict=True`; shadow: only counted how good they would be",
    )
    predict_waste: float = variable(
        "CACHE_PREDICT_WASTE", "0.1", amount(0, 1), "Loads ahead that nobody reads: as a share of the loads waited for"
    )
    predict_price: float = variable(
        "CACHE_PREDICT_PRICE", "1.0", amount(0, 100), "What 1 ms of the database is worth, in ms of a user's wait"
    )
    never: tuple[str, ...] | None = variable(
        "NEVER_CACHE",
        "",
        words,
        "Names that are never stored, beside credentials; -name allows one, -* all",
    )
    quiet: bool = variable(
        "CACHE_QUIET", "false", flag, "true: a process that reads nothing sends nothing, for servers billed by command"
    )
    report: bool = variable(
        "CACHE_REPORT", "true", flag, "false: the counters of this process do not go to the live page"
    )

    @classmethod
    def written(cls, url: str | None, credentials: Provider | None) -> Self | None:
        """Return the settings of `Cache(url, credentials=…)`, None without a URL. Raises: ConfigurationError."""
        if not isinstance(url, str | None):  # what it is may hold a password
            raise ConfigurationError(
                f'url: a {type(url).__name__} is no text; write Cache("redis://…") or Cache(settings=…)'
            )
        if credentials is not None and (url is None or not callable(credentials)):
            raise ConfigurationError(
                f"credentials: {credentials!r} must be an async function, beside a URL: Cache(url, credentials=token)"
            )
        return None if url is None else cls(url=url, credentials=credentials)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read `REDIS_PRIVATE_URL` (preferred), `REDIS_URL`, `STORE_REDIS_URL`, `REDIS_ENABLED` and `CACHE_*`.

        Raises: CannotStart that lists every bad value with the fix.
        """
        problems: list[str] = []
        settings = read(cls, environment, problems)
        if problems:
            raise CannotStart(problems)
        return settings

    @classmethod
    def of_this_process(cls) -> Self:
        """Read them from this process's environment, and log which variables look misspelt. Raises: CannotStart."""
        settings = cls.from_environment(os.environ)
        for warning in misspelt(os.environ, [each.name for each in variables(cls)]):
            warn_once(warning)
        return settings

    def credentials_source(self) -> Credentials | None:
        """Return what answers for user and password, None where the URLs do. Raises: ConfigurationError."""
        if self.credentials is None or callable(self.credentials):
            return None if self.credentials is None else Credentials(self.credentials)
        return named(self.credentials)

    def problems(self) -> Iterator[str]:
        """Yield what these values cannot be together."""
        if self.store_url is not None and self.url is None:
            yield "STORE_REDIS_URL: is set but REDIS_URL is not; set REDIS_URL too, for the cached values"
        if self.credentials is not None and self.url is None:
            yield "REDIS_CREDENTIALS: is set but REDIS_URL is not; set REDIS_URL too, without a password"
