"""Schedules: what runs, and when. `@every`, `@cron` and `@daily` make jobs; that line is the whole policy. Pure.

A fire time is a moment that every worker computes alike (`firetimes.py`). Who may run it is decided elsewhere
(`scheduler.py`), once per fire time. There is no registry: the worker looks for `Job` objects in modules.
"""

from __future__ import annotations

import inspect
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.schedules.fire_times import Calendar, Slots, Times

Misfire = Literal["skip", "once"]
OnDeath = Literal["rerun", "skip"]
Function = Callable[..., Awaitable[Any]]

LONGEST_RUN_MS = 600_000
"""A run without `max_run` is cancelled after this, or before its next fire time where that comes earlier."""
SHORTEST_INTERVAL_MS = 1_000
"""More often than this is a loop of its own, not a schedule."""
LATE_MS = 30_000
"""A fire time this long past is a misfire: no worker was there to take it."""

_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Job:
    """A function with its times and its policy. Calling it calls the function."""

    name: str
    function: Function
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

    @property
    def late_ms(self) -> int:
        """How long after a fire time it may be claimed without counting as missed."""
        return LATE_MS + self.jitter_ms

    @property
    def most_starts(self) -> int:
        """How often one fire time may be started: again after a death, or not."""
        return 2 if self.on_death == "rerun" else 1


def every(
    interval: Duration,
    *,
    jitter: Duration | None = None,
    misfire: Misfire = "skip",
    on_death: OnDeath = "rerun",
    max_run: Duration | None = None,
    name: str | None = None,
) -> Callable[[Function], Job]:
    """Run a coroutine function each *interval*, in one worker at a time, started exactly once per slot.

    Slots are multiples of the interval since 1970: `@every("90s")` does not depend on when a worker started.

    jitter: the winner waits up to this long, as long for the same slot in every worker.
    misfire: fire times of a downtime are passed over (`skip`), or the newest of them is run (`once`); a job that is new
    makes up for nothing.
    on_death: a run whose worker died is started once more (`rerun`), or not (`skip`).
    max_run: a run is cancelled after this; without it before the next fire time, after ten minutes at most.
    name: what people call the job; without it `module.function`.
    The function takes nothing, or a `Warm` in a parameter called `warm`.

    Raises: ConfigurationError that lists everything that cannot work.
    """

    def slots() -> Slots:
        interval_ms = milliseconds(interval, "every")
        if interval_ms < SHORTEST_INTERVAL_MS:
            raise ConfigurationError(f"every: {interval!r} is shorter than a second; for that write a loop of your own")
        return Slots(interval_ms * 1000)

    _refuse_bare(interval, '@every("5m")')
    return _decorator(slots, f"every {interval}", _Options(jitter, misfire, on_death, max_run, name))


def cron(  # noqa: PLR0913 - the decorator line is the whole policy
    expression: str,
    *,
    zone: str = "UTC",
    jitter: Duration | None = None,
    misfire: Misfire = "skip",
    on_death: OnDeath = "rerun",
    max_run: Duration | None = None,
    name: str | None = None,
) -> Callable[[Function], Job]:
    """Run a coroutine function at the times of a crontab *expression* (`*/5 9-16 * * mon-fri`) in *zone*.

    What becomes of a time that a change of clocks skips or doubles: see `Calendar`. Options and errors: as `every`.
    """
    _refuse_bare(expression, '@cron("*/5 * * * *")')
    options = _Options(jitter, misfire, on_death, max_run, name)
    return _decorator(lambda: Calendar(expression, zone), f"cron {expression} {zone}", options)


def daily(  # noqa: PLR0913 - the decorator line is the whole policy
    time: str,
    *,
    zone: str = "UTC",
    jitter: Duration | None = None,
    misfire: Misfire = "once",
    on_death: OnDeath = "rerun",
    max_run: Duration | None = None,
    name: str | None = None,
) -> Callable[[Function], Job]:
    """Run a coroutine function each day at *time* ("06:30") of *zone*, later that day if no worker was there then.

    Once on every day, also when the clocks change. Options and errors: as `every`.
    """

    def calendar() -> Calendar:
        read = _TIME_OF_DAY.fullmatch(str(time))
        if read is None:
            raise ConfigurationError(
                f'daily: {time!r} is not a time of day; hours are 00 to 23, minutes 00 to 59, write it as "06:30"'
            )
        return Calendar(f"{int(read[2])} {int(read[1])} * * *", zone)

    _refuse_bare(time, '@daily("06:30")')
    options = _Options(jitter, misfire, on_death, max_run, name)
    return _decorator(calendar, f"daily {time} {zone}", options)


class _Options(NamedTuple):
    """What the three decorators have in common."""

    jitter: Duration | None
    misfire: Misfire
    on_death: OnDeath
    max_run: Duration | None
    name: str | None


def _refuse_bare(argument: object, written: str) -> None:
    """Refuse `@every` without parentheses, which gets the function instead of its argument."""
    if callable(argument):
        name = f"{argument.__module__}.{getattr(argument, '__qualname__', argument)}"
        raise ConfigurationError(f"job {name!r}: the decorator says no time; write {written}")


def _decorator(make_times: Callable[[], Times], description: str, options: _Options) -> Callable[[Function], Job]:
    def decorate(function: Function) -> Job:
        if not callable(function):
            raise ConfigurationError(f"{description}: a schedule decorates a function, not {function!r}")
        name = options.name or f"{function.__module__}.{function.__qualname__}"
        try:
            times = make_times()
        except ConfigurationError as bad:
            raise ConfigurationError(f"job {name!r}: {bad}") from None
        shortest_ms = times.shortest_us // 1000
        jitter_ms = 0 if options.jitter is None else milliseconds(options.jitter, f"job {name!r}: jitter")
        longest_ms = max(1, min(LONGEST_RUN_MS, (shortest_ms - jitter_ms) * 9 // 10))
        max_run_ms = longest_ms if options.max_run is None else milliseconds(options.max_run, f"job {name!r}: max_run")
        problems = [*_problems_of(function), *_problems_with(options, jitter_ms, max_run_ms, shortest_ms)]
        if problems:
            raise ConfigurationError(f"job {name!r}: " + "; ".join(problems))
        wants_warm = "warm" in inspect.signature(function).parameters
        return Job(
            name, function, times, description, jitter_ms, options.misfire, options.on_death, max_run_ms, wants_warm
        )

    return decorate


def _problems_of(function: Function) -> Iterator[str]:
    if not inspect.iscoroutinefunction(function):
        yield "must be `async def`"
    parameters = set(inspect.signature(function).parameters)
    if parameters - {"warm"}:
        yield f"takes nothing, or one parameter called `warm`, not {sorted(parameters)}"


def _problems_with(options: _Options, jitter_ms: int, max_run_ms: int, shortest_ms: int) -> Iterator[str]:
    if options.misfire not in ("skip", "once"):
        yield f"misfire {options.misfire!r} is neither 'skip' nor 'once'"
    if options.on_death not in ("rerun", "skip"):
        yield f"on_death {options.on_death!r} is neither 'rerun' nor 'skip'"
    if jitter_ms >= shortest_ms:
        yield f"jitter {options.jitter!r} is not shorter than the {shortest_ms / 1000:g} s between two fire times"
    elif jitter_ms + max_run_ms > shortest_ms:
        yield (
            f"max_run {options.max_run!r}, after the jitter, is longer than the {shortest_ms / 1000:g} s "
            "between two fire times: it would refuse its own next run"
        )
