"""A deployment in miniature: one server and a few processes that use the real `Freshness`, under random schedules.

The server does what the Lua scripts do. A violation is a read that returns a value older than an invalidation which
had, before the read began, returned in the same process, been applied from its journal, or executed before the process
last found itself caught up. Each part of the rule can be left out, and each must then be missed. Time is abstract.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from cachebus.freshness import Freshness, LedgerAnswer, Record, Verdict
from cachebus.keys import scopes_of

TTL, L1_TTL, KEEP = 180, 20, 45
USERS, PROCESSES = 3, 3
NEWEST = 2
PARTS = ("born", "join", "ledger", "gap", "probe", "own", "run", "floor", "newest")


def scopes(user: int) -> tuple[str, ...]:
    """Return the scopes of a user's entry: its key, its prefix, a tag shared with others, everything."""
    return scopes_of(f"user:{user}", [f"team:{user % 2}"])


@dataclass
class Ledger:
    """The sorted set."""

    start: int
    clock: int
    run: str
    began: int
    floor: int = 0
    last: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Ledger:
        """Return a backup."""
        return Ledger(self.start, self.clock, self.run, self.began, self.floor, dict(self.last))


class Server:
    """Entries, ledger, journal; may trim, evict, and fail over to an older copy of itself."""

    def __init__(self, rnd: random.Random, off: frozenset[str]) -> None:
        self.rnd, self.off, self.now, self.run = rnd, off, 1, "run-0"
        self.database = dict.fromkeys(range(USERS), 0)
        self.entries: dict[int, dict[str, int]] = {}
        self.journal: list[Record] = []
        self.ledger: Ledger | None = None
        self.backup: Any = None
        self.returned: list[tuple[int, int, int]] = []

    def open_ledger(self, seen: int) -> Ledger:
        """As `open_ledger` in ledger.lua."""
        if self.ledger is None:
            top = self.journal[-1].clock if self.journal else 0
            start = max(self.now, seen + 1, top + 1)
            self.ledger = Ledger(start, start, "", start)
        return self.ledger

    def invalidate(self, names: tuple[str, ...], seen: int) -> int:
        """As invalidate.lua."""
        ledger = self.open_ledger(seen)
        return self._record(ledger, names, seen)

    def vouch(self, seen: int, run: str) -> Ledger:
        """As vouch.lua: *run* is the one the caller last vouched for."""
        ledger = self.open_ledger(seen)
        if ledger.run != self.run:
            ledger.run, ledger.began = self.run, ledger.clock
        if run and run != self.run and seen > ledger.began and seen > ledger.start:
            ledger.start = max(ledger.clock + 1, seen + 1, self.now)
            ledger.began = self._record(ledger, (), seen)
        return ledger

    def _record(self, ledger: Ledger, names: tuple[str, ...], seen: int) -> int:
        before, clock = ledger.clock, max(ledger.clock + 1, seen + 1, self.now)
        if not names:
            clock = max(clock, ledger.start)
        ledger.clock = clock
        ledger.last.update(dict.fromkeys(names, clock))
        for scope in [scope for scope, last in ledger.last.items() if last < clock - KEEP]:
            forgotten = ledger.last.pop(scope)
            if "floor" not in self.off:
                ledger.floor = max(ledger.floor, forgotten)
        self.journal.append(Record(clock, before, ledger.start, names))
        return clock

    def ask(self, names: tuple[str, ...]) -> LedgerAnswer:
        """As ZMSCORE."""
        ledger = self.ledger
        if ledger is None:
            return LedgerAnswer(0, 0, 0, {})
        return LedgerAnswer(ledger.clock, ledger.start, ledger.floor, {n: ledger.last.get(n, 0) for n in names})

    def newest(self) -> tuple[int, dict[str, int]]:
        """As `ledger.resync`: the newest scopes, and the clock since which none is missing."""
        ledger = self.open_ledger(0)
        newest = dict(sorted(ledger.last.items(), key=lambda scope: -scope[1])[:NEWEST])
        cut = len(newest) == NEWEST and "newest" not in self.off
        return min(newest.values()) if cut else ledger.floor, newest

    def fault(self, kind: str) -> None:
        """Lose something."""
        if kind == "trim":
            self.journal = self.journal[len(self.journal) - self.rnd.randrange(3) :] if len(self.journal) > 3 else []
        elif kind == "evict journal":
            self.journal = []
        elif kind == "evict ledger":
            self.ledger, self.now = None, self.now + 1
        elif kind == "backup" and self.ledger is not None:
            self.backup = (self.ledger.copy(), list(self.journal), dict(self.entries), len(self.returned))
        elif kind == "failover" and self.backup is not None:
            self.ledger, self.journal, self.entries, kept = self.backup
            self.returned, self.backup = self.returned[:kept], None
            self.run = f"run-{int(self.run[4:]) + 1}"


class Process:
    """One process: what `Reader`, `Journal` and `Ledger` do, a step at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.boot()

    def boot(self) -> None:
        """Start with nothing."""
        self.freshness = Freshness()
        self.l1: dict[int, dict[str, int]] = {}
        self.loading: dict[int, dict[str, Any]] = {}
        self.queue: list[dict[str, Any]] = []
        self.floor = dict.fromkeys(range(USERS), 0)
        self.connect()

    def connect(self) -> None:
        """As `Ledger._welcome`."""
        freshness, server = self.freshness, self.server
        if freshness.run and ("run" in server.off or freshness.run == server.run):
            return
        ledger = server.vouch(freshness.seen, freshness.run)
        freshness.resync(ledger.clock, ledger.start, *server.newest())
        freshness.run = server.run
        self.caught_up(freshness.position)

    def tail(self) -> None:
        """As `Journal._read`: one record, or a probe where there is none."""
        freshness, server = self.freshness, self.server
        record = next((record for record in server.journal if record.clock > freshness.position), None)
        if record is None:
            ledger = server.open_ledger(freshness.seen)
            caught = "probe" in server.off or (ledger.clock, ledger.start) == (freshness.position, freshness.start)
            if not caught:
                freshness.resync(ledger.clock, ledger.start, *server.newest())
            self.caught_up(ledger.clock)
        elif not freshness.applied(record):
            if "gap" in server.off:
                freshness.position = record.clock
                freshness.invalidated(record.scopes, record.clock)
            else:
                ledger = server.open_ledger(freshness.seen)
                freshness.resync(ledger.clock, ledger.start, *server.newest())
            self.caught_up(freshness.position)
        else:
            self.caught_up(record.clock)

    def caught_up(self, clock: int) -> None:
        """The checker's: from here on this process must show everything executed up to *clock*."""
        for returned, user, version in self.server.returned:
            if returned <= clock:
                self.floor[user] = max(self.floor[user], version)

    def valid(self, entry: dict[str, int], user: int) -> bool:
        """As `Shelf.age` and `Reader._accept`, the ledger's answer lifting `as_of`."""
        verdict = self.freshness.verdict(entry["born"], scopes(user))
        if verdict is not Verdict.ASK or "ledger" in self.server.off:
            return verdict is not Verdict.INVALID
        known = self.freshness.seen
        answer = self.server.ask(scopes(user))
        if not answer.allows(entry["born"], scopes(user)):
            return False
        self.freshness.heard(answer.clocks, answer.clock)
        entry["born"] = max(entry["born"], min(known, answer.clock))
        return True

    def read(self, user: int, violations: list[Any]) -> None:
        """Memory, Redis, or join or begin a load."""
        now, floor = self.server.now, self.floor[user]
        for tier in (self.l1, self.server.entries):
            entry = tier.get(user)
            if entry and entry["until"] > now:
                entry = dict(entry)
                if self.valid(entry, user):
                    self.l1[user] = {**entry, "until": min(entry["until"], now + L1_TTL)}
                    if entry["version"] < floor:
                        violations.append((now, user, entry["version"], floor))
                    return
        load = self.loading.get(user)
        if load and ("join" in self.server.off or self.freshness.may_join(load["born"], scopes(user))):
            load["floors"].append(floor)
            return
        load = {"user": user, "born": self.freshness.seen, "version": None, "floors": [floor]}
        self.loading[user] = load
        self.queue.append(load)

    def load_step(self, violations: list[Any]) -> None:
        """Two steps: the database is read, and some time later the value is stored."""
        if not self.queue:
            return
        load = self.server.rnd.choice(self.queue)
        user = load["user"]
        if load["version"] is None:
            load["version"] = self.server.database[user]
            return
        self.queue.remove(load)
        if self.loading.get(user) is load:
            del self.loading[user]
        violations += [
            (self.server.now, user, load["version"], floor) for floor in load["floors"] if load["version"] < floor
        ]
        born = self.freshness.seen if "born" in self.server.off else load["born"]
        stored = self.server.entries.get(user)
        entry = {"born": born, "version": load["version"], "until": self.server.now + TTL}
        if stored is None or stored["born"] <= born or "born" in self.server.off:
            self.server.entries[user] = entry
        if self.freshness.verdict(born, scopes(user)) is not Verdict.INVALID:
            self.l1[user] = {**entry, "until": self.server.now + L1_TTL}

    def write(self, user: int) -> None:
        """Change the truth, invalidate one of its scopes."""
        server = self.server
        server.database[user] += 1
        name = server.rnd.choice(scopes(user)[:1] + scopes(user)[2:3])
        clock = server.invalidate((name,), self.freshness.seen)
        if "own" in server.off:
            self.freshness.observe(clock)
        else:
            self.freshness.invalidated((name,), clock)
        server.returned.append((clock, user, server.database[user]))
        self.floor[user] = max(self.floor[user], server.database[user])


def schedule(seed: int, steps: int, off: frozenset[str] = frozenset()) -> list[Any]:
    """Run one random schedule; returns its violations."""
    rnd = random.Random(seed)  # noqa: S311 - a schedule that can be had again
    server = Server(rnd, off)
    processes = [Process(server) for _ in range(PROCESSES)]
    violations: list[Any] = []
    for _ in range(steps):
        server.now += rnd.choice((1, 2, 3))
        process, user, dice = rnd.choice(processes), rnd.randrange(USERS), rnd.random()
        process.connect()
        if dice < 0.30:
            process.read(user, violations)
        elif dice < 0.50:
            process.tail()
        elif dice < 0.80:
            process.load_step(violations)
        elif dice < 0.90:
            process.write(user)
        elif dice < 0.91:
            server.now += rnd.randrange(30)
        elif dice < 0.935:
            server.fault(rnd.choice(("trim", "trim", "evict journal", "evict ledger", "backup", "failover")))
        elif dice < 0.94:
            process.boot()
    return violations
