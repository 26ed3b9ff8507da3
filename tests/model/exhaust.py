"""Every interleaving of two processes, one server, one key and one tag, to a depth: not a sample, but all of them.

From each beginning the schedules of all its operations are walked breadth first; no state is walked twice. Beginnings
(`beginnings.py`) differ in what is under way and in the faults that may happen, so that each part of the rule that is
left out is found by exhaustion alone.
"""

from __future__ import annotations

import pickle
import resource
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from cachebus.freshness.clock import Born
from tests.model.beginnings import Beginning
from tests.model.process import TRUST, Process
from tests.model.server import CEILING, KEEP
from tests.model.world import World

Operation = tuple[Any, ...]


class Walk(NamedTuple):
    """How far a walk came."""

    depth: int
    """The last depth that was walked whole."""
    states: int
    seconds: float
    gigabytes: float
    violation: Any
    """The first stale read, None where there is none."""


def operations(world: World, faults: Collection[str]) -> Iterator[Operation]:
    """Yield every step that may come next."""
    for i, process in enumerate(world.processes):
        yield from _steps(world, i, process)
    second = world.processes[1]
    if "lose" in faults and second.link:
        yield "lose", 1
    if "hole" in faults and second.link and not second.hole:
        yield "hole", 1
    if "demand" in faults and world.returned:
        yield "demand", 1
    if "forged" in faults:
        yield "forged", 1
    yield from _faults(world, faults)
    if world.now < 2 * TRUST + KEEP:
        yield ("wait",)


def _steps(world: World, i: int, process: Process) -> Iterator[Operation]:
    yield "read", i, 0
    yield ("connect", i) if not process.link else ("hear", i) if process.asked else ("ask", i)
    if process.loads:
        yield "load", i, 0
    if process.asides:
        yield "aside", i, 0
    elif process.freshness.era:
        yield "get", i, 0, i == 1
    if process.writes:
        yield "write", i, 0
    elif world.database[0] < 2:
        yield "begin_write", i, 0, i, i == 0


def _faults(world: World, faults: Collection[str]) -> Iterator[Operation]:
    if world.runs < 1 and "restart" in faults:
        yield "restart", world.copies[0], 0, (), (0,), False
        yield "restart", world.server.copy(), 0, (), (0,), False
    if world.runs < 1 and "split" in faults:
        yield "restart", world.copies[0], 0, (), (), True
    if world.names < 3 and "boot" in faults:
        yield "boot", 1
    if "trim" in faults and world.server.journal:
        yield ("trim",)
    if "no ledger" in faults and world.server.ledger:
        yield ("no ledger",)
    if "absurd" in faults and world.server.ledger and world.server.ledger.clock < CEILING:
        yield ("absurd",)


def perform(world: World, what: str, *given: Any) -> None:
    """Take one step."""
    if what == "wait":
        world.now += TRUST + 1
    elif what in ("restart", "boot"):
        getattr(world, what)(*given)
    elif what == "trim":
        world.server.journal = []
    elif what == "no ledger":
        world.server.ledger = None
    elif what == "absurd":
        assert world.server.ledger is not None
        world.server.ledger.clock = CEILING
    elif what == "hole":
        world.processes[given[0]].hole = True
    elif what in ("demand", "forged"):
        _demand(world, world.processes[given[0]], forged=what == "forged")
    else:
        getattr(world.processes[given[0]], what)(*given[1:])


def _demand(world: World, process: Process, *, forged: bool) -> None:
    if forged:
        process.read(0, Born(process.freshness.seen + 30, process.freshness.era))
        return
    _, _, _, version, clock, deposed = world.returned[-1]
    process.read(0, clock, 0 if deposed or (process.link and process.link.deposed) else version)


def state(world: World) -> int:
    """Return the state as a number: everything that can still matter."""
    return hash(
        (
            *(world.now, world.database[0], world.runs, world.names),
            world.server.state(),
            tuple(map(tuple, world.returned)),
            *(process.state() for process in world.processes),
        )
    )


def walk(beginning: Beginning, depth: int, off: Collection[str] = (), *, most: int = 10**9) -> Walk:
    """Walk every schedule of up to *depth* steps, until the first violation, or until *most* states are met."""
    began, known = time.monotonic(), set[int]()
    world = World(off, 1, 2)
    beginning.prepare(world)
    layer = [pickle.dumps(world, 5)]

    def walked(level: int, violation: Any = None) -> Walk:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return Walk(level, len(known), time.monotonic() - began, memory, violation)

    for level in range(1, depth + 1):
        below = []
        for packed in layer:
            for number in range(len(list(operations(pickle.loads(packed), beginning.faults)))):  # noqa: S301 - ours
                world = pickle.loads(packed)  # noqa: S301 - our own
                perform(world, *list(operations(world, beginning.faults))[number])
                if world.violations:
                    return walked(level - 1, world.violations[0])
                if (key := state(world)) not in known:
                    known.add(key)
                    below.append(pickle.dumps(world, 5))
            if len(known) >= most:
                return walked(level - 1)
        layer = below
    return walked(depth)
