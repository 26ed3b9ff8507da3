"""What the gateway is told by its environment: read once, every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cachebus import CacheSettings, ConfigurationError
from cachebus.durations import milliseconds
from gateway.admission import Origins
from gateway.live import COOKIE, DRAIN_S, MOST_CLIENTS
from gateway.topics import Rules

T = TypeVar("T")

PORT = 8080


class CannotStart(ConfigurationError):
    """One line for each problem: variable, value, what is wrong."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the gateway is told."""

    cache: CacheSettings = field(repr=False)
    host: str
    port: int
    origins: tuple[str, ...]
    public_topics: tuple[str, ...]
    cookie: str
    most_clients: int
    drain_s: float

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read `REDIS_*`, `CACHE_*`, `HOST`, `PORT`, `GATEWAY_*`. Raises: CannotStart that lists every bad value."""
        problems: list[str] = []

        def read(variable: str, parse: Callable[[str], T], default: T) -> T:
            text = environment.get(variable, "").strip()  # platforms pass an unset variable as an empty one
            try:
                return parse(text) if text else default
            except ConfigurationError as problem:
                problems.append(f"{variable}: {problem}")
                return default

        cache = CacheSettings()
        try:
            cache = CacheSettings.from_environment(environment)
        except ConfigurationError as several:
            problems += str(several).splitlines()
        settings = cls(
            cache=cache,
            # A platform that gives a port wants to be reached there; otherwise this is somebody's own machine.
            host=read("HOST", str, "0.0.0.0" if environment.get("PORT") else "127.0.0.1"),  # noqa: S104
            port=read("PORT", _whole(1, 65535), PORT),
            origins=read("GATEWAY_ORIGINS", _origins, ()),
            public_topics=read("GATEWAY_PUBLIC_TOPICS", _topics, ("market:*",)),
            cookie=read("GATEWAY_COOKIE", str, COOKIE),
            most_clients=read("GATEWAY_MAX_CLIENTS", _whole(1, 1_000_000), MOST_CLIENTS),
            drain_s=read("GATEWAY_DRAIN", _seconds, DRAIN_S),
        )
        if not cache.redis_enabled:
            problems.append("REDIS_ENABLED: is false, and without Redis there is nothing to pass on")
        if problems:
            raise CannotStart("\n".join(problems))
        return settings


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _origins(text: str) -> tuple[str, ...]:
    Origins(_words(text))
    return _words(text)


def _topics(text: str) -> tuple[str, ...]:
    Rules(_words(text))
    return _words(text)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ConfigurationError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    return milliseconds(float(text) if text.replace(".", "", 1).isdigit() else text, "duration") / 1000
