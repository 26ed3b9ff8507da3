"""Schedules: what runs, and when. `@every`, `@cron` and `@daily` make jobs; that line is the whole policy. Pure.

A fire time is a moment of the UTC epoch that every worker computes alike: `@every("90s")` fires at multiples of 90 s,
not 90 s after some process started. Who may run it is decided elsewhere (`scheduler.py`), once per fire time.
"""

from __future__ import annotations

import datetime
import inspect
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError

Misfire = Literal["skip", "once"]
OnDeath = Literal["rerun", "skip"]

MAX_RUN = "10m"
"""A run that takes longer is cancelled; it would otherwise hold its job for ever."""
LATE_MS = 30_000
"""A fire time this long past is a misfire: no worker was there to take it."""
LOOK_BACK_S = (60, 600, 3_600, 86_400, 8 * 86_400, 32 * 86_400, 367 * 86_400)
"""How far back the newest past fire time of a cron expression is searched, step by step."""

_US = 1_000_000


class Times(Protocol):
    """When a job fires. Microseconds of the UTC epoch."""

    def last(self, now_us: int) -> int | None:
        """Return the newest fire time at or before *now_us*."""
        ...

    def next(self, now_us: int) -> int | None:
        """Return the first fire time after *now_us*."""
        ...


@dataclass(frozen=True, slots=True)
class Slots:
    """Every so often: multiples of the interval since 1970."""

    interval_us: int

    def last(self, now_us: int) -> int:
        """Return the slot we are in."""
        return now_us - now_us % self.interval_us

    def next(self, now_us: int) -> int:
        """Return the next slot."""
        return self.last(now_us) + self.interval_us


class Calendar:
    """A cron expression in a time zone.

    A local time that a change of clocks skips fires right after the gap. One that comes twice fires at its first
    coming, unless the expression means every hour.
    """

    def __init__(self, expression: str, zone: str) -> None:
        self._zone = ZoneInfo(zone)
        self._every_hour = expression.split()[1:2] == ["*"] or "*/" in "".join(expression.split()[1:2])
        self._trigger = CronTrigger.from_crontab(expression, timezone=self._zone)

    def last(self, now_us: int) -> int | None:
        """Return the newest fire time at or before *now_us*, at most a year back."""
        for back_s in LOOK_BACK_S:
            fire = self.next(now_us - back_s * _US - 1)
            if fire is None or fire > now_us:
                continue
            while (later := self.next(fire)) is not None and later <= now_us:
                fire = later
            return fire
        return None

    def next(self, now_us: int) -> int | None:
        """Return the first fire time after *now_us*."""
        second: int = now_us // _US + 1
        while fire := self._trigger.get_next_fire_time(None, datetime.datetime.fromtimestamp(second, self._zone)):
            second = round(fire.timestamp())
            if not fire.fold or self._every_hour:
                return second * _US
            second += 1
        return None


@dataclass(frozen=True, slots=True)
class Job:
    """A function with its times and its policy. Calling it calls the function."""

    name: str
    function: Callable[..., Awaitable[Any]]
    times: Times
    description: str
    """When it fires, as written."""
    jitter_ms: int
    misfire: Misfire
    on_death: OnDeath
    max_run_ms: int
    wants_warm: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def delay_ms(self, fire_us: int) -> int:
        """Return how long the winner waits after *fire_us*: the same in every worker, spread over `jitter_ms`."""
        return zlib.crc32(f"{self.name}@{fire_us}".encode()) % self.jitter_ms if self.jitter_ms else 0


def every(
    interval: Duration,
    *,
    jitter: Duration | None = None,
    misfire: Misfire = "skip",
    on_death: OnDeath = "rerun",
    max_run: Duration = MAX_RUN,
    name: str | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], Job]:
    """Run a coroutine function each *interval*, in one worker at a time, started exactly once per slot.

    jitter: spread the start over this long. misfire: what becomes of slots while no worker was there: `skip` them, or
    run `once` for the newest. on_death: a run whose worker died is started once more, or not. max_run: cancel it then.
    The function takes nothing, or a `Warm` in a parameter called `warm`.

    Raises: ConfigurationError naming what cannot work.
    """
    times = Slots(milliseconds(interval, "every") * 1000)
    return _job(times, f"every {interval}", _Options(jitter, misfire, on_death, max_run, name))


def cron(  # noqa: PLR0913 - the decorator line is the whole policy
    expression: str,
    *,
    zone: str = "UTC",
    jitter: Duration | None = None,
    misfire: Misfire = "skip",
    on_death: OnDeath = "rerun",
    max_run: Duration = MAX_RUN,
    name: str | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], Job]:
    """Run a coroutine function at the times of a crontab *expression* (`*/5 9-16 * * mon-fri`) in *zone*.

    Options and errors: as `every`.
    """
    try:
        times = Calendar(expression, zone)
    except (ZoneInfoNotFoundError, ValueError) as bad:
        what = "zone" if isinstance(bad, ZoneInfoNotFoundError) else "cron"
        raise ConfigurationError(f"{what}: {zone if what == 'zone' else expression!r}: {bad}") from None
    return _job(times, f"cron {expression} {zone}", _Options(jitter, misfire, on_death, max_run, name))


def daily(  # noqa: PLR0913 - the decorator line is the whole policy
    time: str,
    *,
    zone: str = "UTC",
    jitter: Duration | None = None,
    misfire: Misfire = "once",
    on_death: OnDeath = "rerun",
    max_run: Duration = MAX_RUN,
    name: str | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], Job]:
    """Run a coroutine function each day at *time* ("06:30") of *zone*. Options and errors: as `every`."""
    hour, _, minute = time.partition(":")
    if not (hour.isdigit() and minute.isdigit()):
        raise ConfigurationError(f'daily: {time!r} is not a time of day; write it as "06:30"')
    return cron(
        f"{int(minute)} {int(hour)} * * *",
        zone=zone,
        jitter=jitter,
        misfire=misfire,
        on_death=on_death,
        max_run=max_run,
        name=name,
    )


class _Options(NamedTuple):
    """What the three decorators have in common."""

    jitter: Duration | None
    misfire: Misfire
    on_death: OnDeath
    max_run: Duration
    name: str | None


def _job(times: Times, description: str, options: _Options) -> Callable[[Callable[..., Awaitable[Any]]], Job]:
    jitter, misfire, on_death, max_run, name = options

    def decorate(function: Callable[..., Awaitable[Any]]) -> Job:
        title = name or f"{function.__module__}.{function.__qualname__}"
        what = f"job {title!r}"
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{what}: must be `async def`")
        parameters = set(inspect.signature(function).parameters)
        if parameters - {"warm"}:
            raise ConfigurationError(f"{what}: takes nothing, or one parameter called `warm`, not {sorted(parameters)}")
        if misfire not in ("skip", "once"):
            raise ConfigurationError(f"{what}: misfire {misfire!r} is neither 'skip' nor 'once'")
        if on_death not in ("rerun", "skip"):
            raise ConfigurationError(f"{what}: on_death {on_death!r} is neither 'rerun' nor 'skip'")
        jitter_ms = 0 if jitter is None else milliseconds(jitter, f"{what}: jitter")
        if isinstance(times, Slots) and jitter_ms * 1000 >= times.interval_us:
            raise ConfigurationError(f"{what}: jitter {jitter!r} must be shorter than the interval")
        max_run_ms = milliseconds(max_run, f"{what}: max_run")
        return Job(title, function, times, description, jitter_ms, misfire, on_death, max_run_ms, "warm" in parameters)

    return decorate


def find_jobs(modules: Iterable[ModuleType]) -> tuple[Job, ...]:
    """Return the jobs that *modules* hold, in the order they are written; one imported twice counts once.

    Raises: ConfigurationError when two jobs have one name.
    """
    found: dict[str, Job] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Job) and found.setdefault(value.name, value) is not value:
                raise ConfigurationError(f"two jobs are called {value.name!r}; give one of them name=")
    return tuple(found.values())
