"""A process of the model: what ledger, journal, reader and plain values do, a step at a time, with the real rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cachebus.freshness.clock import Born
from cachebus.freshness.rule import TRUST_S, Freshness, Record, Verdict
from tests.model.server import Entry, Ledger, Server

if TYPE_CHECKING:
    from tests.model.world import World

TICKS = 16
"""Ticks of a second."""
TTL, L1_TTL = 300, 120
TRUST = int(TRUST_S * TICKS)
WINDOW = 60
"""How long a miss waits for its `set`, ticks."""


def scopes(user: int) -> tuple[str, ...]:
    """Return the scopes of a user's entry: its key, and a tag shared with others."""
    return f"key:{user}", f"tag:{user // 2}"


class Weakened(Freshness):
    """The real rule, of which a part can be left out."""

    def __init__(self, off: frozenset[str]) -> None:
        super().__init__()
        self.off = off
        self.version = 0
        self.lost()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.endswith("_names")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._keep(self._older, self._young)  # its views of their keys cannot be pickled

    def lost(self) -> None:
        """Trust nothing."""
        if "lost" not in self.off or self.last_heard_at == float("-inf"):
            super().lost()

    def judge(self, born: Born, scopes: Any, *, heard: bool, **given: Any) -> Verdict:
        """Decide."""
        born = born._replace(era=self.era) if "era" in self.off else born
        verdict = super().judge(born, scopes, heard=heard, **given)
        return Verdict.VALID if verdict is Verdict.ASK and heard and "ledger" in self.off else verdict


class Process:
    """One process with one connection, which may be lost, silent, or not shaken yet."""

    def __init__(self, world: World, name: int) -> None:
        self.world, self.name, self.off = world, name, world.off
        self.freshness = Weakened(self.off)
        self.link: Server | None = None
        self.hole, self.shaken = False, False
        self.asked: tuple[int, tuple[Ledger, str, int, list[Record], tuple[int, dict[str, int]]] | None] | None = None
        self.l1: dict[int, Entry] = {}
        self.own: dict[str, None] = {}
        self.outstanding: dict[int, list[tuple[int, Born, int]]] = {}
        self.loads: list[dict[str, Any]] = []
        self.asides: list[dict[str, Any]] = []
        self.writes: list[tuple[int, str, int, Born | None]] = []

    # -- the connection ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Send the handshake. Until it is answered, nothing else is asked on this connection."""
        if not self.link:
            self.link, self.hole, self.shaken = self.world.server, False, False
            if "handshake" in self.off:
                self.freshness.heard(self.freshness.last_heard_at)
            self.ask()

    def lose(self) -> None:
        """Notice that the connection is lost."""
        self.link, self.hole, self.asked, self.shaken = None, False, None, False
        self.freshness.lost()

    def reach(self) -> Server | None:
        """Return the server, where it can be asked now."""
        if self.hole:
            self.lose()
        return self.link if self.shaken else None

    def ask(self) -> None:
        """Send the question: era and clock of the ledger, and the records after our position. It may take long."""
        if not self.link or self.asked:
            return
        server, answer = self.link, None
        if not self.hole:
            ledger = server.ledger if self.shaken else server.open(self)
            if ledger:
                records = [record for record in server.journal if record.clock > self.freshness.position]
                answer = (ledger, ledger.era, ledger.clock, records, server.newest(ledger))
        self.asked = (self.world.now, answer)

    def hear(self) -> None:
        """Take the answer from the socket."""
        if not self.asked:
            return
        (sent, answer), self.asked = self.asked, None
        if not answer:  # a deadline passed, or the ledger is gone
            self.lose()
            return
        _, era, clock, records, newest = answer
        freshness = self.freshness
        if era != freshness.era:
            if self.shaken:
                self.lose()
            else:
                self.enter(era, clock, sent, newest)
            return
        self.shaken = True
        for record in records:
            if record.clock > freshness.position and not freshness.applied(record):
                if "gap" not in self.off:
                    freshness.resync(clock, *newest)
                    break
                freshness.position = record.clock
                freshness.invalidated(record.scopes, record.clock)
        if freshness.position < clock and "probe" not in self.off:
            freshness.resync(clock, *newest)
        self.trust(sent)

    def trust(self, sent: int) -> None:
        """Trust the table from the sending of the question that was answered."""
        self.freshness.heard((self.world.now if "sent" in self.off else sent) / TICKS)

    def enter(self, era: str, clock: int, sent: int, newest: tuple[int, dict[str, int]]) -> None:
        """Another era: what was known is void, and what this process invalidated itself is repeated."""
        self.freshness.enter(era, clock, *newest)
        self.shaken = True
        self.trust(sent)
        self.l1 = self.l1 if "era" in self.off else {}
        if self.own and "putback" not in self.off:
            if self.invalidate(tuple(self.own), ()):
                self.world.put_back(self)
            else:
                self.freshness.era = ""  # it has not entered, then

    # -- reading ----------------------------------------------------------------------------------------------------

    def valid(self, born: Born, user: int, *, asks: bool = False, joins: bool = False) -> Born | None:
        """As `Memory.age` and `Reader._may_join`: up to when it is valid, None where it may not be served."""
        freshness, names = self.freshness, scopes(user)
        heard = freshness.hears(self.world.now / TICKS) or ("deaf" in self.off and joins)
        verdict = freshness.judge(born, names, heard=heard and not asks)
        if verdict is not Verdict.ASK:
            return born if verdict is Verdict.VALID else None
        server, known = self.reach(), freshness.seen
        if not server:
            return None
        answer = server.answer(freshness.era, names)
        if "era" in self.off:
            born = born._replace(era=answer.era)
        if not answer.allows(born, names):
            return None
        freshness.learn(answer.clocks, answer.clock)
        return Born(max(born.number, min(known, answer.clock)), born.era)

    def lookup(self, user: int, *, asks: bool = False) -> Entry | None:
        """Look in memory, then in Redis."""
        now = self.world.now
        for place in ("memory", "redis"):
            server = self.reach() if place == "redis" else None
            entry = self.l1.get(user) if place == "memory" else server.entries.get(user) if server else None
            if entry and entry.until > now and (born := self.valid(entry.born, user, asks=asks)):
                entry = entry._replace(born=born)
                self.l1[user] = entry._replace(until=min(entry.until, now + L1_TTL))
                return entry
        return None

    def read(self, user: int, demand: Born | None = None, due: int = 0) -> None:
        """As `Reader.read`. *demand*: a clock from outside; *due*: the version it stands for."""
        floor, asks, freshness = max(due, self.world.owed(self, user)), False, self.freshness
        if demand:
            if "outside" in self.off:
                freshness.observe(demand.number)
            same = demand.era == freshness.era or "token" in self.off
            asks = not same or demand.number > freshness.position
        if entry := self.lookup(user, asks=asks):
            self.world.check(self, user, entry.version, floor)
            return
        for load in self.loads:
            if load["user"] == user and ("join" in self.off or self.valid(load["born"], user, asks=asks, joins=True)):
                load["floors"].append(floor)
                return
        self.loads.append({"user": user, "born": freshness.born, "version": None, "floors": [floor]})

    def load(self, index: int) -> None:
        """Two steps: the database is read, and some time later the value is handed out and stored."""
        load = self.loads[index]
        if load["version"] is None:
            load["version"] = self.world.database[load["user"]]
            return
        del self.loads[index]
        for floor in load["floors"]:
            self.world.check(self, load["user"], load["version"], floor)
        self.store(load["user"], self.freshness.born if "born" in self.off else load["born"], load["version"])

    def store(self, user: int, born: Born, version: int) -> None:
        """As `Loader`: into memory and Redis, unless it is of another era or a newer one lies there."""
        if born.era and (born.era == self.freshness.era or "era" in self.off):
            entry = Entry(born, version, self.world.now + TTL)
            self.l1[user] = entry._replace(until=self.world.now + L1_TTL)
            if server := self.reach():
                there = server.entries.get(user)
                if not there or there.born.era != born.era or there.born.number <= born.number:
                    server.entries[user] = entry

    # -- plain values -----------------------------------------------------------------------------------------------

    def get(self, user: int, lost: bool) -> None:
        """*lost*: the `set` will come from a context that does not know of this miss."""
        floor = self.world.owed(self, user)
        if entry := self.lookup(user):
            self.world.check(self, user, entry.version, floor)
            return
        miss = (self.world.now, self.freshness.born, len(self.asides))
        self.outstanding.setdefault(user, []).append(miss)
        self.asides.append({"user": user, "miss": miss, "lost": lost, "version": None})

    def aside(self, index: int) -> None:
        """The caller reads the database; some time later it sets what it read."""
        aside = self.asides[index]
        if aside["version"] is None:
            aside["version"] = self.world.database[aside["user"]]
            return
        del self.asides[index]
        user, miss, since = aside["user"], aside["miss"], self.world.now - WINDOW
        if miss[0] < since:  # a cycle of get, load and set promises not to take so long
            return
        misses = self.outstanding[user] = [m for m in self.outstanding[user] if m[0] >= since]
        if not aside["lost"]:
            if miss in misses:
                misses.remove(miss)
            self.store(user, miss[1], aside["version"])
            return
        token = misses[0][1] if misses and "fill" not in self.off else None
        if "popped" in self.off:
            misses.clear()
        if not token and (answer := self.invalidate(scopes(user)[:1], ())):
            token = answer[0]
        if token:
            self.store(user, token, aside["version"])

    # -- writing ----------------------------------------------------------------------------------------------------

    def begin_write(self, user: int, name: int, through: bool) -> None:
        """The database is changed; *through*: the new value is to be stored, too."""
        noted = self.freshness.born
        self.world.database[user] += 1
        self.writes.append((user, scopes(user)[name], self.world.database[user], noted if through else None))

    def write(self, index: int) -> None:
        """The change is announced; it is tried again where the server cannot be reached."""
        user, name, version, noted = self.writes[index]
        if not (answer := self.invalidate((name,), scopes(user))):
            return
        clock, prior, deposed = answer
        del self.writes[index]
        self.world.returned.append([self.world.now, self.name, user, version, clock, deposed])
        if noted and ((noted.era == clock.era and prior <= noted.number) or "write" in self.off):
            self.store(user, clock, version)

    def invalidate(self, names: tuple[str, ...], asked: Sequence[str]) -> tuple[Born, int, bool] | None:
        """As `Ledger`. Returns the clock, the newest of *asked* before it, and whether the server was deposed."""
        server = self.reach()
        if not server:
            return None
        clock, prior = server.invalidate(self, names, asked or names)
        self.own.update(dict.fromkeys(names))
        if clock.era != self.freshness.era:
            self.lose()
        else:
            self.freshness.invalidated(names if "own" not in self.off else (), clock.number)
        return clock, prior, server.deposed

    def state(self) -> Any:
        """Return everything that can still matter."""
        freshness = self.freshness
        return (
            *(
                self.link and self.link.run,
                self.hole,
                str(self.asked and (self.asked[0], self.asked[1] and self.asked[1][1:])),
            ),
            *(self.shaken, freshness.era, freshness.seen, freshness.position, freshness.since),
            *(
                freshness.heard_at,
                freshness.last_heard_at,
                tuple(sorted((freshness._older | freshness._young).items())),
            ),
            *(tuple(self.l1.items()), tuple(self.own), str(self.outstanding)),
            *(tuple(map(str, things)) for things in (self.loads, self.asides, self.writes)),
        )
