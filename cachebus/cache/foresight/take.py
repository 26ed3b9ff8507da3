"""What one process takes of its reads while a recording runs: bounded, in hashes, emptied into a chunk now and then."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from cachebus.cache.call import Call
from cachebus.cache.foresight.recording import (
    UNKNOWN,
    Chunk,
    Counters,
    Hasher,
    HeldRow,
    InvalidationRow,
    LoadRow,
    ReadRow,
    RecordedKey,
    RecordedView,
    Wanted,
    packed,
)
from cachebus.cache.policy import ViewPolicy
from cachebus.cache.reads.watching import ReadWatcher, WatchedRead
from cachebus.cache.stats import Purpose, ViewStats
from cachebus.cache.tiers.s3fifo import MOST_HITS, CachedValue
from cachebus.cache.upkeep.reach import pattern_of
from cachebus.cache.upkeep.reporter import Observed
from cachebus.clock import now_s

MOST_ROWS = 20_000
"""Rows of a kind between two chunks; a deployment samples 250 reads a second, so that only a surprise reaches it."""
MOST_KEYS = 50_000
"""Sampled keys of one recording in one process, about 20 MB; reads of more are counted as lost."""
PURPOSES = {Purpose.READ: 0, Purpose.REFRESH: 1, Purpose.WARM: 2}


class Readable(Protocol):
    """What is read, and watched."""

    watchers: tuple[ReadWatcher, ...]


class Recordable(Readable, Protocol):
    """What is asked of a view."""

    name: str
    identity: str | None

    @property
    def policy(self) -> ViewPolicy: ...
    @property
    def tag_templates(self) -> list[str]: ...


class Sources(NamedTuple):
    """What a recorder sees of its process."""

    views: Mapping[str, Recordable]
    stats: Callable[[], Mapping[str, ViewStats]]
    plain: Readable
    observed: Observed
    held: Mapping[str, CachedValue]
    """The memory."""


class Take:
    """One recording in one process, while it runs."""

    is_open = True

    def __init__(self, wanted: Wanted, seen: Sources, base_us: int) -> None:
        self.wanted = wanted
        self._seen = seen
        self._base_us, self._base_s = base_us, now_s()
        self._hasher = Hasher(wanted)
        self._views: dict[str, _View] = {}
        self._keys: dict[str, int] = {}
        """Keys that were met, and their hashes; 0: not in the sample."""
        self._scopes: dict[str, int] = {}
        """Those of sampled keys, and their hashes."""
        self._new: list[RecordedKey] = []
        self._hits = array("Q")
        self._reads: list[ReadRow] = []
        self._loads: list[LoadRow] = []
        self._invalidations: list[InvalidationRow] = []
        self._lost = 0
        self._counted, self._tags = self._counters()
        self._last: tuple[dict[str, Counters], Counter[str]] | None = None
        """The counters when it was closed: what is counted until the last chunk is sent is no part of it."""
        self._watched: list[Readable] = []
        self._watch()
        self._held = [*self._in_memory()]

    # -- what happens ------------------------------------------------------------------------------------------------

    def hit(self, view: Any, held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note of a hit. Any thread."""
        key = held.recorded
        if key < 0:
            key = held.recorded = self._known(view.key(*args, **kwargs), view.name, held.scopes)
        if key:
            self._hit(key)

    def read(self, seen: WatchedRead, began: float, *, loaded: bool) -> None:
        """Take note of a read that memory did not answer at once."""
        call = seen.call
        key = self._known(call.key, call.kind.view, call.scopes)
        if key and self.is_open:
            at_ms = max(0, int((began - self._base_s) * 1000))
            self._add(self._reads, ReadRow(at_ms, key, max(0, self._ms() - at_ms), int(loaded)))

    def loaded(self, call: Call, load_ms: float, payload: bytes, purpose: Purpose) -> None:
        """Take note of a load that has ended."""
        if self.is_open and (key := self._known(call.key, call.kind.view, call.scopes)):
            value = self._hasher.hash(payload)
            self._add(
                self._loads, LoadRow(self._ms(), key, round(load_ms * 1000), len(payload), value, PURPOSES[purpose])
            )

    def invalidated(self, scopes: Iterable[str], clock: int) -> None:
        """Take note of an invalidation, of scopes that sampled keys belong to."""
        if not self.is_open:
            return
        for scope in scopes:
            hashed = self._scopes.get(scope)
            if hashed is not None:
                at_ms = max(0, (clock - self._base_us) // 1000)
                self._add(self._invalidations, InvalidationRow(at_ms, hashed, clock & 0xFFFFFFFF))

    def close(self) -> None:
        """Record no more."""
        if self.is_open:
            self.is_open, self._last = False, self._counters()
        for read in self._watched:
            read.watchers = tuple(watcher for watcher in read.watchers if watcher is not self)
        self._watched = []
        for held in list(self._seen.held.values()):
            held.recorded = -1

    # -- what is sent ------------------------------------------------------------------------------------------------

    def chunk(self, process: str, entries_most: int) -> tuple[Chunk, int]:
        """Return what was recorded since the last chunk, and how many reads are in it."""
        self._watch()
        hits, self._hits = self._hits, array("Q")
        reads, self._reads = self._reads, []
        loads, self._loads = self._loads, []
        invalidations, self._invalidations = self._invalidations, []
        new, self._new = self._new, []
        held, self._held = self._held, []
        lost, self._lost = self._lost, 0
        before, tags_before = self._counted, self._tags
        self._counted, self._tags = self._last if self._last is not None else self._counters()
        chunk = Chunk(
            process=process,
            base_us=self._base_us,
            until_ms=self._ms(),
            entries_most=entries_most,
            views=tuple(view.recorded for view in self._views.values()),
            counted={name: _risen(counted, before.get(name)) for name, counted in self._counted.items()},
            tags=dict(self._tags - tags_before),
            lost=lost,
            met=len(self._keys),
            keys=tuple(new),
            held=packed(held),
            hits=hits.tobytes(),
            reads=packed(reads),
            loads=packed(loads),
            invalidations=packed(invalidations),
        )
        return chunk, len(hits) + len(reads)

    def _counters(self) -> tuple[dict[str, Counters], Counter[str]]:
        """Return what each view has counted, and how many tags were invalidated from here, by template."""
        counted = {name: _counted(stats) for name, stats in self._seen.stats().items()}
        return counted, self._seen.observed.tags_invalidated()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _in_memory(self) -> Iterator[HeldRow]:
        for key, held in self._seen.held.items():
            left_ms = int((held.fresh_until - self._base_s) * 1000)
            if left_ms > 0 and (known := self._known(key, held.view, held.scopes)):
                yield HeldRow(known, left_ms, MOST_HITS if held.main else held.hits)

    def _watch(self) -> None:
        """Watch the reads of each view, also of those declared meanwhile."""
        if not self.is_open:
            return
        for read in (*self._seen.views.values(), self._seen.plain):
            if self not in read.watchers:
                read.watchers = (*read.watchers, self)
                self._watched.append(read)

    def _hit(self, key: int) -> None:
        if len(self._hits) < MOST_ROWS:
            self._hits.append(key << 32 | self._ms())  # one number, so that no other thread comes between two
        else:
            self._lost += 1

    def _add(self, rows: list[Any], row: tuple[int, ...]) -> None:
        if len(rows) < MOST_ROWS:
            rows.append(row)
        else:
            self._lost += 1

    def _ms(self) -> int:
        return int((now_s() - self._base_s) * 1000)

    def _known(self, key: str, view: str, scopes: tuple[str, ...]) -> int:
        """Return the hash of a key in the sample, 0 of another; describe it when it is met first."""
        known = self._keys.get(key)
        if known is None:
            if len(self._keys) >= MOST_KEYS / self.wanted.rate:
                self._lost += 1
                return 0
            known = self._keys[key] = self._hasher.key_of(key)
            if known:
                self._describe(known, key, view, scopes)
        return known

    def _describe(self, known: int, key: str, name: str, scopes: tuple[str, ...]) -> None:
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = _View(name, self._seen.views.get(name), len(self._views))
        rows = []
        for scope in scopes:
            hashed = self._scopes.get(scope)
            if hashed is None:
                hashed = self._scopes[scope] = self._hasher.hash(scope.encode())
            tag = view.tag_of(self._seen.observed.reach.of(scope).tags) if scope.startswith("t:") else UNKNOWN
            rows.append((hashed, tag))
        identity = view.identity_in(key)
        who = self._hasher.hash(identity.encode(), 24) if identity is not None else 0
        self._new.append(RecordedKey(known, view.place, who, tuple(rows)))


class _View:
    """A view, as it is recorded."""

    def __init__(self, name: str, view: Recordable | None, place: int) -> None:
        self.place = place
        tags = tuple(view.tag_templates) if view is not None else ()
        policy = view.policy if view is not None else None
        self.recorded = RecordedView(name, policy.ttl_ms if policy else 0, policy.stale_ms if policy else 0, tags)
        self._pattern = pattern_of(name, group=view.identity) if view is not None and view.identity else None

    def tag_of(self, templates: tuple[str, ...]) -> int:
        """Return which of the view's tags one with any of *templates* is."""
        return next((at for at, tag in enumerate(self.recorded.tags) if tag in templates), UNKNOWN)

    def identity_in(self, key: str) -> str | None:
        """Return the identity in a key of the view, as it is escaped there; None where there is none."""
        found = self._pattern.fullmatch(key) if self._pattern is not None else None
        return found[1].partition("%")[0] if found is not None else None


def _counted(stats: ViewStats) -> Counters:
    missed = stats.loads + stats.load_errors + stats.misses
    return Counters(
        stats.cached_reads, stats.l1_hits, stats.l2_hits, stats.joined, missed, stats.all_loads, round(stats.load_ms)
    )


def _risen(counted: Counters, before: Counters | None) -> Counters:
    if before is None:
        return counted
    pairs = zip(msgspec.structs.astuple(counted), msgspec.structs.astuple(before), strict=True)
    return Counters(*(now - then for now, then in pairs))
