"""Prediction, replayed: what waits, what it costs the database, and whether it says how sure it may be. No server.

`python -m benchmarks predict`: the traffic of `traffic_model`, played through the library's own forecaster with an
injected clock. Figures are of the last part of the time, after it has learned what there is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.prediction_models import forecaster_of, opinions
from benchmarks.report import Report, median_us
from benchmarks.traffic_model import (
    DAY_S,
    SHOP,
    TRADING,
    ModelChange,
    ModelRead,
    ModelView,
    Shape,
    shop,
    shuffled,
    trading,
)
from cachebus import Cache, Policy
from cachebus.cache.foresight.prediction.expectation import Expectation
from cachebus.cache.foresight.prediction.forecaster import Forecaster
from cachebus.cache.foresight.prediction.simulation import (
    SimulatedChange,
    SimulatedOutcome,
    SimulatedRead,
    SimulatedView,
    Simulation,
)

WASTE, PRICE = 0.1, 1.0
Events = Iterator[SimulatedRead | SimulatedChange]


def simulated(traffic: Iterable[ModelRead | ModelChange], views: dict[str, ModelView], seed: int = 1) -> Events:
    """Yield modelled traffic as a simulation takes it."""
    draw = random.Random(seed)  # noqa: S311 - the same load times every time
    for record in traffic:
        if isinstance(record, ModelChange):
            yield SimulatedChange(record.at, record.tags, record.user is not None)
        else:
            view = views[record.view]
            yield SimulatedRead(
                record.at,
                record.view,
                record.user if view.identity is not None else None,
                view.key(record.args),
                view.tags_of(record.args),
                view.load_time_ms(draw),
            )


def simulated_views(views: dict[str, ModelView]) -> list[SimulatedView]:
    """Return the views; what has an identity may be loaded ahead."""
    return [SimulatedView(view.name, view.ttl_s, view.identity is not None) for view in views.values()]


@dataclass
class Part:
    """What happened in a part of the time."""

    reads: int
    wait_ms: float
    database_ms: float
    loads: int
    ahead: int
    used: int
    wasted: int

    @classmethod
    def so_far(cls, outcome: SimulatedOutcome) -> Part:
        """Return what has happened until now."""
        stats = outcome.views.values()
        return cls(
            outcome.reads,
            outcome.wait_ms,
            outcome.database_ms,
            outcome.loads,
            sum(each.ahead_loads for each in stats),
            sum(each.ahead_used for each in stats),
            sum(each.ahead_wasted for each in stats),
        )

    def since(self, before: Part) -> Part:
        """Return the difference."""
        return Part(**{name: value - getattr(before, name) for name, value in vars(self).items()})

    @property
    def mean_wait_ms(self) -> float:
        """What a read waits."""
        return self.wait_ms / max(1, self.reads)

    @property
    def precision(self) -> float:
        """Of the loads ahead, the share that was used."""
        return self.used / max(1, self.used + self.wasted)


def forecaster(*, live: bool = True) -> Forecaster:
    """Return one as a process has it."""
    return Forecaster(live=live, waste=WASTE, price=PRICE)


def by_day(simulation: Simulation, events: Events) -> list[Part]:
    """Play *events*; return what happened on each day."""
    parts, before, day = [], Part.so_far(simulation.outcome), 1
    for event in events:
        while event.at >= day * DAY_S:
            parts.append((now := Part.so_far(simulation.outcome)).since(before))
            before, day = now, day + 1
        simulation.step(event)
    simulation.run([])
    parts.append(Part.so_far(simulation.outcome).since(before))
    return parts


def total(parts: list[Part]) -> Part:
    """Return the sum of some days."""
    return Part(**{name: sum(getattr(part, name) for part in parts) for name in vars(parts[0])})


SOURCES = {
    "trading": (trading, TRADING, Shape(users=200, days=14)),
    "trading, 400 users, 28 days": (trading, TRADING, Shape()),
    "shop": (shop, SHOP, Shape(users=200, days=14)),
    "shop, 400 users, 28 days": (shop, SHOP, Shape()),
}
SEEDS = (1, 2, 3)
FLIP = Shape(users=200, days=14, flip_day=7)
LAST = 0.3
"""The part of the time that counts as learnt."""


def played(source: str, forecasters: list[Forecaster], seed: int = 1) -> list[Part]:
    """Return what happened on each day of a source."""
    make, views, shape = SOURCES[source]
    events = simulated(make(replace(shape, seed=seed)), views)
    return by_day(Simulation(simulated_views(views), forecasters), events)


def error_of(by: Forecaster) -> float:
    """Return by how much what was said and what happened differ in a tenth, where 200 outcomes or more say so."""
    cells = [cell for cell in by.outcomes.calibration if cell[0] >= 200]
    return max((abs(said - happened) / outcomes for outcomes, said, happened in cells), default=0.0)


def compare(report: Report, name: str, alone: list[Part], with_it: list[Part]) -> None:
    """Report one source: all of its time, and the last part of it."""
    for part, first in (("", 0), (", last days", round(len(alone) * (1 - LAST)))):
        before, after = total(alone[first:]), total(with_it[first:])
        report.add(f"{name}{part}: mean wait", 100 * (after.mean_wait_ms / before.mean_wait_ms - 1), "%")
        report.add(f"{name}{part}: database", 100 * (after.database_ms / before.database_ms - 1), "%")
        report.add(f"{name}{part}: loads ahead used", 100 * after.precision, "%", f"of {after.ahead}")
        report.add(f"{name}{part}: wasted of loads waited for", 100 * after.wasted / max(1, after.loads), "%")


def the_sources(report: Report) -> None:
    """Each source, by seeds; what is shuffled; several processes."""
    for source in SOURCES:
        for seed in SEEDS:
            by = forecaster()
            compare(report, f"{source}, seed {seed}", played(source, [], seed), played(source, [by], seed))
            report.add(f"{source}, seed {seed}: said - happened, worst tenth", error_of(by), "")
    shape = Shape(users=200, days=14)
    outcome = Simulation(simulated_views(TRADING), [forecaster()]).run(
        simulated(shuffled(trading(shape), shape.users), TRADING)
    )
    report.add("trading, shuffled: loads ahead", 100 * outcome.ahead / outcome.loads, "% of loads")
    for processes in (1, 2, 4):
        found = total(played("trading", [forecaster() for _ in range(processes)]))
        alone = total(played("trading", []))
        change = 100 * (found.mean_wait_ms / alone.mean_wait_ms - 1)
        report.add(f"trading, {processes} processes share each user: mean wait", change, "%", f"{found.ahead} loads")


def the_flip(report: Report) -> None:
    """Users look at what they hardly looked at before, from one day to the next."""
    for seed in SEEDS:
        events = simulated(trading(replace(FLIP, seed=seed)), TRADING)
        days = by_day(Simulation(simulated_views(TRADING), [forecaster()]), events)
        for day in range(FLIP.flip_day or 0, FLIP.days - 2):
            so_far = total(days[: day + 1])
            budget = f"wasted so far {so_far.wasted / so_far.loads:.1%} of loads waited for"
            report.add(f"flip, seed {seed}, day {day}: loads ahead used", 100 * days[day].precision, "%", budget)


def the_opinions(report: Report) -> None:
    """The table beside other models, on the same traffic."""
    for source in ("trading", "shop"):
        alone = total(played(source, []))
        for name, make in opinions():
            by, began = forecaster_of(make), time.process_time()
            found = total(played(source, [by]))
            took_s = time.process_time() - began
            wait = found.mean_wait_ms / alone.mean_wait_ms - 1
            note = (
                f"wait {wait:+.1%}, database {found.database_ms / alone.database_ms - 1:+.1%}, "
                f"worst tenth {error_of(by):.2f}, {took_s:.1f} s CPU"
            )
            report.add(f"{source}, {name}: loads ahead used", 100 * found.precision, "%", note)


class TimedForecaster(Forecaster):
    """One that knows what its reads took."""

    took_s = 0.0
    reads = 0

    def read(self, *args: Any, **kwargs: Any) -> Sequence[Expectation]:
        """Take note of a read."""
        began = time.perf_counter()
        orders = super().read(*args, **kwargs)
        self.took_s += time.perf_counter() - began
        self.reads += 1
        return orders


def the_cost(report: Report) -> None:
    """Measure what a read pays: a memory hit of a predicted view; reads of two weeks, most of which had to load."""

    async def hit_us() -> list[float]:
        many = 10_000

        async def reader(mode: str) -> Callable[[], Awaitable[None]]:
            cache = await open_caches.enter_async_context(Cache.memory(predict=mode))

            @cache.view("orders:{user_id}", ttl="1h", policy=Policy(predict=True))
            async def orders(user_id: int) -> int:
                return user_id

            async def reads() -> None:
                for _ in range(many):
                    await orders(7)

            return reads

        async with AsyncExitStack() as open_caches:
            return await median_us(many, *[await reader(mode) for mode in ("off", "live")])

    off, live = asyncio.run(hit_us())
    report.add("a memory hit, switched off", off, "µs")
    report.want("a memory hit pays, live", live - off, 5, "µs")
    timed = TimedForecaster(live=True, waste=WASTE, price=PRICE)
    found = Simulation(simulated_views(TRADING), [timed]).run(simulated(trading(Shape(users=200, days=14)), TRADING))
    note = f"{found.hits / found.reads:.0%} of all were hits"
    report.add("a read of two weeks' replay pays, live", timed.took_s / timed.reads * 1e6, "µs", note)


def main() -> None:
    """Run all and write `.data/benchmarks/predict.json`."""
    report = Report("predict")
    for part in (the_cost, the_sources, the_flip, the_opinions):
        part(report)
    report.write("river", "scikit-learn")


if __name__ == "__main__":
    main()
