"""One application of the fleet: `python -m tests.support.fleet.application NAME NOTES SEED [--spread]`.

It changes what is true of its own keys, publishes that or invalidates it directly, and reads everybody's keys through
the cache. On SIGTERM it changes nothing more, says so, and goes on reading until it is killed. A process that continues
another one's notes begins where that one ended; every second key's events have an id of the application's, and one that
was in doubt is published again under it. `--spread` publishes the events of one key under many.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import threading
import time
from pathlib import Path

from cachebus import Bus, CacheBusError, is_queued
from tests.support.fleet.domain import cache, truth, value
from tests.support.fleet.notes import Accepted, Began, Invalidated, Notebook, Past, Raised, Read, Stalled
from tests.support.fleet.shape import CHANNEL, KEYS, QUIET, READY, SHARDS, Changed

READERS = 3
DIRECTLY = 0.3
"""The share of the changes that is invalidated by the application, without an event."""
CHANGE_PAUSE_S, READ_PAUSE_S = 0.12, 0.06
BEAT_S, STALL_S = 0.02, 0.1
PATIENCE = "60s"


class Application:
    """What one process does."""

    def __init__(self, name: str, path: Path, seed: str, *, spread: bool) -> None:
        self._keys = [key for key in KEYS if key.endswith(f"-{name}")]
        self._past = Past.of(path)
        self._book = Notebook(path)
        self._draw = random.Random(seed)  # noqa: S311 - traffic
        self._spread = spread
        self._bus = Bus(cache, shards=SHARDS)
        self._quiet = asyncio.Event()

    async def run(self) -> None:
        """Say when connected, and when nothing more is changed; read until killed."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._quiet.set)
        threading.Thread(target=self._beat, daemon=True).start()
        async with cache, asyncio.TaskGroup() as tasks:
            print(READY, flush=True)  # noqa: T201 - tells the harness
            for _ in range(READERS):
                tasks.create_task(self._read())
            await asyncio.gather(*[self._change(key) for key in self._keys])
            print(QUIET, flush=True)  # noqa: T201 - tells the harness

    async def _change(self, key: str) -> None:
        last = self._past.last(key)
        if self._past.in_doubt(key) and self._id(key, last) is not None:
            await self._publish(key, last)
        while not self._quiet.is_set():
            last += 1
            event = self._draw.random() >= DIRECTLY
            self._book.write(Began(key, last, event))
            await truth.set(f"true:{key}", last)
            await (self._publish if event else self._invalidate)(key, last)
            await asyncio.sleep(self._draw.random() * CHANGE_PAUSE_S)

    async def _publish(self, key: str, n: int) -> None:
        ordered_by = f"{key}:{n}" if self._spread else key
        try:
            await self._bus.publish(CHANNEL, Changed(key, n), key=ordered_by, id=self._id(key, n), timeout=PATIENCE)
        except CacheBusError as error:
            self._book.write(Raised(f"publish: {error}"))
        else:
            self._book.write(Accepted(key, n))

    def _id(self, key: str, n: int) -> str | None:
        return f"{key}:{n}" if int(key[0]) % 2 else None

    async def _invalidate(self, key: str, n: int) -> None:
        """Invalidate until it is in force everywhere; here it is at once."""
        while True:
            clock = await self._draw.choice(
                (
                    lambda: value.invalidate(key),
                    lambda: cache.invalidate(tags=f"of:{key}"),
                    lambda: cache.invalidate(prefix=f"value:{key}:"),
                )
            )()
            at = time.monotonic()
            if not is_queued(clock):
                self._book.write(Invalidated(key, n, at))
            await self._look(key, own=n)
            if not is_queued(clock):
                return
            await asyncio.sleep(0.05)

    async def _read(self) -> None:
        while True:
            await self._look(self._draw.choice(KEYS))
            await asyncio.sleep(self._draw.random() * READ_PAUSE_S)

    async def _look(self, key: str, own: int = 0) -> None:
        began, connected = time.monotonic(), cache.stats().up
        try:
            version = await value(key)
        except CacheBusError as error:
            self._book.write(Raised(f"read: {error}"))
        else:
            self._book.write(Read(key, version, began, connected and cache.stats().up, own))

    def _beat(self) -> None:
        """Note when this process did not run for a while."""
        while True:
            began = time.monotonic()
            time.sleep(BEAT_S)
            if time.monotonic() - began > STALL_S:
                self._book.write(Stalled(began, time.monotonic()))


if __name__ == "__main__":
    here = Application(sys.argv[1], Path(sys.argv[2]), sys.argv[3], spread="--spread" in sys.argv)
    asyncio.run(here.run())
