"""Where exhaustive walks begin: two processes, one server, one key, and something that is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cachebus.freshness.clock import Born
from tests.model.server import CEILING, KEEP
from tests.model.world import World


class Beginning(NamedTuple):
    """What has happened before a walk, and the faults that may happen on it."""

    prepare: Callable[[World], None]
    faults: frozenset[str]
    finds: tuple[str, ...]
    """The parts of the rule whose absence is found from here."""


def connected(world: World) -> None:
    """Both processes follow the journal; nothing is cached."""
    for process in world.processes:
        process.connect()
        process.hear()


def holding(world: World) -> None:
    """Both hold the entry, the second one loads it, too; there is a snapshot of this moment."""
    first, second = world.processes
    connected(world)
    for process in (first, second):
        process.read(0)
        process.load(0)
    first.load(0)
    second.lookup(0)
    world.copies = [world.server.copy()]


def changed(world: World) -> None:
    """The first process changes the value and invalidates its key."""
    world.processes[0].begin_write(0, 0, through=False)
    world.processes[0].write(0)


def elsewhere(world: World) -> None:
    """The first process invalidates something that has nothing to do with the key."""
    world.processes[0].invalidate(("tag:other",), ())


def overtaken(world: World) -> None:
    """Of two invalidations a new process learns the newest alone."""
    holding(world)
    changed(world)
    elsewhere(world)
    world.boot(1)


def trimmed(world: World) -> None:
    """The record of an invalidation is gone before the second process has read it."""
    holding(world)
    changed(world)
    world.server.journal = []


def interrupted(world: World) -> None:
    """The same, and a later record is there."""
    trimmed(world)
    elsewhere(world)


def forgotten(world: World) -> None:
    """The ledger has forgotten an invalidation that a new process does not know of."""
    holding(world)
    changed(world)
    world.now += KEEP + 2
    elsewhere(world)
    world.boot(1)


def cut_off(world: World) -> None:
    """The second process knows that its connection is lost, and something was invalidated since."""
    holding(world)
    world.processes[1].lose()
    changed(world)


def late(world: World) -> None:
    """An answer lies in the second process's socket, and something was invalidated since it was sent."""
    holding(world)
    world.processes[1].ask()
    changed(world)


def loading(world: World) -> None:
    """The second process has read the database for a load, and the value has changed since."""
    connected(world)
    world.processes[1].read(0)
    world.processes[1].load(0)
    changed(world)


def forged(world: World) -> None:
    """The same, and a caller had brought it a clock from the future."""
    connected(world)
    second = world.processes[1]
    second.read(0, Born(second.freshness.seen + 30, second.freshness.era))
    second.load(0)
    changed(world)


def restored(world: World) -> None:
    """The server was restored from before an invalidation, and everybody who knew of it is gone."""
    holding(world)
    changed(world)
    world.restart(world.copies[0], 0, (0, 1), ())


def unaware(world: World) -> None:
    """The same, but the second process lives: what it has heard of ends where the restored journal does."""
    holding(world)
    changed(world)
    world.restart(world.copies[0], 0, (0,), (1,))


def deposed(world: World) -> None:
    """A primary that was deposed unawares has acknowledged an invalidation; its successor has the old value."""
    holding(world)
    world.restart(world.copies[0], 0, (), (), split=True)
    first, second = world.processes
    second.lose()
    second.connect()
    second.hear()
    second.loads.clear()
    second.read(0)
    second.load(0)
    second.load(0)
    changed(world)
    first.lose()


def absurd(world: World) -> None:
    """Both processes know a clock from the far future, and the value is born at it."""
    connected(world)
    assert world.server.ledger is not None
    world.server.ledger.clock = CEILING
    for process in world.processes:
        process.ask()
        process.hear()
    second = world.processes[1]
    second.read(0)
    second.load(0)
    second.load(0)
    changed(world)


def missed(world: World) -> None:
    """Two callers of the second process looked for the key in vain and have read the database; it has changed since."""
    connected(world)
    second = world.processes[1]
    for aside in range(2):
        second.get(0, lost=True)
        second.aside(aside)
    changed(world)


def written(world: World) -> None:
    """The first process has a value to write through; the second one has written a newer one."""
    connected(world)
    world.processes[0].begin_write(0, 0, through=True)
    world.processes[1].begin_write(0, 1, through=False)
    world.processes[1].write(0)


BEGINNINGS = {
    begin.__name__: Beginning(begin, frozenset(faults), finds)
    for begin, faults, finds in (
        (holding, ("restart", "split", "boot", "lose"), ("born", "join", "own", "lost")),
        (overtaken, ("trim",), ("ledger", "newest")),
        (trimmed, ("lose",), ("probe",)),
        (interrupted, ("trim",), ("gap",)),
        (forgotten, ("boot",), ("floor",)),
        (cut_off, ("lose", "trim"), ("handshake",)),
        (late, ("hole",), ("sent",)),
        (loading, ("lose",), ("deaf",)),
        (forged, ("demand", "forged"), ("outside",)),
        (restored, ("demand",), ("run", "era")),
        (unaware, ("boot",), ("vouch",)),
        (deposed, ("boot",), ("putback",)),
        (absurd, ("absurd", "demand", "no ledger"), ("heal", "token")),
        (missed, ("lose",), ("fill", "popped")),
        (written, ("boot",), ("write",)),
    )
}
