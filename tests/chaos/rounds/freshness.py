"""Freshness: reads in processes, and the rule itself."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.harness import Attack, Findings
from tests.faults.deployments import Place, Readers
from tests.faults.matrix import CHANGES, SHAPES, UNBROKEN, Cell, Scale, cells
from tests.faults.matrix import run as run_cell
from tests.model.world import schedule
from tests.support.process_faults import SkewedClocks
from tests.support.topologies import deployed

SLICE_S = 2.0
"""How long a round of what needs no server goes on."""
ANY = "any"
"""The fault of a cell whose place draws among all of them."""


async def freshness(attack: Attack) -> Findings:
    """Run a cell of the fault matrix: readers in processes, a way to read, a way to invalidate, a fault.

    On one node every other cell is of the matrix; else a shape and a change are drawn, and the faults of a deployment.
    """
    draw, broken = attack.draw, attack.broken
    scale = Scale(reads=300, changes=20 if broken else 40, faults=2, processes=2, stops_s=(0.5, 5.0))
    findings, place = Findings(), None
    if broken:
        cell = Cell("view", "tag", "none")
    elif attack.topology == "one" and draw.random() < 0.5:
        cell = draw.choice(cells())
    else:
        cell = Cell(draw.choice(SHAPES), draw.choice(CHANGES), ANY)
        place = anything(attack.topology, draw, findings)
        scale = scale._replace(faults=3)
    seen = await run_cell(cell, scale, seed=draw.randrange(1 << 20), broken="born" if broken else UNBROKEN, place=place)
    findings.counts += Counter(reads=seen.reads, invalidations=seen.changes, errors=seen.errors, stale=seen.stale)
    if place is None:
        findings.faults[cell.fault] += seen.faults
    if seen.stale:
        findings.wrong.append(f"{cell}: {seen.stale} stale reads, the oldest by {seen.worst_ms:.0f} ms: {seen.traces}")
    return findings


def anything(topology: str, draw: random.Random, findings: Findings) -> AbstractAsyncContextManager[Place]:
    """Return a place where every fault of a deployment may come: also a failover to a replica that is behind."""

    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        with TemporaryDirectory(prefix="cachebus-") as folder:
            clocks = SkewedClocks(Path(folder), draw)
            findings.lacking |= {clocks.lacking} - {""}
            async with deployed(topology) as deployment:

                async def fault(_readers: Readers, draw: random.Random) -> None:
                    kind = draw.choice(["die", "die", "fill", "cut", "jump"])
                    if kind == "die":
                        kind = await deployment.die(draw, lossy=draw.random() < 0.5)
                    elif kind == "fill":
                        await deployment.fill(draw.uniform(0.2, 1.5))
                        kind = "maxmemory reached"
                    elif kind == "cut":
                        await deployment.cut()
                        kind = "connections closed"
                    else:
                        kind = "clocks jumped" if clocks.jump() else "no clock jumped"
                    findings.faults[kind] += 1

                yield Place(
                    deployment.url,
                    deployment.nodes,
                    fault,
                    store_url=deployment.store_url,
                    environment=clocks.environment,
                )

    return place()


async def rule(attack: Attack) -> Findings:
    """Walk the freshness rule itself through random schedules: no server, no time, every fault of the model."""
    findings, until_s = Findings(), time.monotonic() + SLICE_S
    while time.monotonic() < until_s and not findings.wrong:
        seed = attack.draw.randrange(1 << 40)
        for found in schedule(seed, 500, ["born"] if attack.broken else []):
            findings.wrong.append(f"schedule {seed}: {found}")
        findings.counts += Counter(schedules=1, steps=500)
        await asyncio.sleep(0)
    return findings
