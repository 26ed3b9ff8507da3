"""An import while workers are killed: a debounced handler runs once for all of it, and delayed events come once each.

Half of the import is published, half sent by plain `PUBLISH`; one bridge, of no worker, stays subscribed. The publisher
does not pause longer than the handler's `debounce` says, so whatever befalls the workers, one broadcast is due. It is
the newest event's. (An event of the import that kills hit twice is taken for a poison, and stays a dead letter:
replayed, it would rightly open a window of its own.) Some delayed events are due while the workers die, the others
while there is none at all.

`python -m tests.support.bus_later_harness [--kills 40] [--events 10000]` runs it at full size.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.publisher import Bus
from cachebus.errors import ServerError
from tests.support.bus_harness import LEASE, Crashing
from tests.support.bus_harness_worker import imported
from tests.support.process_faults import SkewedClocks
from tests.support.serving import fed, running
from tests.support.topologies import Deployment, deployed
from tests.support.waiting import until

PATIENCE_S = 60.0
ALONE = 50
"""So many delayed events are due while no worker lives."""


@dataclass
class LaterFindings:
    """What became of an import, and of the delayed events beside it."""

    imported: int
    """Events of the import."""
    broadcasts: list[int]
    """What its broadcasts carried: the number of one event each."""
    delayed: int
    lost: list[int]
    twice: list[int]

    @property
    def sound(self) -> bool:
        """Whether the import is one broadcast, of its last event, and each delayed event came once."""
        return self.broadcasts == [self.imported - 1] and not self.lost and not self.twice


class ImportHarness:
    """One run: so many events, and so many kills of the active worker meanwhile."""

    def __init__(self, deployment: Deployment, clocks: SkewedClocks, *, events: int, kills: int, seed: int) -> None:
        self._deployment = deployment
        self._clocks = clocks
        self._events = events
        self._kills = kills
        self._draw = random.Random(seed)  # noqa: S311 - moments, not secrets
        self.fault = ""
        """What became of the server while no worker lived."""
        self._published = 0
        self._delayed = 0

    async def run(self) -> LaterFindings:
        """Import, kill, wait until all is handled, check."""
        async with self._deployment.client() as client, Crashing(client, self._deployment.url, LEASE) as workers:
            self._client, self._workers, self._bus = client, workers, Bus(client)
            bridge = Bridge(client, [imported])
            async with running(bridge):
                await until(lambda: bridge.listening)
                for _ in range(2):
                    await self._start()
                killing = asyncio.create_task(self._kill())
                await self._import(killing)
                await killing
                await self._until(self._closed, "the window closed")
                await self._alone()
                await self._until(self._done, "every delayed event came")
            return await self._check()

    async def _start(self) -> None:
        await self._workers.start(**self._deployment.environment, **self._clocks.environment())

    async def _import(self, killing: asyncio.Task[None]) -> None:
        """Publish without a pause until the events are out and the kills are done."""
        while self._published < self._events or not killing.done():
            event = {"n": self._published}
            if self._published % 2:
                await self._client.store.call("PUBLISH", "imports", msgspec.json.encode(event), timeout_s=5.0)
            else:
                await self._bus.publish("imports", event, timeout="60s")
            if self._published % 10 == 0:
                await self._delay(self._draw.uniform(0.01, 1))
            self._published += 1
            await asyncio.sleep(0.002)

    async def _delay(self, seconds: float) -> None:
        await self._bus.publish("numbers", {"n": self._delayed}, delay=seconds, timeout="60s")
        self._delayed += 1

    async def _kill(self) -> None:
        """Kill -9 every worker until the window should have closed; then the active one, at random moments.

        Another process is started in its place.
        """
        await self._until(self._opened, "a window opened")
        await self._workers.kill_all()
        await self._until(self._out_of_time, "its time was over")
        for _ in range(2):
            await self._start()
        for at in range(self._kills):
            while self._published < self._events * at // self._kills:  # noqa: ASYNC110 - polling is enough here
                await asyncio.sleep(0.005)
            active = await self._until(self._workers.active, "a worker is active")
            await asyncio.sleep(self._draw.uniform(0, 0.2))
            await self._workers.kill(active)
            await self._start()

    async def _alone(self) -> None:
        """Kill every worker, and the server; start a worker when all delayed events are due, by the server's clock."""
        await self._workers.kill_all()
        for _ in range(ALONE):
            await self._delay(0.05)
        self.fault = await self._deployment.die(self._draw)
        self._clocks.jump()
        await self._until(self._overdue, "all delayed events are due")
        await self._start()

    # -- looking ----------------------------------------------------------------------------------------------------

    async def _until(self, fact: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Look until *fact* answers, and look again where the server is late or away: that is no finding."""

        async def look() -> Any:
            with contextlib.suppress(ServerError):
                return await fact()
            return None

        return await until(look, what, deadline_s=PATIENCE_S)

    async def _opened(self) -> bool:
        return bool(await self._client.store.call("EXISTS", self._client.names.bus("debounced", "0")))

    async def _out_of_time(self) -> bool:
        windows, now_us = self._client.names.bus("debounced", "0"), self._client.now_us()
        return bool(await self._client.store.call("ZCOUNT", windows, "-inf", now_us))

    async def _closed(self) -> bool:
        """Whether the import's handler has run, or was given up: no window is open, no retry waits."""
        names = self._client.names
        keys = (names.bus("debounced", "0"), names.bus("retries", "0"))
        return not await self._client.store.call("EXISTS", *keys) and bool(await self._of("imports"))

    async def _overdue(self) -> bool:
        delayed, now_us = self._client.names.bus("delayed"), self._client.now_us()
        return bool(await self._client.store.call("ZCOUNT", delayed, "-inf", now_us) == ALONE)

    async def _done(self) -> bool:
        letters = DeadLetters(self._client)
        poisons = [letter for letter in await letters.list() if letter.kind == "poison"]
        await letters.replay(letter.letter_id for letter in poisons if letter.channel == "numbers")
        return len(await self._of("numbers")) >= self._delayed

    async def _of(self, topic: str) -> list[int]:
        messages = [msgspec.json.decode(record.message) for record in await fed(self._client) if record.topic == topic]
        return [message["data"] for message in messages]

    async def _both(self) -> tuple[list[int], list[int]]:
        return await self._of("numbers"), await self._of("imports")

    async def _check(self) -> LaterFindings:
        numbers, broadcasts = await self._until(self._both, "the feed can be read")
        seen = Counter(numbers)
        return LaterFindings(
            imported=self._published,
            broadcasts=broadcasts,
            delayed=self._delayed,
            lost=[n for n in range(self._delayed) if n not in seen],
            twice=[n for n, times in seen.items() if times > 1],
        )


async def crash_an_import(
    *, events: int, kills: int, seed: int = 1, topology: str = "one", kind: type[ImportHarness] = ImportHarness
) -> tuple[LaterFindings, ImportHarness]:
    """Run the harness against a deployment of its own, with workers whose clocks are wrong where libfaketime is."""
    with tempfile.TemporaryDirectory(prefix="cachebus-") as folder:
        clocks = SkewedClocks(Path(folder), random.Random(seed))  # noqa: S311 - a wrong time, not a secret
        async with deployed(topology) as deployment:
            harness = kind(deployment, clocks, events=events, kills=kills, seed=seed)
            return await harness.run(), harness


def main(events: int, kills: int, seed: int) -> int:
    """Run, print, and say by the exit code whether all was sound."""
    found, _ = asyncio.run(crash_an_import(events=events, kills=kills, seed=seed))
    print(  # noqa: T201 - the report
        f"seed {seed}, {kills} kills: {found.imported} events imported, broadcasts {found.broadcasts}; "
        f"{found.delayed} delayed, lost {found.lost}, twice {found.twice}"
    )
    return 0 if found.sound else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.exit(main(asked.events, asked.kills, asked.seed))
