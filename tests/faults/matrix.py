"""The cells of the fault matrix, and how one is run.

Each fault meets each shape, and the changes are dealt out so that every pair of the three lists is there at least once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cachebus import Cache, View, is_queued
from tests.faults import deployments
from tests.faults.database import KEYS, Database
from tests.faults.deployments import Place, Readers
from tests.faults.pulse import watch
from tests.faults.reader import TTL, key_of, settings

ROOT = Path(__file__).parents[2]
SHAPES = ("view", "aside", "get_or_load", "many", "threads", "forked")
CHANGES = ("key", "tag", "prefix", "clear", "refresh", "set")
PlaceMaker = AbstractAsyncContextManager[Place]
Make = Callable[[], PlaceMaker]


class Fault(NamedTuple):
    """What breaks, and the part of the rule without which that is not survived."""

    place: Make
    mend: str


FAULTS = {
    "none": Fault(deployments.none, "born"),
    "journal cut": Fault(deployments.journal_cut, "heard"),
    "stopped": Fault(deployments.stopped(0.0), "heard"),
    "stopped, 40 ms": Fault(deployments.stopped(0.04), "heard"),
    "killed, AOF": Fault(deployments.killed_with_aof, "heard"),
    "killed, RDB": Fault(deployments.killed_with_rdb, "era"),
    "FLUSHALL": Fault(deployments.flushed, "born"),
    "failover": Fault(deployments.failed_over, "era"),
    "all restarted": Fault(deployments.all_restarted, "era"),
    "password, db 1": Fault(deployments.with_password, "born"),
    "cluster": Fault(deployments.clustered, "born"),
    "one endpoint": Fault(deployments.one_endpoint, "born"),
}
UNBROKEN = "-"
"""No part of the rule is taken out."""


class Cell(NamedTuple):
    """One combination."""

    shape: str
    change: str
    fault: str

    def __str__(self) -> str:
        return f"{self.shape} × {self.change} × {self.fault}"


class Scale(NamedTuple):
    """How much is asked of a cell."""

    reads: int
    changes: int
    faults: int
    processes: int
    stops_s: tuple[float, float]
    """For how long a process is stopped."""


LONG = Scale(2_000, 100, 6, 3, (1.0, 40.0))
SHORT = Scale(300, 20, 1, 2, (2.1, 4.0))


class Outcome(msgspec.Struct, frozen=True):
    """What came of a cell."""

    cell: Cell
    broken: str
    """The part of the rule that was taken out."""
    reads: int
    after_stops: int
    stale: int
    worst_ms: float
    changes: int
    faults: int
    errors: int
    seconds: float
    traces: tuple[str, ...]
    """Of some stale reads: what each returned, and what its process knew."""

    @property
    def as_it_should_be(self) -> bool:
        """Return whether nothing was stale, or, with a part of the rule taken out, something was."""
        return bool(self.stale) == (self.broken != UNBROKEN)


def cells() -> list[Cell]:
    """Return every cell: a shape and a fault each, and a change such that all pairs occur."""
    return [
        Cell(shape, CHANGES[(row + column) % len(CHANGES)], fault)
        for row, shape in enumerate(SHAPES)
        for column, fault in enumerate(FAULTS)
    ]


class Run:
    """One cell while it runs."""

    def __init__(
        self, cell: Cell, scale: Scale, seed: int, folder: Path, broken: str, place: PlaceMaker | None = None
    ) -> None:
        self._cell = cell
        self._place = place
        self._scale = scale
        self._draw = random.Random(f"{seed} {cell}")  # noqa: S311 - a run that can be had again
        self._path = folder / "database"
        self._database = Database(self._path)
        self._broken = broken
        self._namespace = "faults"
        self._readers = Readers(stops_s=scale.stops_s)
        self._said: list[dict[str, Any]] = []
        self._seeds = iter(range(seed * 1000, seed * 1000 + 1000))
        self._one = asyncio.Lock()
        """Held while the cache that writes is used, or replaced."""
        self._cache: Cache
        self._item: View[[int], int]
        self.changes = self.faults = 0

    async def outcome(self) -> Outcome:
        """Run it to the end."""
        began = time.monotonic()
        async with self._place or FAULTS[self._cell.fault].place() as place:
            pulses = asyncio.create_task(watch(place.servers, self._database))
            await self._start(place)
            self._readers.restart = lambda: self._restart(place)
            self._renew(place)
            await asyncio.gather(self._write(), self._break(place))
            await self._cache.close()
            await self._stop()
            pulses.cancel()
        names = ("reads", "after_stops", "stale", "errors")
        reads, after, stale, errors = (sum(int(said[name]) for said in self._said) for name in names)
        worst = max(said["worst_ms"] for said in self._said)
        seconds = time.monotonic() - began
        traces = tuple(trace for said in self._said for trace in said["traces"])
        return Outcome(
            *(self._cell, self._broken, reads, after, stale, worst, self.changes, self.faults, errors, seconds, traces)
        )

    # -- writing ----------------------------------------------------------------------------------------------------

    def _renew(self, place: Place) -> None:
        """Write through a cache that knows nothing, as after a restart."""
        self._cache = Cache(settings=settings(place.url, place.store_url, self._namespace, self._broken))

        @self._cache.view("item:{n}:version", ttl=TTL, stale="10s", tags=["item:{n}"])
        async def item(n: int) -> int:
            return self._database.version(n)

        self._item = item

    async def _write(self) -> None:
        """Change rows, and note when the invalidation of each had returned, until enough was done."""
        while self.changes < self._scale.changes or self.faults < self._faults_wanted:
            n = self._draw.randrange(KEYS)
            version = self._database.change(n)
            while not await self._invalidated(n, version):  # noqa: ASYNC110 - another process must be back
                await asyncio.sleep(0.05)  # Redis is unavailable: it holds here, and must hold everywhere
            self.changes += 1
            await asyncio.sleep(self._draw.random() * 0.06)
        # As long again as it takes to be sure: readers look at what was changed last.
        await asyncio.sleep(0.6)

    async def _invalidated(self, n: int, version: int) -> bool:
        """Invalidate, and note that it has returned; False where it is only queued."""
        async with self._one:
            done = await self._invalidate(self._cache, self._item, n, version)
            if done:
                self._database.invalidated(n, version)
            return done

    async def _invalidate(self, cache: Cache, item: View[[int], int], n: int, version: int) -> bool:
        """Invalidate in the cell's way; False where it is only queued."""
        change, plain = self._cell.change, key_of(n)
        if change == "tag":
            return not is_queued(await cache.invalidate(tags=[f"item:{n}", "all-items"]))
        if change == "prefix":
            done = [await cache.invalidate(prefix=prefix) for prefix in (f"item:{n}:", f"plain:{n}:")]
            return not any(is_queued(clock) for clock in done)
        if change == "clear":
            return not is_queued(await cache.clear())
        if change == "refresh":
            await item.refresh(n)
        if change == "set" and self._cell.shape != "view":
            stored = await cache.write(plain, version, TTL, tags=[f"item:{n}"])
            return bool(stored) and not is_queued(await cache.invalidate(keys=[item.key(n)]))
        return not is_queued(await cache.invalidate(keys=[item.key(n), plain]))

    # -- breaking ---------------------------------------------------------------------------------------------------

    @property
    def _faults_wanted(self) -> int:
        return self._scale.faults if self._cell.fault != "none" else 0

    async def _break(self, place: Place) -> None:
        while place.fault is not None and self.faults < self._faults_wanted:
            await asyncio.sleep(place.pause_s * self._draw.uniform(0.7, 1.3))
            await place.fault(self._readers, self._draw)
            self.faults += 1

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _start(self, place: Place) -> None:
        self._path.with_suffix(".stop").unlink(missing_ok=True)
        self._readers.processes = [await self._reader(place) for _ in range(self._scale.processes)]

    async def _reader(self, place: Place) -> asyncio.subprocess.Process:
        arguments = (place.url, self._namespace, str(self._path), self._cell.shape, str(next(self._seeds)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.reader", *arguments, self._broken),
            cwd=ROOT,
            env=os.environ | ({"STORE_REDIS_URL": place.store_url} if place.store_url else {}) | place.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"ready"
        return process

    async def _stop(self) -> None:
        """Have every reader say what it saw."""
        self._path.with_suffix(".stop").touch()
        for process in self._readers.processes:
            assert process.stdout is not None
            self._said.append(json.loads((await process.stdout.read()).splitlines()[-1]))
            await process.wait()

    async def _restart(self, place: Place) -> None:
        async with self._one:
            await self._cache.close()
            await self._stop()
            self._renew(place)
            await self._start(place)
            await asyncio.sleep(0.6)  # read what is there, before the next change makes all of it new


async def run(
    cell: Cell, scale: Scale, *, seed: int = 1, broken: str = UNBROKEN, place: PlaceMaker | None = None
) -> Outcome:
    """Run one cell; in another place than its fault's, where one is given."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        return await Run(cell, scale, seed, Path(folder), broken, place).outcome()
