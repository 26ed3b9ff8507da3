"""The freshness rule, without I/O: what one process knows of invalidations, and what it may conclude.

An entry is valid if and only if it was born after the last invalidation of every scope it belongs to. `born` is the
newest clock this process had observed before the load began; an older `born` is only ever conservative.

Two numbers are kept apart: `seen`, any clock observed by any means (good for `born`, nothing else), and `position`, the
journal applied up to here without a hole (good for `fresh_after`, lag and gaps).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import count
from typing import NamedTuple

TABLE_SCOPES = 100_000
"""Scopes remembered by one process; about 15 MB. Forgetting more raises `since`, which only costs questions."""
_BEGINNINGS = count(step=1 << 48)
"""Where the versions of each table begin: far from those of any other."""


class Verdict(Enum):
    """What may be done with an entry."""

    VALID = "valid"
    INVALID = "invalid"
    ASK = "ask the ledger"


class Record(NamedTuple):
    """One line of the journal: an invalidation. Clocks are microseconds of the deployment's logical clock."""

    clock: int
    before: int
    start: int
    scopes: tuple[str, ...]


class Freshness:
    """One process's table of scope clocks, complete since `since`."""

    def __init__(self) -> None:
        self.seen = 0
        self.position = 0
        self.since = 0
        self.start = 0
        self.heard_at = float("inf")
        """When the journal last answered, seconds of `link.now_s`; a stalled process must not trust its table."""
        self.run = ""
        """The server run this process last vouched for."""
        self.version = next(_BEGINNINGS)
        """Changes whenever something may have become invalid: an entry checked at this version need not be again.

        No two tables of a process share one: a `Call` outlives a connection, and remembers what it looked up by it.
        """
        self._table: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        self._moment = 0

    # -- what was observed ------------------------------------------------------------------------------------------

    def observe(self, clock: int) -> None:
        """Take note of a clock that some reply carried, or a caller."""
        self.seen = max(self.seen, int(clock))  # a plain int also of a `Clock`: it goes on to the server

    def invalidated(self, scopes: Iterable[str], clock: int) -> None:
        """Apply invalidations known from anywhere: this process's own, or the ledger's answer."""
        table = self._table
        for scope in scopes:
            if clock > table.get(scope, 0):
                table[scope] = clock
        self.seen = max(self.seen, clock)
        self.version += 1
        if len(table) > TABLE_SCOPES:
            self._forget()

    def applied(self, record: Record) -> bool:
        """Apply the next record of the journal; False where one is missing before it, or the ledger began anew."""
        if record.before != self.position or record.start != self.start:
            return False
        self.position = record.clock
        self.invalidated(record.scopes, record.clock)
        return True

    def resync(self, clock: int, start: int, since: int, newest: Mapping[str, int]) -> None:
        """Begin again at the ledger's clock, knowing its *newest* scopes: every one invalidated after *since*.

        *newest* was read after *clock*. Nothing is thrown away: an entry born before `since` asks the ledger before it
        is served. This process's own invalidations may be newer than a reply that was already under way: they stay.
        """
        self.position, self.start = clock, start
        self.seen = max(self.seen, clock)
        self.since = max(self.since, since) if self.since > clock else since  # what was forgotten beyond it stays so
        own = {scope: last for scope, last in self._table.items() if last > clock}
        self._table = {**newest, **{scope: max(last, newest.get(scope, 0)) for scope, last in own.items()}}
        self.version += 1

    # -- invalidations the server does not know yet -----------------------------------------------------------------

    def moment(self) -> int:
        """Return a mark for a load that begins now; it orders loads and queued invalidations of this process only."""
        return self._moment

    def queued(self, scopes: Iterable[str]) -> None:
        """Apply an invalidation that could not be sent: everything loaded before this moment is invalid here."""
        self._moment += 1
        for scope in scopes:
            self._pending[scope] = self._moment
        self.version += 1

    def delivered(self, scopes: Iterable[str], moment: int) -> None:
        """Forget queued invalidations up to *moment*: they have a clock now, `invalidated` was called with it."""
        for scope in scopes:
            if self._pending.get(scope, moment + 1) <= moment:
                del self._pending[scope]

    def is_pending(self, scopes: Iterable[str]) -> bool:
        """Return whether an invalidation of one of *scopes* still waits to be sent: the server cannot be trusted."""
        return bool(self._pending) and any(scope in self._pending for scope in scopes)

    # -- decisions --------------------------------------------------------------------------------------------------

    def latest(self, scopes: Iterable[str]) -> int:
        """Return the clock an entry must at least be born at, as far as this process knows."""
        newest, known = self.start, self._table.get
        for scope in scopes:
            clock = known(scope, 0)
            newest = max(clock, newest)
        return newest

    def verdict(self, born: int, scopes: Iterable[str], moment: int | None = None) -> Verdict:
        """Decide about an entry. *moment* is when this process loaded it; None for one that came from the server."""
        if self._pending:
            for scope in scopes:
                queued = self._pending.get(scope)
                if queued is not None and (moment is None or moment < queued):
                    return Verdict.INVALID
        if born < self.latest(scopes):
            return Verdict.INVALID
        return Verdict.VALID if born >= self.since else Verdict.ASK

    def may_join(self, born: int, scopes: Iterable[str], moment: int | None = None) -> bool:
        """Return whether a caller may take the value of a load that began at *born*."""
        return self.verdict(born, scopes, moment) is Verdict.VALID

    def heard(self, clocks: Mapping[str, int], clock: int) -> None:
        """Take the ledger's own word for some scopes into the table."""
        table = self._table
        changed = False
        for scope, last in clocks.items():
            if last > table.get(scope, 0):
                table[scope] = last
                changed = True
        self.observe(clock)
        if changed:
            self.version += 1

    def _forget(self) -> None:
        """Drop the older half of the table; entries that old ask the ledger from now on."""
        by_age = sorted(self._table.items(), key=lambda item: item[1])
        dropped = by_age[: len(by_age) // 2]
        self.since = max(self.since, dropped[-1][1])
        self._table = dict(by_age[len(dropped) :])


class LedgerAnswer(NamedTuple):
    """What the ledger says of some scopes, read in one command."""

    clock: int
    start: int
    floor: int
    clocks: dict[str, int]

    def allows(self, born: int, scopes: Iterable[str]) -> bool:
        """Return whether an entry born then is valid. A missing ledger (clock 0) allows nothing."""
        if not self.clock or born < self.start or born < self.floor:
            return False
        return all(self.clocks.get(scope, 0) <= born for scope in scopes)
