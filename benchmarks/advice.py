"""Advice: how far its estimates are off on modelled traffic, and the CPU time of ten minutes of 2,000 reads a second.

And what a memory hit pays for it, while nothing is recorded and while something is.

Exact: the whole memory tier on all reads; all keys of a view; all loads.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from timeit import repeat

from benchmarks.recorded import ITEM, PLANTED, Change, Deployment, Read, modelled, planted, zipf
from benchmarks.report import Report, median_us
from benchmarks.traffic_model import SHOP, TRADING, ModelView
from cachebus import Cache
from cachebus.cache.foresight.recording import Recording, Wanted
from cachebus.cache.foresight.take import Sources, Take
from cachebus.cache.upkeep.reporter import Observed
from cachebus.monitoring.advice import curves
from cachebus.monitoring.advice.computing import Analysable, report_of
from cachebus.monitoring.advice.endings import ends_of, estimated
from cachebus.monitoring.advice.trace import Trace

RATE = 1 / 8
HOURS = 3 * 3600.0
Views = dict[str, ModelView]
Traffic = Callable[[], Iterable[Read | Change]]


def recorded(traffic: Traffic, views: Views, seconds: float, rate: float) -> Recording:
    """Return what one process would have recorded."""
    return Deployment(views, processes=1, rate=rate, entries=1000, seconds=seconds).run(traffic())


def of_memory(trace: Trace) -> dict[int, float]:
    """Return the memory curve."""
    found = curves.memory_curve(trace)
    return {point.entries: point.hits.median for point in found.curve.points} if found is not None else {}


def compare(report: Report, name: str, views: Views, traffic: Traffic, seconds: float) -> None:
    """Measure the errors on one source."""
    curves.MANY_READS = 10**9  # no sample of the sample
    whole, sample = (Trace(recorded(traffic, views, seconds, rate)) for rate in (1.0, RATE))
    exact, mini = of_memory(whole), of_memory(sample)
    errors = [100 * abs(exact[size] - mini[size]) for size in mini]
    report.add(f"{name}: memory curve, mean error at 1/8", sum(errors) / len(errors), "%")
    report.add(f"{name}: memory curve, largest error at 1/8", max(errors), "%")
    curves.KEYS_OF_VIEW = 10**9
    exact_ttls = curves.ttl_shares(whole)
    for keys in (512, 1_000):
        curves.KEYS_OF_VIEW = keys
        some = curves.ttl_shares(whole)
        errors = [
            100 * abs(a.hits.whole - b.hits.whole)
            for view in exact_ttls
            for a, b in zip(exact_ttls[view], some[view], strict=True)
        ]
        if errors:
            report.add(f"{name}: ttl grid, largest error at {keys} keys a view", max(errors), "%")
    keys_of = Counter(facts.view for facts in sample.keys.values())
    for place, view in enumerate(sample.views):
        if keys_of[place] >= 256:
            one, other = (estimated(trace, ends_of(trace).views[place]) for trace in (whole, sample))
            if one.ended and other.ended:
                error = 100 * abs(one.unread / one.ended - other.unread / other.ended)
                report.add(f"{name}: unread share of {view.name}, error at 1/8", error, "%")


def busy() -> Iterator[Read | Change]:
    """Yield ten minutes of 2,000 reads a second."""
    return zipf(keys=60_000, reads=1_200_000, seconds=600, exponent=0.9, processes=3)


async def hits(report: Report) -> None:
    """Measure what a memory hit pays: the test whether anybody watches; a recording, of a key in the sample or not."""
    many = 10_000  # fewer than a recording takes between two chunks
    async with Cache.memory() as cache:

        @cache.view("cart:{user_id}", ttl="1h")
        async def cart(user_id: int) -> int:
            return user_id

        reader = cache.reader
        assert reader is not None
        await cart(7)
        seen = Sources(cache.views, dict, cache, Observed(), reader.memory.held)

        async def alone() -> None:
            for _ in range(many):
                await cart(7)

        async def recorded_at(rate: float) -> None:
            wanted = Wanted(id="1", secret="00" * 16, rate=rate, from_us=0, until_us=0, asked_by="a benchmark")
            take = Take(wanted, seen, 0)
            await alone()
            take.close()

        off, other, sampled = await median_us(many, alone, lambda: recorded_at(1e-6), lambda: recorded_at(1.0))
        tested, empty = (
            min(repeat(statement, globals={"view": cart}, number=1_000_000))
            for statement in ("if view.watchers: pass", "pass")
        )
    report.add("a memory hit", off, "µs")
    report.want("a memory hit pays, while nothing is recorded", tested - empty, 0.05, "µs")
    report.add("a memory hit pays, while others are recorded", other - off, "µs")
    report.add("a memory hit pays, when it is recorded", sampled - off, "µs")


def main() -> None:
    """Run all and write `.data/benchmarks/advice.json`."""
    report = Report("advice")
    asyncio.run(hits(report))
    many, keys = curves.MANY_READS, curves.KEYS_OF_VIEW
    compare(report, "zipf 0.9", ITEM, lambda: zipf(keys=20_000, reads=300_000, seconds=600, exponent=0.9), 600)
    compare(
        report,
        "trading",
        TRADING,
        lambda: modelled("trading", users=12_000, seconds=HOURS, begin_s=8.5 * 3600, processes=1),
        HOURS,
    )
    compare(
        report,
        "shop",
        SHOP,
        lambda: modelled("shop", users=20_000, seconds=HOURS, begin_s=18 * 3600, processes=1),
        HOURS,
    )
    compare(report, "planted", PLANTED, lambda: planted(6_000, 1), 6_000)
    curves.MANY_READS, curves.KEYS_OF_VIEW = many, keys
    recording = Deployment(ITEM, processes=3, rate=RATE, entries=1000, seconds=600).run(busy())
    began = time.process_time()
    found = report_of(Analysable(recording=recording, at_ms=0.0, version=""))
    report.want("10 min of 2,000 reads/s: CPU of the analysis", time.process_time() - began, 20, "s")
    report.add("10 min of 2,000 reads/s: recording", sum(map(len, recording.chunks)) / 1e6, "MB")
    report.add("10 min of 2,000 reads/s: sampled reads", found.recording.sampled, "")
    report.write()


if __name__ == "__main__":
    main()
