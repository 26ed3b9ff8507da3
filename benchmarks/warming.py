"""Warm-ups: what each kind of schedule loads on modelled traffic, how much of that is read, what users wait less.

Used: read before the value expires, and before it is invalidated. `python -m benchmarks warming`.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.report import Report
from benchmarks.traffic_model import HOUR_S, SOURCES, ModelRead, ModelView, Shape

HALF_LIFE_S = 1_800.0
WARM_BELOW = 0.25
HIT_MS = 1.0
SHAPE = Shape(users=400, days=3)

Call = tuple[str, tuple[object, ...]]


class Reads:
    """What processes note of reads: how often lately, and when last."""

    def __init__(self) -> None:
        self._counts: dict[Call, tuple[float, float]] = {}

    def note(self, call: Call, at: float) -> None:
        """Count one read."""
        count, then = self._counts.get(call, (0.0, at))
        self._counts[call] = (count * 0.5 ** ((at - then) / HALF_LIFE_S) + 1, at)

    def popular(self, view: str, at: float, limit: int, least: float) -> list[Call]:
        """Return what `Warm.popular` does."""
        found = [
            (count * 0.5 ** ((at - then) / HALF_LIFE_S), call)
            for call, (count, then) in self._counts.items()
            if call[0] == view and at - then < 16 * HALF_LIFE_S
        ]
        return [call for count, call in sorted(found, reverse=True, key=lambda each: each[0])[:limit] if count >= least]

    def active(self, view: str, at: float, within_s: float, limit: int) -> list[Call]:
        """Return what `Warm.recently_active` does."""
        return [call for call in self.popular(view, at, limit * 4, 0.0) if at - self._counts[call][1] <= within_s][
            :limit
        ]


Policy = Callable[[Reads, str, ModelView, float], Iterable[Call]]


@dataclass(slots=True)
class Outcome:
    """What came of one policy."""

    reads: int = 0
    wait_ms: float = 0.0
    load_ms: float = 0.0
    """Loads that users waited for."""
    warm_ms: float = 0.0
    warmed: int = 0
    used: int = 0


@dataclass(slots=True)
class _Entry:
    until: float
    warmed: bool
    """By a schedule, and not read since."""


@dataclass(slots=True)
class Schedule:
    """A job: how often, and what it warms."""

    every_s: float
    calls: Policy


class Replay:
    """One source, with one job or none."""

    def __init__(self, source: str, schedule: Schedule | None) -> None:
        self._source = source
        self._views = SOURCES[source][1]
        self._schedule = schedule
        self._draw = random.Random(7)  # noqa: S311 - the same loads every time
        self._entries: dict[Call, _Entry] = {}
        self._by_tag: dict[str, set[Call]] = defaultdict(set)
        self._noted = Reads()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Return what came of it."""
        next_at = 0.0
        for record in SOURCES[self._source][0](SHAPE):
            while self._schedule is not None and next_at <= record.at:
                self._warm(self._schedule, next_at)
                next_at += self._schedule.every_s
            if isinstance(record, ModelRead):
                self._read((record.view, record.args), record.at)
            else:
                for tag in record.tags:
                    for call in self._by_tag.pop(tag, ()):
                        self._entries.pop(call, None)
        return self.outcome

    def _warm(self, schedule: Schedule, at: float) -> None:
        for name, view in self._views.items():
            for call in schedule.calls(self._noted, name, view, at):
                entry = self._entries.get(call)
                if entry is None or entry.until - at < WARM_BELOW * view.ttl_s:
                    self.outcome.warm_ms += self._load(call, at, warmed=True)
                    self.outcome.warmed += 1

    def _read(self, call: Call, at: float) -> None:
        entry, outcome = self._entries.get(call), self.outcome
        outcome.reads += 1
        outcome.wait_ms += HIT_MS
        if entry is None or entry.until <= at:
            took = self._load(call, at, warmed=False)
            outcome.wait_ms += took
            outcome.load_ms += took
        elif entry.warmed:
            entry.warmed = False
            outcome.used += 1
        self._noted.note(call, at)

    def _load(self, call: Call, at: float, *, warmed: bool) -> float:
        view = self._views[call[0]]
        self._entries[call] = _Entry(at + view.ttl_s, warmed)
        for tag in view.tags_of(call[1]):
            self._by_tag[tag].add(call)
        return view.load_time_ms(self._draw)


def popular(limit: int, least: float) -> Policy:
    """Warm what is read most."""
    return lambda reads, name, _, at: reads.popular(name, at, limit, least)


def active(within_s: float, limit: int = 300) -> Policy:
    """Warm what was read lately."""
    return lambda reads, name, _, at: reads.active(name, at, within_s, limit)


def ahead(reads: Reads, name: str, view: ModelView, at: float) -> list[Call]:
    """Renew what was read within its TTL (`Warm.ahead`)."""
    return reads.active(name, at, view.ttl_s, 5_000)


KINDS: dict[str, Schedule] = {
    "top 200, no floor, each 2 min": Schedule(120, popular(200, 0.0)),
    "top 200, least=1, each 2 min": Schedule(120, popular(200, 1.0)),
    "top 200, least=3, each 2 min": Schedule(120, popular(200, 3.0)),
    "top 200, least=10, each 2 min": Schedule(120, popular(200, 10.0)),
    "active within 1 h, each 1 min": Schedule(60, active(HOUR_S)),
    "ahead of their end, each 30 s": Schedule(30, ahead),
}


def main() -> None:
    """Run all and write `.data/benchmarks/warming.json`."""
    report = Report("warming")
    for source in SOURCES:
        without = Replay(source, None).run()
        views = Counter(record.view for record in SOURCES[source][0](SHAPE) if isinstance(record, ModelRead))
        report.add(f"{source}: reads in {SHAPE.days} days, {SHAPE.users} users", sum(views.values()), "")
        report.add(f"{source}: nothing warmed: wait", without.wait_ms / without.reads, "ms/read")
        for name, schedule in KINDS.items():
            found = Replay(source, schedule).run()
            database = 100 * ((found.load_ms + found.warm_ms) / without.load_ms - 1)
            waits = 100 * (found.wait_ms / without.wait_ms - 1)
            used = 100 * found.used / found.warmed if found.warmed else 0.0
            report.add(f"{source}: {name}: database", database, "%", f"wait {waits:+.0f} %, used {used:.1f} %")
    report.write()


if __name__ == "__main__":
    main()
