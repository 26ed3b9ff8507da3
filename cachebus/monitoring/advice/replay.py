"""What would have been: a recording run through the library's own memory tier, with other TTLs or another size.

Redis is modelled as what it is to a read: one value a key, until its TTL ends or a scope of it is invalidated. A value
that was there before the recording began has an age that nobody knows; it is drawn by the key's hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cachebus.cache.tiers.s3fifo import MOST_HITS, CachedValue, S3Fifo
from cachebus.freshness.clock import Born
from cachebus.monitoring.advice.trace import KeyFacts, SeenLoad, SeenRead, Trace

REDIS_MS = 1.0
"""What a read waits for Redis."""
GROUPS = 16
"""Keys are counted in so many groups, by their hash: what these differ by is the error."""
PLAIN_TTL_MS = 300_000
"""Of plain values, whose TTLs a recording does not know."""
_BORN = Born(0, "")


class Tally:
    """Reads and how they were answered."""

    __slots__ = ("hits", "load_ms", "loads", "memory", "reads", "wait_ms")

    def __init__(self) -> None:
        self.reads = 0
        self.memory = 0
        self.hits = 0
        """Without a load of their own: by memory or Redis."""
        self.loads = 0
        """Whatever for."""
        self.load_ms = 0.0
        self.wait_ms = 0.0

    def add(self, other: Tally) -> Tally:
        """Add another one; return this one."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def scattered(key: int) -> float:
    """Return a number from 0 to 1 that goes with a key, but not by its size: keys are chosen by that."""
    return key * 2_654_435_761 % 2**32 / 2**32


def tallied(tallies: Sequence[Tally]) -> Tally:
    """Return the sum of several."""
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole


class SharedValue(NamedTuple):
    """What Redis has of a key."""

    loaded_at: int
    fresh_until: int


@dataclass(slots=True)
class WhatIf:
    """What is different from what was recorded."""

    entries: int | None = None
    """What each process's memory may hold of the sampled keys; None: there is no memory, only Redis."""
    ttls_ms: Mapping[str, int] = field(default_factory=dict)
    """By view."""


@dataclass(slots=True)
class Replayed:
    """What came of it. Both halves of the time are apart."""

    views: list[list[Tally]]
    """By view: `GROUPS` of the first half, then as many of the second."""
    processes: list[tuple[Tally, Tally]]

    def view(self, place: int) -> Tally:
        """Return one view's sum."""
        return tallied(self.views[place])


class Replay:
    """Runs a trace. Pure."""

    def __init__(self, trace: Trace, accesses: Sequence[SeenRead] | None = None) -> None:
        """*accesses*: those of some keys only."""
        self._trace = trace
        self._accesses = trace.accesses if accesses is None else accesses
        self._names = {key: f"{key:x}" for key in trace.keys}
        self._keys = trace.keys if accesses is None else {access.key: trace.keys[access.key] for access in accesses}
        self._load_ms = load_times(trace)
        self._background = [
            load
            for load in trace.loads
            if load.key in self._keys and (load.purpose == 2 or (load.purpose == 1 and trace.is_caused(load)))
        ]

    def run(self, what: WhatIf) -> Replayed:
        """Return what would have come of the same reads, invalidations and schedules."""
        running = _Running(self._trace, self._keys, self._names, self._load_ms, what)
        background, begun = self._background, 0
        for access in self._accesses:
            while begun < len(background) and background[begun].at_ms <= access.at_ms:
                running.load(background[begun])
                begun += 1
            running.read(access)
        return Replayed(running.views, running.processes)


class _Running:
    """The state of one replay."""

    def __init__(
        self,
        trace: Trace,
        keys: Mapping[int, KeyFacts],
        names: Mapping[int, str],
        load_ms: Mapping[int, float],
        what: WhatIf,
    ) -> None:
        self._ended = trace.ended
        self._keys = keys
        self._names = names
        self._load_ms = load_ms
        self._ttls = [what.ttls_ms.get(view.name, view.ttl_ms or PLAIN_TTL_MS) for view in trace.views]
        self._stale = [view.stale_ms for view in trace.views]
        self._half_ms = trace.seconds * 500
        self._memories = [S3Fifo(what.entries) if what.entries is not None else None for _ in trace.processes]
        self._redis: dict[int, SharedValue] = {}
        self.views = [[Tally() for _ in range(2 * GROUPS)] for _ in trace.views]
        self.processes = [(Tally(), Tally()) for _ in trace.processes]
        for place, facts in enumerate(trace.processes):
            for key, left_ms, hits in facts.held:
                if key in keys:
                    view = keys[key].view
                    loaded_at = left_ms - (trace.views[view].ttl_ms or PLAIN_TTL_MS)
                    self._put(place, key, SharedValue(loaded_at, loaded_at + self._ttls[view]), hits)

    def load(self, load: SeenLoad) -> None:
        """Load as a schedule or an event did."""
        view = self._keys[load.key].view
        self._put(load.process, load.key, SharedValue(load.at_ms - load.us // 1000, load.at_ms + self._ttls[view]))
        self._spend(self.views[view][(load.at_ms >= self._half_ms) * GROUPS + load.key % GROUPS], load.us / 1000)

    def read(self, access: SeenRead) -> None:
        """Read: from memory, from Redis, or by a load."""
        at, key, process, loaded = access
        view = self._keys[key].view
        later = at >= self._half_ms
        tally, of_process = self.views[view][later * GROUPS + key % GROUPS], self.processes[process][later]
        tally.reads += 1
        of_process.reads += 1
        memory = self._memories[process]
        if memory is not None:
            held = memory.held.get(self._names[key])
            if held is not None and at < held.fresh_until and self._ended(key, int(held.loaded_at), at) is None:
                if held.hits < MOST_HITS:
                    held.hits += 1
                tally.memory += 1
                tally.hits += 1
                of_process.memory += 1
                return
        tally.wait_ms += REDIS_MS
        found, ttl = self._redis.get(key), self._ttls[view]
        if found is None and not loaded:  # it was there before the recording began
            age = int(scattered(key) * ttl)
            found = SharedValue(at - age, at - age + ttl)
        if (
            found is None
            or at >= found.fresh_until + self._stale[view]
            or self._ended(key, found.loaded_at, at) is not None
        ):
            found = SharedValue(at, at + ttl)
            self._spend(tally, self._load_ms[key])
            tally.wait_ms += self._load_ms[key]
        else:
            tally.hits += 1
            if at >= found.fresh_until:  # served, and renewed behind the reader
                found = SharedValue(at, at + ttl)
                self._spend(tally, self._load_ms[key])
        self._put(process, key, found)

    def _spend(self, tally: Tally, load_ms: float) -> None:
        tally.loads += 1
        tally.load_ms += load_ms

    def _put(self, process: int, key: int, value: SharedValue, hits: int = 0) -> None:
        """Keep a value in Redis, and in the memory of a process."""
        self._redis[key] = value
        memory = self._memories[process]
        if memory is None:
            return
        memory.put(
            self._names[key],
            CachedValue(
                value=None,
                payload=None,
                as_of=_BORN,
                moment=None,
                checked=0,
                scopes=(),
                fresh_until=value.fresh_until,
                early_at=0,
                keep_until=0,
                loaded_at=value.loaded_at,
                load_ms=0,
                hits=hits,
            ),
            0,
        )


def load_times(trace: Trace) -> dict[int, float]:
    """Return by key how long a load takes, in ms: its own average, or else its view's."""
    own: dict[int, list[int]] = {}
    of_view: list[list[int]] = [[] for _ in trace.views]
    for load in trace.loads:
        own.setdefault(load.key, []).append(load.us)
        of_view[trace.keys[load.key].view].append(load.us)
    usual = [sum(times) / len(times) if times else _counted_us(trace, place) for place, times in enumerate(of_view)]
    return {
        key: (sum(own[key]) / len(own[key]) if key in own else usual[facts.view]) / 1000
        for key, facts in trace.keys.items()
    }


def _counted_us(trace: Trace, place: int) -> float:
    counters = trace.counted.get(trace.views[place].name)
    return counters.load_ms * 1000 / counters.loads if counters is not None and counters.loads else 0.0
