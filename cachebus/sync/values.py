"""Atomic values for code without an event loop: Flask, Django, Celery, scripts."""

from __future__ import annotations

from cachebus.cache.atomic.values import AtomicValues as AsyncAtomicValues
from cachebus.sync.forwarders import AtomicValuesForwarders
from cachebus.sync.part import SyncCache, asynchronous


class AtomicValues(AtomicValuesForwarders):
    """`cachebus.AtomicValues` for callers without a loop, over a `Cache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache) -> None:
        super().__init__(cache, AsyncAtomicValues(asynchronous(cache, "AtomicValues")))
