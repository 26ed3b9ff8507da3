"""The memory tier by itself, without a cache around it: what it answers of a run of reads."""

from __future__ import annotations

from collections.abc import Iterable

from cachebus.cache.tiers.s3fifo import MOST_HITS, CachedValue, S3Fifo
from cachebus.freshness.clock import Born


def hits_of_memory(keys: Iterable[str], entries: int) -> int:
    """Return how many of these reads it answers."""
    memory, hits = S3Fifo(entries), 0
    for key in keys:
        held = memory.held.get(key)
        if held is None:
            memory.put(key, value_in_memory(), 10)
        else:
            hits += 1
            held.hits = min(held.hits + 1, MOST_HITS)
        assert len(memory) <= entries
    return hits


def value_in_memory() -> CachedValue:
    """Return a value that never ends."""
    return CachedValue(
        value=1,
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
