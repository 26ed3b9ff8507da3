"""The gateway's settings, read from the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from cachebus.cache.settings import CacheSettings
from cachebus.environment import duration_ms, misspelt, read, text, variable, variables, whole, words
from cachebus.errors import CannotStart, ConfigurationError
from cachebus.gateway.admission import Origins
from cachebus.gateway.gateway import COOKIE, DRAIN_S
from cachebus.gateway.seats import USUAL, ConnectionLimits
from cachebus.gateway.topics import Rules
from cachebus.monitoring.settings import PageSettings
from cachebus.process.masking import Masking
from cachebus.process.settings import LogSettings, ProcessSettings

PORT = 8080


def _origins(name: str, text: str) -> tuple[str, ...]:
    try:
        Origins(words(name, text))
    except ConfigurationError as problem:
        raise ConfigurationError(f"{name}: {problem}") from None
    return words(name, text)


def _topics(name: str, text: str) -> tuple[str, ...]:
    try:
        Rules(words(name, text))
    except ConfigurationError as problem:
        raise ConfigurationError(f"{name}: {problem}") from None
    return words(name, text)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Who may connect, and what they may follow."""

    origins: tuple[str, ...] | None = variable(
        "GATEWAY_ORIGINS", "", _origins, "Other origins whose pages may connect, comma-separated"
    )
    public_topics: tuple[str, ...] | None = variable(
        "GATEWAY_PUBLIC_TOPICS", "", _topics, "Topics anybody may follow, comma-separated; * stands for one part"
    )
    cookie: str = variable("GATEWAY_COOKIE", COOKIE, text, "The session cookie")
    most_clients: int = variable(
        "GATEWAY_MAX_CLIENTS", str(USUAL.in_all), whole(1, 1_000_000), "Connections in all; one more is answered 503"
    )
    most_per_user: int = variable(
        "GATEWAY_MAX_PER_USER", str(USUAL.per_user), whole(1, 1_000_000), "Connections of one user"
    )
    most_per_address: int = variable(
        "GATEWAY_MAX_PER_ADDRESS",
        str(USUAL.per_address),
        whole(1, 1_000_000),
        "Connections from one public address",
    )
    proxies: int = variable(
        "GATEWAY_PROXIES", "0", whole(0, 10), "Proxies of yours that each request passes, for the address of a client"
    )
    drain_ms: int = variable(
        "GATEWAY_DRAIN", f"{DRAIN_S:g}s", duration_ms(), "Over how long clients are sent elsewhere at the end"
    )

    def limits(self) -> ConnectionLimits:
        """Return how many connections there may be."""
        return ConnectionLimits(self.most_clients, self.most_per_user, self.most_per_address, self.proxies)


SECTIONS = (CacheSettings, ClientSettings, PageSettings, ProcessSettings, LogSettings)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything the gateway reads from its environment."""

    cache: CacheSettings
    clients: ClientSettings
    page: PageSettings
    process: ProcessSettings
    log: LogSettings
    unknown: tuple[str, ...]
    """A warning for each variable that looks like a setting misspelt."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read every setting. Raises: CannotStart that lists every bad value with the fix."""
        problems: list[str] = []
        settings = cls(
            cache=read(CacheSettings, environment, problems),
            clients=read(ClientSettings, environment, problems),
            page=read(PageSettings, environment, problems),
            process=read(ProcessSettings, environment, problems),
            log=read(LogSettings, environment, problems),
            unknown=tuple(misspelt(environment, [each.name for each in variables(*SECTIONS)])),
        )
        problems += settings.problems()
        if problems:
            raise CannotStart(problems)
        return settings

    def problems(self) -> Iterator[str]:
        """Yield what these values cannot be together."""
        if not self.cache.redis_enabled:
            yield "REDIS_ENABLED: is false, and without Redis there is nothing to pass on"

    def masking(self) -> Masking:
        """Return what hides the passwords of these settings in a text."""
        return Masking((self.cache.url, self.cache.store_url))

    @property
    def port(self) -> int:
        """Where to listen."""
        return self.process.port or PORT

    @property
    def host(self) -> str:
        """Where to listen: a platform that sets PORT comes from outside; a developer's browser is on this machine."""
        return self.process.host or ("127.0.0.1" if self.process.port is None else "0.0.0.0")  # noqa: S104
