"""L1: this process's own memory of values, bounded by entries and by bytes.

Eviction is S3-FIFO: newcomers pass through a small queue and stay only if they are asked for again, so a scan cannot
push out what is hot, and a hit moves nothing. Source: Yang et al., "FIFO queues are all you need for cache eviction",
SOSP 2023. The length of the small queue is learnt from keys that return after their eviction, as in ARC (Megiddo and
Modha, FAST 2003): one that had left the small queue had too little time, one that had left the main queue too little
room. Measured beside LRU, SIEVE, ARC and W-TinyLFU: docs/decisions/0002.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from cachebus.freshness.clock import Born

SMALL_SHARE = 0.1
"""Of the entries, how many newcomers may hold at first. Source: the paper of S3-FIFO."""
LEAST_SMALL, MOST_SMALL = 0.02, 0.9
"""The bounds of what is learnt."""
SHRINK = 1.5
"""Entries that the small queue loses for a key that returns after the main queue; for one of its own it gains one. With
1 it answers a little less of skewed traffic, with 2 less of traffic that moves on."""
MOST_HITS = 3
"""Hits beyond this are not counted: an entry that was hot once must be able to cool."""


class CachedValue(msgspec.Struct, eq=False, gc=False, kw_only=True):
    """One value in memory. Times are seconds of `client.now_s`."""

    value: Any
    payload: bytes | None
    """Bytes to decode afresh for each caller; None where `value` itself may be shared."""
    as_of: Born
    """Up to when the entry is known to be valid: its `born`, or later where the ledger confirmed it."""
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
    validator: str = ""
    """Of its source, for a conditional load."""
    opened_by: Any = None
    """The codec that made `value` of the payload, for its callers to share; None where nobody did."""
    renderings: dict[Any, Any] | None = None
    """What was made from the value, by who made it (`cachebus.integrations.http.renderings`)."""
    view: str = ""
    recorded: int = -1
    """Hash of its key in the recording that runs; 0: it is not in the sample, -1: not worked out."""
    first_hits: int = 0
    """`hits` as of the begin of this value, which may have taken over those of the one before; -1: was read since."""

    @property
    def is_unread(self) -> bool:
        """Whether nobody read it again after it came here."""
        return self.hits == self.first_hits

    def cool(self, hits: int) -> None:
        """Set `hits` back, remembering whether there were any."""
        self.first_hits = hits if self.is_unread else -1
        self.hits = hits


Ended = Callable[[str, CachedValue, CachedValue | None], None]
"""Called with a key, the value that memory no longer holds, and the one that takes its place."""


class S3Fifo:
    """Values by key, at most `most_entries` and, where given, `most_bytes` of encoded size."""

    def __init__(self, most_entries: int, most_bytes: int | None = None) -> None:
        self._most = most_entries
        self.keeps = most_entries > 0
        self._most_small = max(1.0, most_entries * SMALL_SHARE)
        self._most_bytes = most_bytes
        self._small: OrderedDict[str, None] = OrderedDict()
        self._main: OrderedDict[str, None] = OrderedDict()
        self._small_ghosts: OrderedDict[str, None] = OrderedDict()
        self._main_ghosts: OrderedDict[str, None] = OrderedDict()
        self.held: dict[str, CachedValue] = {}
        """The index, always the same object."""
        self.bytes = 0
        self.evictions = 0
        self.ended: Ended | None = None
        """Who is told of each value that leaves, but for `clear`."""

    def __len__(self) -> int:
        return len(self.held)

    def put(self, key: str, held: CachedValue, size: int) -> None:
        """Keep *held* of encoded *size* bytes, evicting what nobody asks for."""
        if self._most < 1 or (self._most_bytes is not None and size > self._most_bytes):
            self.drop(key)
            return
        old = self.held.get(key)
        held.size = size
        if old is not None:
            # One less than the most, so that the first read of the new value shows.
            held.main, held.hits = old.main, min(old.hits, MOST_HITS - 1)
            held.first_hits = held.hits
            self.bytes += size - old.size
        else:
            self.bytes += size
            held.main = self._returns(key)
            (self._main if held.main else self._small)[key] = None
        self.held[key] = held
        if old is not None and self.ended is not None:
            self.ended(key, old, held)
        while len(self.held) > self._most or (self._most_bytes is not None and self.bytes > self._most_bytes):
            self._evict()

    def grow(self, key: str, held: CachedValue, extra: int) -> None:
        """Count *extra* bytes more for *held*, for what was made from it; make room, or do without it."""
        if self.held.get(key) is not held:
            return
        if self._most_bytes is not None and held.size + extra > self._most_bytes:
            held.renderings = None
            if held.opened_by is not None:
                held.value = held.opened_by = None
            return
        held.size += extra
        self.bytes += extra
        while self._most_bytes is not None and self.bytes > self._most_bytes:
            self._evict()

    def drop(self, key: str) -> None:
        """Forget *key*."""
        held = self.held.pop(key, None)
        if held is not None:
            self.bytes -= held.size
            del (self._main if held.main else self._small)[key]
            if self.ended is not None:
                self.ended(key, held, None)

    def clear(self) -> None:
        """Forget everything."""
        self.held.clear()
        self._small.clear()
        self._main.clear()
        self._small_ghosts.clear()
        self._main_ghosts.clear()
        self.bytes = 0

    def sweep(self, now: float) -> int:
        """Forget what has expired; returns how many."""
        dead = [key for key, held in self.held.items() if held.keep_until <= now]
        for key in dead:
            self.drop(key)
        return len(dead)

    def _returns(self, key: str) -> bool:
        """Learn from a key that is not held; return whether the small queue let it go too soon."""
        if key in self._small_ghosts:
            del self._small_ghosts[key]
            self._most_small = min(self._most * MOST_SMALL, self._most_small + 1)
            return True
        if key in self._main_ghosts:
            del self._main_ghosts[key]
            self._most_small = max(1.0, self._most * LEAST_SMALL, self._most_small - SHRINK)
        return False

    def _evict(self) -> None:
        if self._small and (len(self._small) > self._most_small or not self._main):
            key, _ = self._small.popitem(last=False)
            held = self.held[key]
            if held.hits:
                held.cool(0)
                held.main = True
                self._main[key] = None
                return
            ghosts = self._small_ghosts
        else:
            key, _ = self._main.popitem(last=False)
            held = self.held[key]
            if held.hits:
                held.cool(held.hits - 1)
                self._main[key] = None
                return
            ghosts = self._main_ghosts
        ghosts[key] = None
        if len(ghosts) > self._most:
            ghosts.popitem(last=False)
        del self.held[key]
        self.bytes -= held.size
        self.evictions += 1
        if self.ended is not None:
            self.ended(key, held, None)
