"""A cache that is connected: its parts, in one event loop of one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Self

from cachebus.entries import Entries
from cachebus.errors import ServerError
from cachebus.freshness import Freshness
from cachebus.history import Observed, Reporter
from cachebus.journal import Journal
from cachebus.ledger import Ledger
from cachebus.link import Link, now_s
from cachebus.memory import Memory
from cachebus.popularity import Popularity
from cachebus.reader import Reader
from cachebus.sampling import ConsistencySampler
from cachebus.settings import CacheSettings
from cachebus.shelf import Shelf
from cachebus.stats import CacheStats

if TYPE_CHECKING:
    from cachebus.embedded import EmbeddedServer

log = logging.getLogger("cachebus")

SWEEP_S = 30.0
"""How often expired values leave memory, asked for or not."""
DELIVER_S = 1.0
"""How often queued invalidations are tried while the connection stands."""


class Process:
    """Tells this process from the one it was forked from, without a system call for each read."""

    mark = object()

    @classmethod
    def forked(cls) -> None:
        """Begin anew in the child."""
        cls.mark = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Process.forked)


class Running:
    """The parts of a connected cache, wired together once."""

    def __init__(self, settings: CacheSettings, url: str | None, embedded: EmbeddedServer | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._settings = settings
        self._thread = get_ident()
        self._process = Process.mark
        self.freshness = Freshness()
        self.link = Link(url, store_url=settings.store_url, namespace=settings.namespace) if url is not None else None
        self.ledger = Ledger(self.link, self.freshness) if self.link is not None else None
        self.journal = Journal(self.link, self.freshness) if self.link is not None else None
        link, ledger = self.link, self.ledger
        up = (lambda: link.store.up and link.entries.up) if link is not None else (lambda: False)
        at_us = link.at_us if link is not None else (lambda moment_s: int(moment_s * 1_000_000))
        shelf = Shelf(
            Memory(settings.max_memory_entries, settings.max_memory_bytes),
            self.freshness,
            ledger,
            up=up,
            at_us=at_us,
            max_staleness_s=settings.max_staleness_ms / 1000,
        )
        entries = Entries(link, ledger) if link is not None and ledger is not None else None
        self.reader = Reader(shelf, ledger=ledger, journal=self.journal, entries=entries, up=up, at_us=at_us)
        self.sampler = ConsistencySampler(settings.consistency_sample, shelf.memory, ledger)
        self.popularity = Popularity(link) if link is not None else None
        self.reporter: Reporter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._embedded = embedded

    @classmethod
    async def start(cls, settings: CacheSettings) -> Self:
        """Connect. Returns also when Redis is away: it is tried again, and reads go on without it."""
        url, embedded = settings.url, None
        if not settings.redis_enabled:
            url = None
            log.warning("REDIS_ENABLED=false: this process caches alone, nothing is shared or invalidated elsewhere")
        elif url is None:
            from cachebus.embedded import EmbeddedServer  # noqa: PLC0415 - needed, and importable, only here

            embedded = await asyncio.to_thread(EmbeddedServer.start)
            url = embedded.url
            log.warning("REDIS_URL is not set: using the embedded %s at %s", embedded.kind, url)
        running = cls(settings, url, embedded)
        if running.link is not None and running.journal is not None:
            await running.link.start()
            running._tasks.append(asyncio.create_task(running.journal.run(), name="cachebus journal"))
            running._tasks.append(asyncio.create_task(running._deliver(), name="cachebus outbox"))
        if running.popularity is not None:
            running._tasks.append(asyncio.create_task(running.popularity.run(), name="cachebus popularity"))
        running._tasks.append(asyncio.create_task(running._sweep(), name="cachebus sweep"))
        return running

    def report(
        self, stats: Callable[[], CacheStats], observed: Observed, ttls_ms: Callable[[], dict[str, int]]
    ) -> None:
        """Say from now on what this process counts, for the live page: one command in ten seconds."""
        if self.link is not None and self._settings.report:
            self.reporter = Reporter(self.link, stats, observed, ttls_ms=ttls_ms)
            self._tasks.append(asyncio.create_task(self.reporter.run(), name="cachebus history"))

    def is_here(self) -> bool:
        """Whether the caller runs in this loop, of this process.

        A thread runs one loop at a time. `get_running_loop` would ask the kernel for the process id before Python 3.12.
        """
        return self._thread == get_ident() and self.loop.is_running() and self._process is Process.mark

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.reader.memory.sweep(now_s())

    async def _deliver(self) -> None:
        """Send queued invalidations while the connection stands (after an outage the next connection does it)."""
        assert self.link is not None and self.ledger is not None  # noqa: S101, PT018 - started only with a server
        while True:
            await asyncio.sleep(DELIVER_S)
            if self.ledger.queued and self.link.store.up:
                with contextlib.suppress(ServerError):
                    await self.ledger.deliver()

    async def close(self) -> None:
        if self.loop.is_closed() or self._process is not Process.mark:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sampler.close()
        await self.reader.close()
        if self.link is not None:
            await self.link.close()
        if self._embedded is not None:
            await asyncio.to_thread(self._embedded.stop)
