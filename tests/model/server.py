"""The server of the model: entries, ledger and journal of one run, doing what the Lua scripts do.

Time is in ticks of a sixteenth of a second, far longer than the clock's resolution.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cachebus.freshness.clock import Born
from cachebus.freshness.rule import LedgerAnswer, Record

if TYPE_CHECKING:
    from tests.model.process import Process
    from tests.model.world import World

KEEP = 40
"""How long the ledger remembers a scope, ticks."""
NEWEST = 1
"""How many of the newest scopes a process learns when it begins again."""
AHEAD, CEILING = 80, 10**6
"""A clock so far ahead is absurd; where numbers end."""


class Entry(NamedTuple):
    """A stored value; its number tells which state of the database it is."""

    born: Born
    version: int
    until: int


class Ledger:
    """The sorted set."""

    def __init__(self, era: str, clock: int, run: int) -> None:
        self.era, self.clock, self.run, self.floor = era, clock, run, 0
        self.last: dict[str, int] = {}

    def newest(self, names: Sequence[str]) -> int:
        """Return the clock an entry with these scopes must at least be born at."""
        return max(self.floor, *(self.last.get(name, 0) for name in names))


class Server:
    """One run of a server. It may trim and evict; its successor has an older copy of it."""

    def __init__(self, world: World, run: int, skew: int = 0, copy: bytes | None = None) -> None:
        self.world, self.run, self.skew, self.deposed = world, run, skew, False
        self.ledger: Ledger | None
        self.ledger, self.journal, self.entries = pickle.loads(copy) if copy else (None, [], {})  # noqa: S301 - our own

    def time(self) -> int:
        """Return the server's time, which may be behind the world's."""
        return max(1, self.world.now + self.skew)

    def copy(self) -> bytes:
        """Return all that it stores, as a replica or a file would have it."""
        return pickle.dumps((self.ledger, self.journal, self.entries))

    def open(self, process: Process) -> Ledger:
        """As `open.lua`: the handshake, and the beginning of every script that writes."""
        ledger, off = self.ledger, self.world.off
        if ledger and ledger.run != self.run:
            knows_all = (process.freshness.era, process.freshness.position) == (ledger.era, ledger.clock)
            if "run" in off or ("vouch" in off and knows_all):
                ledger.run = self.run
        absurd = ledger is not None and ledger.clock > self.time() + AHEAD and "heal" not in off
        if ledger is None or ledger.run != self.run or absurd:
            self.world.eras += 1
            ledger = self.ledger = Ledger(str(self.world.eras), self.time(), self.run)
            self.journal = []
        return ledger

    def newest(self, ledger: Ledger) -> tuple[int, dict[str, int]]:
        """As `open.lua`: the newest scopes, and the clock since which none is missing."""
        newest = dict(sorted(ledger.last.items(), key=lambda scope: -scope[1])[:NEWEST])
        cut = len(ledger.last) >= NEWEST and "newest" not in self.world.off
        return (min(newest.values()) if cut and newest else ledger.floor), newest

    def invalidate(self, process: Process, names: tuple[str, ...], asked: Sequence[str]) -> tuple[Born, int]:
        """As `invalidate.lua`. Returns its clock, and the newest invalidation of *asked* before it."""
        ledger = self.open(process)
        before, prior = ledger.clock, ledger.newest(asked)
        clock = ledger.clock = min(max(before + 1, self.time()), CEILING)
        ledger.last.update(dict.fromkeys(names, clock))
        for scope in [scope for scope, last in ledger.last.items() if last < clock - KEEP]:
            forgotten = ledger.last.pop(scope)
            if "floor" not in self.world.off:
                ledger.floor = max(ledger.floor, forgotten)
        self.journal.append(Record(clock, before, ledger.era, names))
        return Born(clock, ledger.era), prior

    def answer(self, era: str, names: Sequence[str]) -> LedgerAnswer:
        """As `ZMSCORE` of the ledger, asked by a process in *era*."""
        ledger = self.ledger
        if ledger is None or ledger.era != era:
            return LedgerAnswer("", 0, 0, {})
        return LedgerAnswer(era, ledger.clock, ledger.floor, {name: ledger.last.get(name, 0) for name in names})

    def state(self) -> Any:
        """Return everything that can still matter."""
        ledger = self.ledger
        return (
            ledger and (ledger.era, ledger.clock, ledger.run, ledger.floor, tuple(sorted(ledger.last.items()))),
            tuple(self.journal),
            tuple(self.entries.items()),
        )
