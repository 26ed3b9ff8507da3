"""What the processes of `make run` have said so far, added up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

WINDOW = 500
"""How many of the last events latencies are of."""


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the value below which *share* of them lie; None where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


@dataclass
class Figures:
    """Everything the processes have said."""

    apps: dict[str, dict[str, Any]] = field(default_factory=dict)
    fresh: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    elsewhere: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    broadcasts: int = 0
    holes: int = 0
    unsent: int = 0
    """Events that were still in the outbox when last looked at."""
    dead_before: int = 0
    """Dead letters that lay there when we began."""
    stats: Any = None
    now_us: int = 0
    began: float = field(default_factory=time.monotonic)
    _before: tuple[float, int, int] = (0.0, 0, 0)
    _rates: tuple[float, float] = (0.0, 0.0)

    def hear(self, said: dict[str, Any]) -> None:
        """Take note of one line of an application."""
        self.fresh.extend(said.pop("fresh_ms"))
        self.elsewhere.extend(said.pop("elsewhere_ms"))
        self.apps[said["app"]] = said

    def hear_listener(self, said: dict[str, Any]) -> None:
        """Take note of one line of the listener."""
        self.broadcasts, self.holes = said["broadcasts"], said["holes"]

    def total(self, what: str) -> int:
        """Return a count over all applications."""
        return sum(app.get(what) or 0 for app in self.apps.values())

    @property
    def published(self) -> int:
        """Events of all kinds that the applications caused."""
        return self.total("published") + self.total("plain") + self.total("outbox")

    @property
    def hit_rate(self) -> float:
        """Share of reads answered without a load."""
        hits, loads = self.total("l1") + self.total("l2"), self.total("loads")
        return hits / (hits + loads) if hits + loads else 0.0

    @property
    def waiting(self) -> int | None:
        """Events that no worker has handled yet; None before the first look."""
        return None if self.stats is None else sum(shard.waiting for shard in self.stats.backlog.shards)

    @property
    def dead_letters(self) -> int | None:
        """Dead letters since we began; None before the first look."""
        return None if self.stats is None else self.stats.backlog.dead_letters - self.dead_before

    def share(self, of: str) -> float:
        """Return which share of the reads memory (`l1`), Redis (`l2`) or a load answered."""
        answered = self.total("l1") + self.total("l2") + self.total("loads")
        return self.total(of) / answered if answered else 0.0

    def rates(self) -> tuple[float, float]:
        """Return events and reads a second, over the last second or more."""
        now, events, reads = time.monotonic(), self.published, self.total("reads")
        since = now - self._before[0]
        if since >= 1.0:
            self._rates = ((events - self._before[1]) / since, (reads - self._before[2]) / since)
            self._before = (now, events, reads)
        return self._rates
