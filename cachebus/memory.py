"""L1: this process's own memory of values, bounded by entries and by bytes.

Eviction is S3-FIFO: newcomers pass through a small queue and stay only if they are asked for again, so a scan cannot
push out what is hot, and a hit moves nothing. Source: Yang et al., "FIFO queues are all you need for cache eviction",
SOSP 2023. It answers more reads than LRU: docs/decisions/0002.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

SMALL_SHARE = 0.1
"""Of the entries, how many newcomers may hold. Source: the paper's own choice."""
MOST_HITS = 3
"""Hits beyond this are not counted: an entry that was hot once must be able to cool."""


class Held(msgspec.Struct, eq=False, gc=False, kw_only=True):
    """One value in memory. Times are seconds of `link.now_s`."""

    value: Any
    payload: bytes | None
    """Bytes to decode afresh for each caller; None where `value` itself may be shared."""
    as_of: int
    """Clock up to which the entry is known to be valid: its `born`, or later where the ledger confirmed it."""
    moment: int | None
    checked: int
    """`Freshness.version` at which the scopes were last looked up."""
    scopes: tuple[str, ...]
    fresh_until: float
    early_at: float
    keep_until: float
    loaded_at: float
    load_ms: float
    hits: int = 0
    main: bool = False
    size: int = 0


class Memory:
    """Values by key, at most `most_entries` and, where given, `most_bytes` of encoded size."""

    def __init__(self, most_entries: int, most_bytes: int | None = None) -> None:
        self._most = most_entries
        self._most_small = max(1, round(most_entries * SMALL_SHARE))
        self._most_bytes = most_bytes
        self._small: OrderedDict[str, None] = OrderedDict()
        self._main: OrderedDict[str, None] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()
        self.held: dict[str, Held] = {}
        """The index; a reader takes from it directly and counts the hit (`hits`) itself."""
        self.bytes = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self.held)

    def put(self, key: str, held: Held, size: int) -> None:
        """Keep *held* of encoded *size* bytes, evicting what nobody asks for."""
        if self._most < 1 or (self._most_bytes is not None and size > self._most_bytes):
            self.drop(key)
            return
        old = self.held.get(key)
        held.size = size
        if old is not None:
            held.main, held.hits = old.main, old.hits
            self.bytes += size - old.size
        else:
            self.bytes += size
            held.main = self._ghosts.pop(key, 0) is None
            (self._main if held.main else self._small)[key] = None
        self.held[key] = held
        while len(self.held) > self._most or (self._most_bytes is not None and self.bytes > self._most_bytes):
            self._evict()

    def drop(self, key: str) -> None:
        """Forget *key*."""
        held = self.held.pop(key, None)
        if held is not None:
            self.bytes -= held.size
            del (self._main if held.main else self._small)[key]

    def clear(self) -> None:
        """Forget everything."""
        self.held.clear()
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()
        self.bytes = 0

    def sweep(self, now: float) -> int:
        """Forget what has expired; returns how many."""
        dead = [key for key, held in self.held.items() if held.keep_until <= now]
        for key in dead:
            self.drop(key)
        return len(dead)

    def _evict(self) -> None:
        if self._small and (len(self._small) > self._most_small or not self._main):
            key, _ = self._small.popitem(last=False)
            held = self.held[key]
            if held.hits:
                held.hits, held.main = 0, True
                self._main[key] = None
                return
            self._ghosts[key] = None
            if len(self._ghosts) > self._most:
                self._ghosts.popitem(last=False)
        else:
            key, _ = self._main.popitem(last=False)
            held = self.held[key]
            if held.hits:
                held.hits -= 1
                self._main[key] = None
                return
        del self.held[key]
        self.bytes -= held.size
        self.evictions += 1
