"""Failed loads whose callers are served an older value: when each may be tried again. Pure: `now` is an argument.

Without it every read of such a key would run the load again, or wait for it to fail.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

FIRST_S = 1.0
LONGEST_S = 30.0
"""The pause doubles with each failure in a row, up to this."""
JITTER = 0.5
"""Half of each pause is random: processes that failed together do not try again together."""
MOST_KEYS = 10_000
"""Failing keys remembered; the oldest make room."""


@dataclass(slots=True)
class Failing:
    """A key whose load failed the last time."""

    view: int
    failures: int
    until: float
    """When the next attempt may begin, seconds."""
    forget_at: float
    """When no older value is left that could be served."""


class Backoff:
    """The failing keys of one process, by entry."""

    def __init__(self) -> None:
        self._failing: dict[str, Failing] = {}
        self._views: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._failing)

    def pauses(self, entry: str, now: float) -> bool:
        """Return whether it is too early to try *entry* again."""
        failing = self._failing.get(entry)
        return failing is not None and now < failing.until

    def failed(self, entry: str, view: int, now: float, *, window_s: float, draw: float) -> bool:
        """Begin a pause, not longer than *window_s*, for which an older value can be served; *draw* in (0, 1].

        Returns whether it is the first failing key of *view*.
        """
        before = self._failing.pop(entry, None)
        failures = before.failures + 1 if before is not None else 1
        pause_s = min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 16)) * (1 - JITTER * draw)
        self._failing[entry] = Failing(view, failures, now + min(pause_s, window_s), now + window_s)
        if before is not None:
            return False
        self._views[view] += 1
        if len(self._failing) > MOST_KEYS:
            self._drop(next(iter(self._failing)))
        return self._views[view] == 1

    def succeeded(self, entry: str) -> int:
        """Forget the failures of *entry*. Returns how many there were if no other key of its view fails, else 0."""
        failing = self._failing.get(entry)
        if failing is None:
            return 0
        self._drop(entry)
        return 0 if self._views[failing.view] else failing.failures

    def sweep(self, now: float) -> None:
        """Forget keys that have no older value left."""
        for entry in [entry for entry, failing in self._failing.items() if failing.forget_at <= now]:
            self._drop(entry)

    def _drop(self, entry: str) -> None:
        view = self._failing.pop(entry).view
        self._views[view] -= 1
        if not self._views[view]:
            del self._views[view]
