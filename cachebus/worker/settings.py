"""The worker's settings: those of the rooms it is made of, and the names of what the application declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Self

from cachebus.bus.settings import BusSettings
from cachebus.cache.settings import CacheSettings
from cachebus.environment import attribute, misspelt, modules, read, variable, variables
from cachebus.errors import CannotStart, ConfigurationError
from cachebus.monitoring.settings import AlertSettings, PageSettings
from cachebus.process.masking import Masking
from cachebus.process.settings import LogSettings, ProcessSettings


def _database_url(name: str, text: str) -> str:
    """Read the URL of a database, by its scheme only: whoever uses it knows the rest."""
    scheme = text.partition("://")[0].partition("+")[0] if "://" in text else ""
    if scheme not in {"postgres", "postgresql", "sqlite"}:
        raise ConfigurationError(
            f"{name}: {scheme!r} is not a known form; use postgresql://user:password@host/name or sqlite:///file"
        )
    return text


@dataclass(frozen=True, slots=True)
class ApplicationSettings:
    """What is loaded, by name."""

    cache: tuple[str, str] = variable(
        "CACHE", "views:cache", attribute, "The cache that the application's views belong to, package.module:name"
    )
    handlers: tuple[str, ...] = variable(
        "HANDLERS", "handlers", modules, "Modules or packages, comma-separated, whose handlers say what an event does"
    )
    schedules: tuple[str, ...] = variable(
        "SCHEDULES", "schedules", modules, "Modules or packages, comma-separated, whose jobs keep views warm"
    )
    outbox: tuple[str, str] | None = variable(
        "OUTBOX", "", attribute, "The outbox whose events this worker publishes, package.module:name"
    )
    ready_check: tuple[str, str] | None = variable(
        "READY_CHECK", "", attribute, "An async function, package.module:name, that raises while the database is down"
    )
    database_url: str | None = variable(
        "DATABASE_URL", "", _database_url, "The application's database, for the application to read", secret=True
    )


SECTIONS = (
    CacheSettings,
    BusSettings,
    ApplicationSettings,
    PageSettings,
    AlertSettings,
    ProcessSettings,
    LogSettings,
)


def every_section() -> tuple[type, ...]:
    """Return the gateway's section, too, for who looks at a whole deployment; not where its extra is not installed."""
    try:
        gateway = import_module("cachebus.gateway.settings")  # by name, as its command is
    except ModuleNotFoundError:
        return SECTIONS
    return (*SECTIONS, gateway.ClientSettings)


def _known(environment: Mapping[str, str]) -> tuple[type, ...]:
    """Return whose variables a worker knows: the gateway's, too, where it was given any. A worker imports no gateway
    for nothing: that takes a tenth of a second."""
    return every_section() if any(name.startswith("GATEWAY_") for name in environment) else SECTIONS


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything the worker reads from its environment."""

    cache: CacheSettings
    bus: BusSettings
    application: ApplicationSettings
    page: PageSettings
    alerts: AlertSettings
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
            bus=read(BusSettings, environment, problems),
            application=read(ApplicationSettings, environment, problems),
            page=read(PageSettings, environment, problems),
            alerts=read(AlertSettings, environment, problems),
            process=read(ProcessSettings, environment, problems),
            log=read(LogSettings, environment, problems),
            unknown=tuple(misspelt(environment, [each.name for each in variables(*_known(environment))])),
        )
        if problems:
            raise CannotStart(problems)
        return settings

    def masking(self) -> Masking:
        """Return what makes every secret of these settings unreadable in a text."""
        urls = (self.cache.url, self.cache.store_url, self.application.database_url, self.alerts.url)
        webhook = (self.alerts.url,) if self.alerts.url else ()
        return Masking(urls, (*(self.bus.signing_keys or ()), *webhook))
