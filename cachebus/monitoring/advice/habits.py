"""How a recording's reads lie in time and with whom: gaps between reads of a key, what is read together, hot keys."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque

from cachebus.monitoring.advice.report import CoRead, GapStep, HotKey
from cachebus.monitoring.advice.trace import Trace

GAPS_S = (1, 10, 60, 300, 1_800)
TOGETHER_MS = 10_000
"""After a read of one view, so long another one counts as read with it."""
MOST_SHOWN = 10
LEAST_PAIRS = 50
LEAST_SHARE = 0.3


def gaps(trace: Trace) -> list[list[GapStep]]:
    """Return by view how long after the previous read of a key it is read."""
    counted = [Counter[int]() for _ in trace.views]
    before: dict[int, int] = {}
    for access in trace.accesses:
        last = before.get(access.key)
        if last is not None:
            counted[trace.keys[access.key].view][bisect_left(GAPS_S, (access.at_ms - last) / 1000)] += 1
        before[access.key] = access.at_ms
    bounds = (*GAPS_S, -1)
    return [[GapStep(bounds[at], steps[at]) for at in range(len(bounds)) if steps[at]] for steps in counted]


def hot_keys(trace: Trace) -> list[HotKey]:
    """Return the keys that are read most. All reads of a sampled key are in the recording."""
    reads = Counter(access.key for access in trace.accesses)
    sizes = _sizes(trace)
    return [_hot_key(trace, key, count, sizes) for key, count in reads.most_common(MOST_SHOWN)]


def big_keys(trace: Trace) -> list[HotKey]:
    """Return the keys whose values are largest."""
    reads = Counter(access.key for access in trace.accesses)
    sizes = _sizes(trace)
    largest = sorted(sizes, key=lambda key: (-sizes[key], key))[:MOST_SHOWN]
    return [_hot_key(trace, key, reads[key], sizes) for key in largest]


def co_reads(trace: Trace) -> list[CoRead]:
    """Return which views the same identity reads after which, within ten seconds; the surest first.

    Of two keys the sample has both only so often as its rate is: what it shows is so much less than there is.
    """
    firsts, pairs = Counter[int](), Counter[tuple[int, int]]()
    latest: dict[int, deque[tuple[int, int, set[int]]]] = defaultdict(deque)
    for access in trace.accesses:
        facts = trace.keys[access.key]
        if not facts.identity:
            continue
        open_reads = latest[facts.identity]
        while open_reads and open_reads[0][0] < access.at_ms - TOGETHER_MS:
            open_reads.popleft()
        for _, first, seen in open_reads:
            if facts.view != first and facts.view not in seen:
                seen.add(facts.view)
                pairs[first, facts.view] += 1
        firsts[facts.view] += 1
        open_reads.append((access.at_ms, facts.view, set()))
    found = [
        CoRead(
            trace.views[first].name, trace.views[then].name, min(1.0, count / firsts[first] / trace.rate), firsts[first]
        )
        for (first, then), count in pairs.items()
        if firsts[first] * trace.rate >= LEAST_PAIRS
    ]
    return sorted((pair for pair in found if pair.share >= LEAST_SHARE), key=lambda pair: -pair.share)[:MOST_SHOWN]


def _hot_key(trace: Trace, key: int, reads: int, sizes: dict[int, int]) -> HotKey:
    view = trace.views[trace.keys[key].view].name
    return HotKey(view, f"{key:08x}", reads, reads / max(1, trace.reads), sizes.get(key, 0))


def _sizes(trace: Trace) -> dict[int, int]:
    return {load.key: load.bytes for load in trace.loads}
