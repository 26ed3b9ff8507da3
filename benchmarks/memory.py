"""L1: ours beside other policies on nine traces; a hit and an insert beside LRU, cachebox and theine."""

from __future__ import annotations

import random
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import cachebox
import theine

from benchmarks.policies import Arc, FixedS3Fifo, Lru, Sieve
from benchmarks.report import ROUNDS, Report
from cachebus.cache.tiers.s3fifo import MOST_HITS, CachedValue, S3Fifo
from cachebus.freshness.clock import Born

ENTRIES = 1000
N = 200_000


class Ours:
    """`S3Fifo`, asked as a view asks it."""

    def __init__(self, most: int) -> None:
        self._memory = S3Fifo(most)

    def ask(self, key: str) -> bool:
        """Look, and count the hit."""
        found = self._memory.held.get(key)
        if found is not None:
            if found.hits < MOST_HITS:
                found.hits += 1
            return True
        self._memory.put(key, held(), 100)
        return False


class Theine:
    """W-TinyLFU that learns the size of its window, as theine has it; in Rust."""

    def __init__(self, most: int) -> None:
        self._cache: Any = theine.Cache(most, nolock=True)

    def ask(self, key: str) -> bool:
        """Ask for a key."""
        if self._cache.get(key)[1]:
            return True
        self._cache.set(key, True)
        return False


class LruDict:
    """What one writes by hand, with the record that ours has."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, CachedValue] = OrderedDict()

    def ask(self, key: str) -> bool:
        """Ask for a key."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return True
        self._kept[key] = held()
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return False


class Box:
    """cachebox, in Rust."""

    def __init__(self, most: int) -> None:
        self._cache: Any = cachebox.LRUCache(most)

    def ask(self, key: str) -> bool:
        """Ask for a key."""
        if self._cache.get(key) is not None:
            return True
        self._cache[key] = True
        return False


def held() -> CachedValue:
    """Return a record as a read makes it."""
    return CachedValue(
        value=True,
        payload=None,
        as_of=Born(1, ""),
        moment=None,
        checked=0,
        scopes=(),
        fresh_until=1e9,
        early_at=1e9,
        keep_until=1e9,
        loaded_at=0.0,
        load_ms=1.0,
    )


POLICIES: dict[str, Callable[[int], Any]] = {
    "ours": Ours,
    "S3-FIFO": FixedS3Fifo,
    "LRU": Lru,
    "SIEVE": Sieve,
    "ARC": Arc,
    "W-TinyLFU": Theine,
}
TIMED: dict[str, Callable[[int], Any]] = {
    "ours": Ours,
    "LRU, OrderedDict": LruDict,
    "cachebox LRU": Box,
    "theine W-TinyLFU": Theine,
}


def zipf(draw: random.Random, keys: int, count: int, exponent: float = 1.0) -> list[int]:
    """Return numbers of keys of which few are asked for much."""
    return draw.choices(range(keys), [1 / (rank + 1) ** exponent for rank in range(keys)], k=count)


def twice(draw: random.Random) -> list[int]:
    """Return keys that are asked for exactly twice, the second time 300 to 3,000 reads after the first."""
    trace: list[int] = []
    due: dict[int, int] = {}
    newest = 0
    while len(trace) < N:
        second = due.pop(len(trace), None)
        if second is None:
            newest, at = newest + 1, len(trace) + draw.randint(300, 3_000)
            while at in due:
                at += 1
            due[at] = second = newest
        trace.append(second)
    return trace


def visits(draw: random.Random) -> Iterator[str]:
    """Yield the pages of a hundred users at a time who read 10 to 80 pages, eight of their own, and leave."""
    shared, users, number = zipf(draw, 2_000, N), [], 0
    for common in shared:
        while len(users) < 100:
            users.append([number, draw.randint(10, 80)])
            number += 1
        user = draw.choice(users)
        yield f"user:{user[0]}:{draw.randrange(8)}" if draw.random() < 0.7 else f"shared:{common}"
        user[1] -= 1
        if not user[1]:
            users.remove(user)


def traces() -> dict[str, list[str]]:
    """Return what is asked for, in order; the same every time."""
    draw = random.Random(1)  # noqa: S311 - the same traces every time
    skewed = zipf(draw, 5_000, N // 2)
    made: dict[str, Any] = {
        "Zipf, 20,000 keys": zipf(draw, 20_000, N),
        "Zipf 0.7, 20,000 keys": zipf(draw, 20_000, N, 0.7),
        "Zipf with scans": [
            key
            for at in range(0, len(skewed), 1_000)
            for key in (*skewed[at : at + 1_000], *[f"scan:{at}:{n}" for n in range(1_000)])
        ],
        "Zipf with a job over 3,000 keys": [
            key
            for at in range(0, N, 12_000)
            for key in (*zipf(draw, 20_000, 9_000), *[f"job:{n}" for n in range(3_000)])
        ],
        "a loop of 1,200 keys": [number % 1_200 for number in range(N)],
        "a hot set of 800 that changes each 5,000 reads": [
            f"{at // 5_000}:{draw.randrange(800)}" if draw.random() < 0.9 else f"cold:{at}" for at in range(N)
        ],
        "a hot set that slides": [at // 10 + int(draw.expovariate(1 / 250)) for at in range(N)],
        "each key twice, the second time late": twice(draw),
        "users who come and go": list(visits(draw)),
    }
    return {name: [str(key) for key in trace] for name, trace in made.items()}


def timed(work: Callable[[], object], operations: int) -> float:
    """Return nanoseconds of CPU an operation, the median of a few rounds."""
    times = []
    for _ in range(ROUNDS):
        started = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - started) / operations)
    return statistics.median(times)


def main() -> None:
    """Run all and write `.data/benchmarks/memory.json`."""
    report = Report("memory")
    every = traces()
    for name, trace in every.items():
        for label, policy in POLICIES.items():
            cache = policy(ENTRIES)
            report.add(f"{name}: {label}", 100 * sum(map(cache.ask, trace)) / len(trace), "% hits")
    draw = random.Random(1)  # noqa: S311 - the same trace every time
    hot = draw.choices([f"portfolio:{n}:summary" for n in range(ENTRIES // 2)], k=N)
    missed = [f"new:{n}" for n in range(N)]
    asked = {"hit": hot, "insert with eviction": missed, "hits and inserts, Zipf": every["Zipf, 20,000 keys"]}
    for label, policy in TIMED.items():
        cache = policy(ENTRIES)
        for key in hot:
            cache.ask(key)
        for what, keys in asked.items():
            report.add(f"{what}: {label}", timed(lambda cache=cache, keys=keys: sum(map(cache.ask, keys)), N), "ns")
    report.write("cachebox", "theine")
