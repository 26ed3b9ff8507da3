"""Two curves: what memory would answer by its size, and what each view would load by its TTL. Errors are measured.

Memory: the library's own S3-FIFO in miniature, on the sampled keys alone, with as many entries as are its share. Reads
that the sample lacks are counted as hits, or taken away where it has too many (SHARDS-adj). Source: Waldspurger et al.,
"Efficient MRC construction with SHARDS", FAST 2015; "Cache modeling and optimization using miniature simulations",
USENIX ATC 2017. LRU in its place was up to 7.7 % off.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cachebus.monitoring.advice.replay import GROUPS, Replay, Tally, WhatIf, scattered, tallied
from cachebus.monitoring.advice.report import MemoryCurve, MemoryPoint, Spread, TtlPoint
from cachebus.monitoring.advice.trace import Trace, of_keys

SIZES = (0.25, 0.5, 1, 2, 4, 8, 16)
"""Of memory, as multiples of what it is."""
LEAST_MINIATURE = 32
"""Entries below which a miniature says nothing."""
MANY_READS = 60_000
"""Sampled reads beyond which fewer keys will do for memory."""
LEAST_PROCESS = 500
"""Sampled reads of a process that its curve needs."""
TTLS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32)
"""Of each view, as multiples of what it is."""
KEYS_OF_VIEW = 1_000
"""Sampled keys a view that its TTLs are tried on; with 512 the largest error was 2.4 % on modelled traffic."""
HOT = 3
"""Times the average that a key is read to be tried in any case."""


class Halves(NamedTuple):
    """One share in the whole time, and in each half of it."""

    whole: float
    first: float
    second: float


class SizeCurve(NamedTuple):
    """The curve, and what the halves of the recording say by themselves."""

    curve: MemoryCurve
    halves: dict[int, Halves]
    """By entries, all processes together."""


class TtlShare(NamedTuple):
    """What one TTL of a view would do."""

    ttl_ms: int
    hits: Halves
    loads: float
    """A read."""
    load_ms: float
    """A read."""
    error: float
    """± of the difference to the TTL it has."""


def memory_curve(trace: Trace) -> SizeCurve | None:
    """Return what memory would answer by its size; None where too little was read."""
    settings = Counter(process.entries_most for process in trace.processes)
    now = settings.most_common(1)[0][0] if settings else 0
    if now < 1:
        return None
    share = _share(trace, now)
    keys = {key for key in trace.keys if key < share * 2**32}
    accesses = of_keys(trace.accesses, keys)
    replay = Replay(trace, accesses)
    rate = share * trace.rate
    sizes = [size for times in SIZES if (size := round(now * times)) == now or size * rate >= LEAST_MINIATURE]
    by_size = {size: replay.run(WhatIf(max(1, round(size * rate)))).processes for size in sizes}
    sampled = [tallied(halves).reads for halves in by_size[now]]
    chosen = [place for place, reads in enumerate(sampled) if reads >= LEAST_PROCESS * share]
    if not chosen:
        return None
    facts = trace.processes
    expected = [process.reads * process.rate * share for process in facts]

    def shares(tallies: Sequence[tuple[Tally, Tally]]) -> list[float]:
        return [_adjusted(tallied(tallies[place]), sampled[place], expected[place]) for place in chosen]

    def half(tallies: Sequence[tuple[Tally, Tally]], at: int) -> float:
        parts = [(_adjusted(tallies[place][at], sampled[place], expected[place]), expected[place]) for place in chosen]
        return sum(part * weight for part, weight in parts) / sum(weight for _, weight in parts)

    points, halves = [], {}
    for size, tallies in by_size.items():
        found = shares(tallies)
        points.append(MemoryPoint(size, spread(found)))
        whole = sum(x * expected[place] for x, place in zip(found, chosen, strict=True))
        halves[size] = Halves(whole / sum(expected[place] for place in chosen), half(tallies, 0), half(tallies, 1))
    measured = spread([facts[place].memory_hits / max(1, facts[place].reads) for place in chosen])
    curve = MemoryCurve(entries_now=now, hits_measured=measured, points=points, processes=len(chosen))
    return SizeCurve(curve, halves)


def ttl_shares(trace: Trace) -> dict[str, list[TtlShare]]:
    """Return by view what some TTLs would do, the one it has among them; none longer than half the recording."""
    longest_ms = trace.seconds * 500
    tried = {
        times: {view.name: round(view.ttl_ms * times) for view in trace.views if 0 < view.ttl_ms * times <= longest_ms}
        for times in TTLS
    }
    hot, others = _strata(trace)
    replays = [Replay(trace, of_keys(trace.accesses, keys)) for keys in (hot, others)]
    replayed = {
        times: [replay.run(WhatIf(None, ttls)).views for replay in replays] for times, ttls in tried.items() if ttls
    }
    half_ms = trace.seconds * 500
    reads = [Counter[tuple[int, bool]](), Counter[tuple[int, bool]]()]
    for access in trace.accesses:
        reads[access.key not in hot][trace.keys[access.key].view, access.at_ms >= half_ms] += 1
    found: dict[str, list[TtlShare]] = {}
    for place, view in enumerate(trace.views):
        most, rest = ((of[place, False], of[place, True]) for of in reads)
        counters = trace.counted.get(view.name)
        if view.name in tried[1] and counters is not None and any((*most, *rest)):
            each = counters.reads * trace.key_rate / (most[0] + most[1] + rest[0] + rest[1])
            tries = _Tries(rest, ((most[0] + rest[0]) * each, (most[1] + rest[1]) * each))
            found[view.name] = [
                tries.share(tried[times][view.name], *(views[place] for views in strata), now=replayed[1][1][place])
                for times, strata in replayed.items()
                if view.name in tried[times]
            ]
    return found


def ttl_points(shares: Sequence[TtlShare], reads_a_day: float) -> list[TtlPoint]:
    """Return them as they are reported."""
    return [
        TtlPoint(share.ttl_ms / 1000, share.hits.whole, share.loads * reads_a_day, share.load_ms * reads_a_day / 1000)
        for share in shares
    ]


def spread(values: Sequence[float]) -> Spread:
    """Return the median of some values, the lowest and the highest."""
    return Spread(statistics.median(values), min(values), max(values))


def _share(trace: Trace, now: int) -> float:
    """Return which part of the sampled keys is enough for the memory curve."""
    share = 1.0
    while len(trace.accesses) * share > MANY_READS and now * SIZES[0] * trace.rate * share / 2 >= LEAST_MINIATURE:
        share /= 2
    return share


def _adjusted(tally: Tally, sampled: int, expected: float) -> float:
    """Return the share of memory hits, had the sample as many reads as are its share of all."""
    if not tally.reads:
        return 0.0
    scaled = expected * tally.reads / sampled
    return min(1.0, max(0.0, (tally.memory + scaled - tally.reads) / scaled))


def _strata(trace: Trace) -> tuple[set[int], set[int]]:
    """Return the keys of each view that are read most, and some of the others.

    What is read most is tried whole: a few keys have most of the reads, and a sample has them or has them not.
    """
    reads = Counter(access.key for access in trace.accesses)
    by_view: list[list[int]] = [[] for _ in trace.views]
    for key, facts in trace.keys.items():
        by_view[facts.view].append(key)
    hot, others = set[int](), set[int]()
    for keys in by_view:
        keys.sort(key=lambda key: (-reads[key], scattered(key)))  # not by hash, which the others are chosen by
        usual = sum(reads[key] for key in keys) / len(keys) if keys else 0.0
        most = sum(reads[key] > HOT * usual for key in keys[: KEYS_OF_VIEW // 2])
        hot.update(keys[:most])
        others.update(sorted(keys[most:])[: KEYS_OF_VIEW - most])
    return hot, others


class _Tries(NamedTuple):
    """The keys of a view that TTLs are tried on: those read most, and some of the others."""

    others: tuple[int, int]
    """Reads of all the others in each half."""
    reads: tuple[float, float]
    """Reads of all keys in each half, had the sample as many as are its share of all."""

    def share(self, ttl_ms: int, hot: Sequence[Tally], others: Sequence[Tally], *, now: Sequence[Tally]) -> TtlShare:
        """Return what a TTL would do, by the tallies of both kinds of keys; *now*: those of the others as it is."""
        halves = [
            (tallied(hot[half]), tallied(others[half]), all_others)
            for half, all_others in zip((slice(GROUPS), slice(GROUPS, None)), self.others, strict=True)
        ]
        misses, loads, load_ms = ([_estimate(*half, of) for half in halves] for of in (_misses, _loads, _load_ms))
        hits = [_share_of(missed, reads) for missed, reads in zip(misses, self.reads, strict=True)]
        reads = sum(self.reads)
        return TtlShare(
            ttl_ms,
            Halves(_share_of(sum(misses), reads), *hits),
            sum(loads) / reads,
            sum(load_ms) / reads,
            self._error(others, now) / reads,
        )

    def _error(self, others: Sequence[Tally], now: Sequence[Tally]) -> float:
        """Return two standard errors of the misses that a TTL saves: groups of keys differ by it."""
        sampled = sum(tally.reads for tally in others)
        if not sampled or sampled == sum(self.others):
            return 0.0
        saved = [
            _misses(c) + _misses(d) - _misses(a) - _misses(b)
            for a, b, c, d in zip(others[:GROUPS], others[GROUPS:], now[:GROUPS], now[GROUPS:], strict=True)
        ]
        return 2 * statistics.stdev(saved) * math.sqrt(GROUPS) * sum(self.others) / sampled


def _estimate(hot: Tally, others: Tally, all_others: int, of: Callable[[Tally], float]) -> float:
    """Return a figure of all keys of a view, by those that were tried; *all_others*: reads of the others."""
    return of(hot) + (of(others) * all_others / others.reads if others.reads else 0.0)


def _misses(tally: Tally) -> float:
    return tally.reads - tally.hits


def _loads(tally: Tally) -> float:
    return tally.loads


def _load_ms(tally: Tally) -> float:
    return tally.load_ms


def _share_of(misses: float, reads: float) -> float:
    return min(1.0, max(0.0, 1 - misses / reads)) if reads else 0.0
