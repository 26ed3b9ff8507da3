"""Time that jumps on command."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import cachebus.clock
from cachebus.durations import Duration, milliseconds


class FakeClock:
    """The clock by which entries of this process age: it runs as always, and `advance` makes it jump.

    `with FakeClock() as clock: … clock.advance("1m")`. Made for caches in memory. A server does not follow: what it
    holds counts as that much older here, also what was written since, and is loaded again. Nothing that waits is woken:
    not a timeout, not a schedule. A TTL ends up to a tenth early at random, as it does without a fake clock.
    """

    def __init__(self) -> None:
        self.ahead_s = 0.0
        """How far it has been advanced."""
        self._real = cachebus.clock._clock  # noqa: SLF001 - the one place from which all parts of the library have their time

    def advance(self, by: Duration) -> None:
        """Make it later. Raises: ConfigurationError for what is no duration."""
        self.ahead_s += milliseconds(by, "advance") / 1000

    def now_s(self) -> float:
        """Return seconds."""
        return self._real() + self.ahead_s

    def __enter__(self) -> Self:
        self._real, cachebus.clock._clock = cachebus.clock._clock, self.now_s  # noqa: SLF001 - the same
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        cachebus.clock._clock = self._real  # noqa: SLF001 - the same
