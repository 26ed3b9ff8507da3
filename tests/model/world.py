"""A deployment in miniature, under random schedules: servers that restart and fail over, processes, and the checker.

A read that begins after an invalidation returned (in its own process, where the connection is known to be lost, or on
demand: at once; elsewhere: TRUST later) and returns an older value is a violation. Not owed, as nobody there can know:
what a primary acknowledges after it was deposed, until the writer arrives at its successor; what a process reads that
is still connected to it; a `set` later than WINDOW after its miss, or of a value read without any `get`. Each part of
the rule can be left out, and must then be missed.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from cachebus.freshness.clock import Born
from tests.model.process import TRUST, Process
from tests.model.server import CEILING, Server

PARTS = (
    *("born", "join", "ledger", "gap", "probe", "own", "floor", "newest", "run", "vouch", "era", "handshake", "sent"),
    *("lost", "deaf", "outside", "token", "fill", "popped", "write", "heal", "putback"),
)
USUAL = {
    "read": 24,
    "whole read": 12,
    "demand": 6,
    "forged": 1,
    "round": 12,
    "ask": 6,
    "hear": 8,
    "connect": 4,
    "load": 10,
    "get": 10,
    "aside": 15,
    "begin_write": 4,
    "write": 8,
    "copy": 3,
}
FAULTS = {
    "wait": 0.6,
    "lose": 3,
    "hole": 0.6,
    "trim": 12,
    "no ledger": 0.15,
    "absurd": 0.3,
    "restart": 2,
    "boot": 0.3,
}
"""How often each step is taken."""


class World:
    """Servers, processes, the database, and what must be seen."""

    def __init__(self, off: Collection[str] = (), users: int = 2, processes: int = 3) -> None:
        self.off, self.now, self.eras, self.runs, self.names = frozenset(off), 1, 0, 0, processes
        self.database = dict.fromkeys(range(users), 0)
        self.returned: list[list[Any]] = []
        """Of each invalidation that returned: when, in which process, user, version, clock, whether it is not owed."""
        self.violations: list[Any] = []
        self.copies: list[bytes] = []
        self.server = Server(self, 0)
        self.processes = [Process(self, name) for name in range(processes)]

    def owed(self, process: Process, user: int) -> int:
        """Return the version that a read which begins now must not be older than."""
        lag = TRUST if process.shaken else 0
        astray = process.link and process.link.deposed
        due = [
            version
            for at, name, of, version, _, deposed in self.returned
            if of == user and (name == process.name or (not deposed and not astray and at + lag < self.now + (not lag)))
        ]
        return max(due, default=0)

    def check(self, process: Process, user: int, version: int, floor: int) -> None:
        """Compare what a read returned with what it must not be older than."""
        if version < floor:
            self.violations.append((self.now, process.name, user, version, floor))

    def put_back(self, process: Process) -> None:
        """What a deposed primary had acknowledged to *process* is known again."""
        self.returned = [
            [self.now, *given[1:5], False] if given[1] == process.name and given[5] else given
            for given in self.returned
        ]

    def restart(
        self,
        copy: bytes,
        skew: int,
        killed: Collection[int],
        noticed: Collection[int],
        split: bool = False,
    ) -> None:
        """End the server's run; its successor has a *copy* of an earlier moment. *split*: the old one lives on."""
        self.runs += 1
        self.server.deposed = True
        self.server = Server(self, self.runs, skew, copy)
        for index, process in enumerate(self.processes):
            if index in killed:
                self.boot(index)
            elif process.link and not split:
                process.hole = True
                if index in noticed:
                    process.lose()

    def boot(self, index: int) -> None:
        """A process dies, another one starts in its place."""
        self.names += 1
        self.processes[index] = Process(self, self.names)


def schedule(seed: int, steps: int, off: Collection[str] = ()) -> list[Any]:
    """Run one random schedule, with its own mixture of faults, until its first violation; return its violations."""
    rnd = random.Random(seed)  # noqa: S311 - a schedule that can be had again
    world, often = World(off), rnd.choice((0.1, 0.3, 1))
    rates = {what: rate * rnd.choice((0.5, 1, 3)) for what, rate in USUAL.items()}
    rates |= {what: rate * rnd.choice((0, 0.3, 1, 3)) * often for what, rate in FAULTS.items()}
    for what in rnd.choices(list(rates), list(rates.values()), k=steps):
        world.now += rnd.random() < 0.6
        step(world, rnd, what, rnd.choice(world.processes), rnd.randrange(len(world.database)))
        if world.violations:
            break
    return world.violations


def step(world: World, rnd: random.Random, what: str, p: Process, user: int) -> None:  # noqa: C901, PLR0912 - one table
    """Take one step."""
    server, count = world.server, len(world.processes)
    if what == "read":
        p.read(user)
    elif what == "whole read":
        p.read(user)
        for _ in range(2):
            if p.loads:
                p.load(-1)
    elif what == "round":
        p.connect()
        p.ask()
        p.hear()
    elif what in ("ask", "hear", "connect", "lose"):
        getattr(p, what)()
    elif what == "hole":
        p.hole = bool(p.link)
    elif what == "get":
        p.get(user, rnd.random() < 0.4)
    elif what == "begin_write":
        p.begin_write(user, rnd.randrange(2), rnd.random() < 0.4)
    elif what in ("load", "aside", "write"):
        if waiting := getattr(p, what + "s"):
            getattr(p, what)(rnd.randrange(len(waiting)))
    elif what == "demand" and world.returned:
        _, _, of, version, clock, deposed = rnd.choice(world.returned[-4:])
        p.read(of, clock, 0 if deposed or (p.link and p.link.deposed) else version)
    elif what == "forged":
        freshness = p.freshness
        number = rnd.choice((freshness.seen + 30, CEILING, 5))
        p.read(user, Born(number, rnd.choice((freshness.era, "0"))))
    elif what == "wait":
        world.now += rnd.choice((3, TRUST + 1, 3 * TRUST))
    elif what == "trim":
        server.journal = server.journal[max(0, len(server.journal) - rnd.randrange(3)) :]
    elif what == "no ledger":
        server.ledger = None
    elif what == "absurd" and server.ledger:
        server.ledger.clock = CEILING
    elif what == "copy":
        world.copies = [*world.copies[-9:], server.copy()]
    elif what == "restart" and world.copies:
        copy = rnd.choice((server.copy(), world.copies[-1], rnd.choice(world.copies)))
        killed, noticed = ({i for i in range(count) if rnd.random() < at} for at in (rnd.choice((0, 0.3, 1)), 0.5))
        world.restart(copy, rnd.choice((0, -40, 5)), killed, noticed, rnd.random() < 0.5)
    elif what == "boot":
        world.boot(rnd.randrange(count))
