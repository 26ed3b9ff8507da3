"""The status on the terminal: one screen, written over in place; plain lines where there is no screen."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

WINDOW = 500
"""Latencies are of the last so many events."""


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the value below which *share* of them lie; None where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def ms(value: float | None) -> str:
    """Return milliseconds as people read them."""
    return "-" if value is None else f"{value:.1f} ms"


@dataclass
class Board:
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
    _height: int = 0

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

    def lines(self) -> list[str]:
        """Return the screen."""
        events, reads = self.published, self.total("reads")
        now = time.monotonic()
        if now - self._before[0] >= 1.0:
            passed = now - self._before[0]
            self._rates = ((events - self._before[1]) / passed, (reads - self._before[2]) / passed)
            self._before = (now, events, reads)
        hits = self.total("l1") + self.total("l2") + self.total("loads") or 1
        lag = max((app.get("lag_ms") or 0.0 for app in self.apps.values()), default=0.0)
        lines = [
            f"running {now - self.began:5.0f} s   applications {len(self.apps)}   workers {self._workers()}",
            f"events           {events:,} published ({self._rates[0]:.1f}/s), {self.total('plain'):,} by plain PUBLISH,"
            f" {self.total('outbox'):,} by outbox   broadcasts {self.broadcasts:,}   missing {self.total('missing')}",
            f"event -> fresh   p50 {ms(percentile(self.fresh, 0.5))}   p95 {ms(percentile(self.fresh, 0.95))}"
            f"   in the other process p50 {ms(percentile(self.elsewhere, 0.5))}",
            f"reads            {reads:,} ({self._rates[1]:.0f}/s)   hit rate {self.hit_rate:.1%}   memory"
            f" {self.total('l1') / hits:.1%}   Redis {self.total('l2') / hits:.1%}   loads {self.total('loads'):,}"
            f"   stale {self.total('stale')}",
            f"journal          last heard {lag:.0f} ms ago",
        ]
        return lines + self._work()

    def _workers(self) -> str:
        return ", ".join(worker.state for worker in self.stats.workers) if self.stats is not None else "starting"

    def _work(self) -> list[str]:
        if self.stats is None:
            return []
        backlog = self.stats.backlog
        waiting = sum(shard.waiting for shard in backlog.shards)
        lines = [
            f"waiting          {waiting} events   {backlog.refreshes} refreshes   dead letters {backlog.dead_letters}"
        ]
        for job in self.stats.jobs:
            due = "-" if job.next_us is None else f"in {max(0, (job.next_us - self.now_us) / 1e6):.0f} s"
            lines.append(
                f"warm             {job.name.partition('.')[2]:<30} {job.state:<8} next {due:<9} {job.progress}"
            )
        return lines

    def show(self) -> None:
        """Write the screen over the last one, or as a line where there is no screen."""
        if not sys.stdout.isatty():
            first = self.lines()
            print(" | ".join(" ".join(line.split()) for line in first[:4]), flush=True)
            return
        lines = self.lines()
        up = f"\x1b[{self._height}A" if self._height else ""
        print(up + "".join(f"\x1b[2K{line[:150]}\n" for line in lines) + "\x1b[J", end="", flush=True)
        self._height = len(lines)
