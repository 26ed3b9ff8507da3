"""A recording, put together: what all processes read, loaded and heard, in one order of time."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import NamedTuple

import msgspec

from cachebus.cache.foresight.recording import (
    Chunk,
    Counters,
    HeldRow,
    LoadRow,
    ReadRow,
    RecordedView,
    Recording,
    decode_chunk,
    numbers,
)
from cachebus.errors import ConfigurationError

FOLLOWS_MS = 5_000
"""A renewal so soon after an invalidation of its key is one that the invalidation caused."""


class SeenRead(NamedTuple):
    """One sampled read. Times are milliseconds from the recording's begin."""

    at_ms: int
    key: int
    process: int
    loaded: int
    """1: this read loaded."""


class SeenLoad(NamedTuple):
    """One sampled load; `at_ms` is its end."""

    at_ms: int
    key: int
    process: int
    us: int
    bytes: int
    value: int
    purpose: int
    """0: a reader waited; 1: renewed; 2: of a schedule."""


class KeyFacts(NamedTuple):
    """What is known of a key."""

    view: int
    identity: int
    scopes: tuple[tuple[int, int], ...]


class ProcessFacts(NamedTuple):
    """What is known of a process beside its reads."""

    name: str
    entries_most: int
    reads: int
    """All of them, from its counters."""
    memory_hits: int
    keys: frozenset[int]
    """The sampled ones that it met."""
    rate: float
    """Share of the keys it met that are sampled: near the recording's, and the better estimate."""
    held: list[HeldRow]


class Trace:
    """What was recorded, in the order of time. Made by `of`."""

    def __init__(self, recording: Recording) -> None:
        """Raises: ConfigurationError for a part that is damaged, or of another version."""
        wanted = recording.wanted
        self.rate = wanted.rate
        self.seconds = (wanted.until_us - wanted.from_us) / 1_000_000
        self.views: list[RecordedView] = []
        self.keys: dict[int, KeyFacts] = {}
        self.processes: list[ProcessFacts] = []
        self.counted: dict[str, Counters] = {}
        self.tags = Counter[str]()
        self.lost = 0
        self._from_us, self._ms = wanted.from_us, round(self.seconds * 1000)
        self._places: dict[str, int] = {}
        self._dying: dict[int, list[int]] = {}
        heard: dict[int, set[int]] = {}
        by_process: dict[str, list[Chunk]] = {}
        for encoded in recording.chunks:
            chunk = decode_chunk(encoded)
            by_process.setdefault(chunk.process, []).append(chunk)
        accesses, loads = [], []
        for place, (name, chunks) in enumerate(sorted(by_process.items())):
            found = [self._add(chunk, place, heard) for chunk in chunks]
            accesses.append(sorted(access for each, _ in found for access in each))
            loads.append(sorted(load for _, each in found for load in each))
            counted = [counters for chunk in chunks for counters in chunk.counted.values()]
            self.processes.append(
                ProcessFacts(
                    name,
                    chunks[-1].entries_most,
                    sum(counters.reads for counters in counted),
                    sum(counters.memory for counters in counted),
                    (met := frozenset(key.key for chunk in chunks for key in chunk.keys)),
                    len(met) / max(1, chunks[-1].met),
                    [HeldRow(*row) for chunk in chunks for row in numbers(chunk.held, 3)],
                )
            )
        self.accesses = list(merge(*accesses))
        self.loads = list(merge(*loads))
        for scope, at in heard.items():
            self._dying[scope] = sorted(at)
        self._enders = {
            key: enders
            for key, facts in self.keys.items()
            if (enders := [self._dying[scope] for scope, _ in facts.scopes if scope in self._dying])
        }

    @property
    def key_rate(self) -> float:
        """Share of the keys that is sampled, as it turned out."""
        met = sum(len(process.keys) / process.rate for process in self.processes if process.rate)
        return sum(len(process.keys) for process in self.processes) / met if met else self.rate

    @property
    def reads(self) -> int:
        """All reads that the processes counted meanwhile."""
        return sum(counters.reads for counters in self.counted.values())

    def ended(self, key: int, after_ms: int, until_ms: int) -> int | None:
        """Return when a value of *key* that was loaded then was first invalidated, None if not by *until_ms*."""
        enders = self._enders.get(key)
        if enders is None:
            return None
        found = None
        for times in enders:
            at = bisect_right(times, after_ms)
            if at < len(times) and times[at] <= until_ms:
                found = times[at] if found is None else min(found, times[at])
        return found

    def invalidations(self) -> Iterator[tuple[int, int]]:
        """Yield when each scope of sampled keys was invalidated, in the order of time."""
        yield from sorted((at, scope) for scope, times in self._dying.items() for at in times)

    def enders_at(self, key: int, at_ms: int) -> Iterator[int]:
        """Yield which of its view's tags were invalidated then, `UNKNOWN` for the key itself or a prefix of it."""
        for scope, tag in self.keys[key].scopes:
            times = self._dying.get(scope, [])
            at = bisect_right(times, at_ms)
            if at and times[at - 1] == at_ms:
                yield tag

    def is_caused(self, load: SeenLoad) -> bool:
        """Return whether a renewal is one that an invalidation caused, not one behind a reader."""
        return self.ended(load.key, load.at_ms - FOLLOWS_MS - load.us // 1000, load.at_ms) is not None

    def _add(self, chunk: Chunk, process: int, heard: dict[int, set[int]]) -> tuple[list[SeenRead], list[SeenLoad]]:
        """Take in what one chunk says; return its reads and loads."""
        later = (chunk.base_us - self._from_us) // 1000
        places = [self._place(view) for view in chunk.views]
        for key, view, identity, scopes in map(msgspec.structs.astuple, chunk.keys):
            if not 0 <= view < len(places):
                raise ConfigurationError("recording: damaged: a key of it is of no view; record again")
            self.keys.setdefault(key, KeyFacts(places[view], identity, scopes))
        for name, counters in chunk.counted.items():
            self.counted[name] = _sum(self.counted.get(name), counters)
        self.tags.update(chunk.tags)
        self.lost += chunk.lost
        keys = self.keys
        accesses = [
            SeenRead(at + later, key, process, 0)
            for at, key in numbers(chunk.hits, 2)
            if key in keys and 0 <= at + later <= self._ms
        ]
        for at, key, _, loaded in map(ReadRow._make, numbers(chunk.reads, 4)):
            if key in keys and 0 <= at + later <= self._ms:
                accesses.append(SeenRead(at + later, key, process, loaded))
        loads = [
            SeenLoad(row.at_ms + later, row.key, process, *row[2:])
            for row in map(LoadRow._make, numbers(chunk.loads, 6))
            if row.key in keys and 0 <= row.at_ms + later <= self._ms
        ]
        for at, scope, _ in numbers(chunk.invalidations, 3):
            heard.setdefault(scope, set()).add(at + later)
        return accesses, loads

    def _place(self, view: RecordedView) -> int:
        place = self._places.setdefault(view.name, len(self.views))
        if place == len(self.views):
            self.views.append(view)
        return place


def _sum(one: Counters | None, other: Counters) -> Counters:
    if one is None:
        return other
    pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    return Counters(*(a + b for a, b in pairs))


def of_keys(accesses: Iterable[SeenRead], keys: set[int]) -> list[SeenRead]:
    """Return the reads of some keys."""
    return [access for access in accesses if access.key in keys]
