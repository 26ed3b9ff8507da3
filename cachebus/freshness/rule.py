"""The freshness rule, without I/O: what one process knows of invalidations, and what it may conclude.

An entry is valid if and only if it was born after the last invalidation of every scope it belongs to, in the era of the
ledger. `born` is the newest clock this process had observed before the load began; an older `born` is only ever
conservative. A number means something in its era alone, and nobody compares eras but for equality.

Two numbers are kept apart: `seen`, any clock of the ledger observed by any means (good for `born`, nothing else), and
`position`, the journal applied up to here without a hole (good for `fresh_after`, lag and gaps).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from itertools import count
from typing import NamedTuple, Protocol

from cachebus.freshness.clock import Born, is_queued, parse_clock

TRUST_S = 2.0
"""How long the table is trusted after the *sending* of the newest question of the journal that was answered, and its
answer applied. A process that hears nothing for longer (stopped, deaf) asks the ledger."""
TABLE_SCOPES = 100_000
"""Scopes remembered by one process; about 15 MB. Forgetting more raises `since`, which only costs questions."""
REPLACED_KEYS = 10_000
"""Plain values remembered as set elsewhere; of others, copies older than the first forgotten are read again."""
_VERSIONS = count(step=1 << 48)
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
    era: str
    scopes: tuple[str, ...]
    set: str = ""
    """The key of a plain value that was set: copies of it in memory are old."""


class Held(Protocol):
    """A value in memory, as far as the rule looks at it."""

    checked: int
    """The `version` at which it was last found to hold: it need not be looked at again while that is the same."""

    @property
    def as_of(self) -> Born: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def moment(self) -> int | None: ...


class Freshness:
    """One process's table of scope clocks, complete since `since`, in one era."""

    def __init__(self, era: str = "") -> None:
        self.era = era
        """'' before the first handshake: what is loaded then holds in this process alone."""
        self.seen = 0
        self.position = 0
        self.since = 0
        self.heard_at = float("inf")
        """When the newest question that the table has caught up with was sent, seconds of `client.now_s`; minus
        infinity while the journal is not followed. Without a journal nobody else invalidates."""
        self.last_heard_at = float("-inf")
        """The same, but kept while the connection is lost: how old what this process knows is at most."""
        self.version = next(_VERSIONS)
        """Changes whenever something may have become invalid: an entry checked at this version need not be again.

        No two tables of a process share one: a `Call` outlives a connection, and remembers what it looked up by it.
        """
        self._keep({}, {})
        self._older_until = 0
        self._replaced: dict[str, int] = {}
        self._replaced_since = 0
        self._pending: dict[str, int] = {}
        self.watchers: tuple[Callable[[Iterable[str], int], None], ...] = ()
        """Who is told of each invalidation that this process hears of, with its clock; twice of its own."""
        self._moment = self.version  # later than any moment of the tables before it: a miss may be older than this one

    @property
    def born(self) -> Born:
        """When a load that begins now is born."""
        return Born(self.seen, self.era)

    # -- what was observed ------------------------------------------------------------------------------------------

    def observe(self, clock: int) -> None:
        """Take note of the ledger's clock. Never of a number that a caller brought."""
        self.seen = max(self.seen, clock)

    def invalidated(self, scopes: Iterable[str], clock: int) -> None:
        """Apply invalidations of this era: this process's own, or the journal's."""
        for scope in scopes:
            if clock > self._last(scope):
                self._young[scope] = clock
        self.seen = max(self.seen, clock)
        self.version += 1
        if len(self._young) > TABLE_SCOPES // 2:
            self._forget()
        for watcher in self.watchers:
            watcher(scopes, clock)

    def applied(self, record: Record) -> bool:
        """Apply the next record of the journal; False where one is missing before it."""
        if record.before != self.position or record.era != self.era:
            return False
        self.position = record.clock
        if record.set:
            self.replaced(record.set, record.clock)
        if record.scopes:
            self.invalidated(record.scopes, record.clock)
        self.seen = max(self.seen, record.clock)
        return True

    def heard(self, sent: float) -> None:
        """Trust the table from a question that was *sent* then, and whose answer it has caught up with."""
        self.heard_at = self.last_heard_at = sent

    def lost(self) -> None:
        """Trust nothing: the connection of the journal is lost, or late."""
        self.heard_at = float("-inf")

    def hears(self, now: float) -> bool:
        """Return whether the table is trusted: a process that was stopped, or is deaf, must not."""
        return now - self.heard_at <= TRUST_S

    def has_reached(self, fresh_after: str) -> bool:
        """Return whether the journal is applied up to a clock from outside: then any read of now meets that demand."""
        if self.heard_at == float("inf"):
            return True
        clock = parse_clock(fresh_after)
        if clock is None or is_queued(fresh_after):
            return False
        return clock.era == self.era and clock.number <= self.position

    def enter(self, era: str, clock: int, since: int, newest: Mapping[str, int]) -> None:
        """Begin in another era: whatever was known is void. Only the handshake of a new connection leads here."""
        self.era, self.seen = era, 0
        self._keep({}, {})
        self.since = 0
        self.lost()
        self.resync(clock, since, newest)

    def resync(self, clock: int, since: int, newest: Mapping[str, int]) -> None:
        """Begin again at the ledger's clock, knowing its *newest* scopes: every one invalidated after *since*.

        *newest* was read with *clock*. Nothing is thrown away: an entry born before `since` asks the ledger before it
        is served. This process's own invalidations may be newer than a reply that was already under way: they stay.
        """
        self.position = clock
        self._replaced, self._replaced_since = {}, clock
        self.seen = max(self.seen, clock)
        self.since = max(self.since, since) if self.since > clock else since  # what was forgotten beyond it stays so
        known = {**self._older, **self._young}
        own = {scope: max(last, newest.get(scope, 0)) for scope, last in known.items() if last > clock}
        self._older_until = 0
        self._keep({}, {**newest, **own})
        self.version += 1

    # -- plain values that were set ---------------------------------------------------------------------------------

    def replaced(self, key: str, clock: int) -> None:
        """A plain value was set: copies that memory took before are old. Nothing becomes invalid."""
        self._replaced[key] = max(clock, self._replaced.pop(key, 0))
        if len(self._replaced) > REPLACED_KEYS:
            oldest = next(iter(self._replaced))
            self._replaced_since = max(self._replaced_since, self._replaced.pop(oldest))

    def replaced_at(self, key: str) -> int:
        """Return the clock from which on a copy of a plain value in memory may be served."""
        return self._replaced.get(key, self._replaced_since)

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

    def latest(self, scopes: Collection[str]) -> int:
        """Return the clock an entry must at least be born at, as far as this process knows.

        Most scopes are not in the table, which is found out for all at once, at half the price.
        """
        if self._young_names.isdisjoint(scopes) and (not self._older or self._older_names.isdisjoint(scopes)):
            return 0
        newest, young, older = 0, self._young.get, self._older.get
        for scope in scopes:
            clock = young(scope) or older(scope, 0)
            if clock > newest:  # noqa: PLR1730 - `max` takes twice as long, at every read after an invalidation
                newest = clock
        return newest

    def judge(
        self,
        born: Born,
        scopes: Collection[str],
        *,
        heard: bool,
        moment: int | None = None,
    ) -> Verdict:
        """Decide whether a value may be served, or a load that began then be joined: the one place that says so.

        *heard*: whether the table is trusted (`hears`, and nothing more was demanded). *moment*: when this process
        loaded it; None for one that came from the server.
        """
        if self._pending and self._is_queued_after(scopes, moment):
            return Verdict.INVALID
        if born.era != self.era or born.number < self.latest(scopes):
            return Verdict.INVALID
        return Verdict.VALID if heard and born.number >= self.since else Verdict.ASK

    def holds(self, held: Held) -> bool:
        """Return whether `judge` says VALID of what memory holds, where the table is trusted; note when that was so.

        Any thread may ask: the version is read before the table, what may have left the table after it, the era last.
        """
        version, born, scopes = self.version, held.as_of, held.scopes
        if self._pending and self._is_queued_after(scopes, held.moment):
            return False
        is_named = not self._young_names.isdisjoint(scopes) or (
            self._older and not self._older_names.isdisjoint(scopes)
        )
        if is_named and born.number < self.latest(scopes):
            return False
        if born.number < self.since or born.era != self.era:
            return False
        held.checked = version
        return True

    def is_overtaken(self, born: Born, late_scopes: Iterable[str], came_at: int) -> bool:
        """Return whether a load that was joined is too old for a caller who came when `seen` was *came_at*.

        *late_scopes*: tags that were known only after the load. One of them was invalidated after the load began and
        before the caller came: the next load is for this caller.
        """
        return born.era == self.era and any(born.number < self._last(scope) <= came_at for scope in late_scopes)

    def learn(self, clocks: Mapping[str, int], clock: int) -> None:
        """Take the ledger's own word for some scopes into the table."""
        changed = False
        for scope, last in clocks.items():
            if last > self._last(scope):
                self._young[scope] = last
                changed = True
        self.observe(clock)
        if changed:
            self.version += 1

    def _is_queued_after(self, scopes: Iterable[str], moment: int | None) -> bool:
        for scope in scopes:
            queued = self._pending.get(scope)
            if queued is not None and (moment is None or moment < queued):
                return True
        return False

    def _last(self, scope: str) -> int:
        return self._young.get(scope) or self._older.get(scope, 0)

    def _forget(self) -> None:
        """Drop the older generation; entries that old ask the ledger from now on.

        In this order, because other threads may be looking: what is no longer in the table is older than `since`.
        """
        self.since = max(self.since, self._older_until)
        self._older_until = self.seen
        self._keep(self._young, {})

    def _keep(self, older: dict[str, int], young: dict[str, int]) -> None:
        """Take these for the table: two generations, so that to forget what is oldest is to drop one.

        Whoever looks does so in the other order. The views of their keys are kept: to make one costs half a look.
        """
        self._older, self._older_names = older, older.keys()
        self._young, self._young_names = young, young.keys()


class LedgerAnswer(NamedTuple):
    """What the ledger says of some scopes, read in one command."""

    era: str
    """'' where the ledger is gone, or of another era than the one that was asked about: it allows nothing."""
    clock: int
    floor: int
    clocks: dict[str, int]

    def allows(self, born: Born, scopes: Iterable[str]) -> bool:
        """Return whether an entry born then is valid."""
        if not self.era or born.era != self.era or born.number < self.floor:
            return False
        return all(self.clocks.get(scope, 0) <= born.number for scope in scopes)
