"""L1: ours (S3-FIFO) beside LRU in an OrderedDict and cachebox: time of a hit and of an insert, and hit ratios."""

from __future__ import annotations

import random
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import cachebox

from benchmarks.report import ROUNDS, Report
from cachebus.memory import Held, Memory

ENTRIES = 1000
N = 200_000


class Lru:
    """The textbook."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def get(self, key: str) -> Any:
        """Return the value and make it the newest."""
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    def put(self, key: str, value: Any) -> None:
        """Keep it, drop the oldest."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


class Ours:
    """`Memory` behind the same two verbs."""

    def __init__(self, most: int) -> None:
        self.memory = Memory(most)

    def get(self, key: str) -> Any:
        """Look, and count the hit as a view does."""
        held = self.memory.held.get(key)
        if held is not None and held.hits < 3:
            held.hits += 1
        return held

    def put(self, key: str, value: Any) -> None:
        """Keep it."""
        self.memory.put(key, held(value), 100)


class Box:
    """cachebox behind the same two verbs."""

    def __init__(self, most: int) -> None:
        self._cache: Any = cachebox.LRUCache(most)
        self.get = self._cache.get

    def put(self, key: str, value: Any) -> None:
        """Keep it."""
        self._cache[key] = value


def held(value: Any) -> Held:
    """Return a record as a read makes it."""
    return Held(
        value=value,
        payload=None,
        as_of=1,
        moment=None,
        checked=0,
        scopes=(),
        fresh_until=1e9,
        early_at=1e9,
        keep_until=1e9,
        loaded_at=0.0,
        load_ms=1.0,
    )


KINDS: dict[str, Callable[[int], Any]] = {"ours (S3-FIFO)": Ours, "LRU, OrderedDict": Lru, "cachebox LRUCache": Box}


def timed(work: Callable[[], None], operations: int) -> float:
    """Return nanoseconds an operation, the median of a few rounds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) / operations * 1e9)
    return statistics.median(times)


def ratio(kind: Callable[[int], Any], trace: Iterable[str]) -> float:
    """Return the share of hits, per cent."""
    cache, hits, asked = kind(ENTRIES), 0, 0
    for key in trace:
        asked += 1
        if cache.get(key) is not None:
            hits += 1
        else:
            cache.put(key, True)
    return 100 * hits / asked


def zipf(draw: random.Random, keys: int, count: int) -> list[str]:
    """Return a trace in which few keys are asked for much (exponent 1)."""
    weights = [1 / (rank + 1) for rank in range(keys)]
    return [f"key:{number}" for number in draw.choices(range(keys), weights, k=count)]


def main() -> None:
    """Run all and write `.data/benchmarks/memory.json`."""
    report = Report("memory")
    draw = random.Random(1)  # noqa: S311 - the same trace every time
    keys = [f"portfolio:{n}:summary" for n in range(ENTRIES)]
    hot = draw.choices(keys, k=N)
    skewed = zipf(draw, 20_000, N)
    scanned = [
        key
        for i, part in enumerate(zip(*[iter(zipf(draw, 5_000, N))] * 1000, strict=False))
        for key in (*part, *[f"scan:{i}:{n}" for n in range(1000)])
    ]
    for name, kind in KINDS.items():
        cache = kind(ENTRIES)
        for key in keys:
            cache.put(key, True)

        def gets(get: Callable[[str], Any] = cache.get) -> None:
            for key in hot:
                get(key)

        def inserts(kind: Callable[[int], Any] = kind) -> None:
            put = kind(ENTRIES).put
            for key in skewed:
                put(key, True)

        report.add(f"{name}: hit", timed(gets, N), "ns")
        report.add(f"{name}: insert with eviction", timed(inserts, N), "ns")
        report.add(f"{name}: hit ratio, Zipf, 20,000 keys", ratio(kind, skewed), "%")
        report.add(f"{name}: hit ratio, Zipf with scans", ratio(kind, scanned), "%")
    report.write("cachebox")
