"""A cache that is connected: its parts, in one event loop of one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from cachebus.cache.foresight.recorder import Recorder
from cachebus.cache.foresight.take import Readable, Sources
from cachebus.cache.reads.lookup import Lookup
from cachebus.cache.reads.reader import Reader
from cachebus.cache.settings import CacheSettings
from cachebus.cache.stats import CacheStats, ViewStats
from cachebus.cache.tiers.memory import Memory
from cachebus.cache.tiers.redis import Entries
from cachebus.cache.tiers.s3fifo import S3Fifo
from cachebus.cache.upkeep.answers import copies_in
from cachebus.cache.upkeep.declarations import Declarations, Declared
from cachebus.cache.upkeep.lives import Lives
from cachebus.cache.upkeep.popularity import Popularity
from cachebus.cache.upkeep.reporter import Observed, Reporter, process_name
from cachebus.cache.upkeep.sampler import ConsistencySampler
from cachebus.clock import now_s
from cachebus.errors import AccessDenied, ServerError
from cachebus.freshness.journal import Journal
from cachebus.freshness.ledger import Ledger, new_era
from cachebus.freshness.rule import Freshness
from cachebus.redis.client import Client, InProcess
from cachebus.redis.replies import remedy
from cachebus.waiting import end

if TYPE_CHECKING:
    from cachebus.cache.foresight.prediction.predictor import Predictor
    from cachebus.cache.view import View
    from cachebus.redis.embedded.embedded import EmbeddedServer

log = logging.getLogger("cachebus")

SWEEP_S = 30.0
"""How often expired values leave memory, asked for or not."""
DELIVER_S = 1.0
"""How often queued invalidations are tried while there is a connection."""


ELSEWHERE = (
    "this cache is connected in the event loop of another thread, which runs; "
    "give each loop a Cache of its own, or call one cachebus.sync.Cache from threads"
)


class Process:
    """Tells this process from the one it was forked from, without a system call for each read."""

    mark = object()

    @classmethod
    def forked(cls) -> None:
        """Start again in the child."""
        cls.mark = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Process.forked)


class Connecting(asyncio.Lock):
    """Held by whoever connects a cache, in one event loop of one process."""

    def __init__(self) -> None:
        super().__init__()
        self._here = asyncio.get_running_loop()
        self._process = Process.mark

    def is_here(self) -> bool:
        """Whether the caller runs in that loop."""
        return self._here is asyncio.get_running_loop()

    def refuse_others(self) -> None:
        """Raise RuntimeError where that loop is another one than the caller's, of this process, and runs."""
        if self._process is Process.mark and self._here.is_running() and not self.is_here():
            raise RuntimeError(ELSEWHERE)


class Runtime:
    """The parts of a connected cache, wired together once."""

    def __init__(self, settings: CacheSettings, url: str | None, embedded: EmbeddedServer | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._settings = settings
        self._thread = get_ident()
        self._process = Process.mark
        self.freshness = Freshness() if url is not None else Freshness(new_era())
        self.in_process = InProcess()
        self.client = (
            Client(
                url,
                store_url=settings.store_url,
                namespace=settings.namespace,
                credentials=settings.credentials_source() if embedded is None else None,
            )
            if url is not None
            else None
        )
        if self.client is not None:
            self.client.process = process_name()
        self.ledger = (
            Ledger(
                self.client,
                self.freshness,
                process=process_name(),
                trust_restarts=settings.trust_restarts,
                boot=embedded.boot if embedded is not None else "",
                keeps=settings.ledger_scopes,
            )
            if self.client is not None
            else None
        )
        self.journal = (
            Journal(self.client, self.freshness, self.ledger, max_lag_s=settings.max_lag_ms / 1000)
            if self.client is not None and self.ledger is not None
            else None
        )
        client, ledger = self.client, self.ledger
        up = (lambda: client.store.up and client.entries.up) if client is not None else (lambda: False)
        at_us = client.at_us if client is not None else (lambda moment_s: int(moment_s * 1_000_000))
        memory = Memory(
            S3Fifo(settings.max_memory_entries, settings.max_memory_bytes),
            self.freshness,
            ledger,
            up=up,
            at_us=at_us,
            max_staleness_s=settings.max_staleness_ms / 1000,
        )
        lookup = (
            Lookup(memory, Entries(client, ledger), ledger, up=up, at_us=at_us)
            if client is not None and ledger is not None
            else None
        )
        self.reader = Reader(memory, lookup, self.journal)
        self.sampler = ConsistencySampler(settings.consistency_sample, memory.held, ledger)
        self.popularity = Popularity(client) if client is not None else self.in_process.of(Popularity)
        self.reporter: Reporter | None = None
        self.recorder: Recorder | None = None
        self.predictor: Predictor | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._embedded = embedded
        self._until_the_loop_ends = self._closing_last()

    @classmethod
    async def start(cls, settings: CacheSettings) -> Self:
        """Connect. Returns also while Redis is unavailable: it is tried again, and reads go on without it."""
        url, embedded = settings.url, None
        if not settings.redis_enabled:
            url = None
        elif url is None:
            from cachebus.redis.embedded.embedded import EmbeddedServer  # noqa: PLC0415 - needed, and importable, only here

            embedded = await asyncio.to_thread(EmbeddedServer.start)
            url = embedded.url
            log.warning("REDIS_URL is not set: using the embedded %s at %s", embedded.kind, url)
        running = cls(settings, url, embedded)
        try:
            await anext(running._until_the_loop_ends)
            await running._begin()
        except BaseException:  # cancelled: nobody else would close what is open by now
            await running.close()
            raise
        return running

    async def _begin(self) -> None:
        if self.client is not None and self.journal is not None:
            await self.client.start()
            self._tasks.append(asyncio.create_task(self.journal.run(), name="cachebus journal"))
            self._tasks.append(asyncio.create_task(self._deliver(), name="cachebus outbox"))
        if self.client is not None:
            self._tasks.append(asyncio.create_task(self.popularity.run(), name="cachebus popularity"))
        self._tasks.append(asyncio.create_task(self._sweep(), name="cachebus sweep"))

    def report(
        self,
        stats: Callable[[], CacheStats],
        observed: Observed,
        views: Mapping[str, View[Any, Any]],
        plain: Readable,
    ) -> None:
        """Say from now on what this process counts and declares, and learn of all views of the deployment.

        One command in ten seconds, for the live page. Warns of views that another application declares. A quiet process
        counts for itself alone, and asks nothing while it reads nothing.
        """
        if self.client is None:
            return
        if self._settings.quiet and self.journal is not None:
            self.journal.rest_while_idle(lambda: sum(view.reads for view in stats().views.values()))
        elif self._settings.report:
            memory, loader = self.reader.memory, self.reader.loader
            seen = Sources(views, lambda: stats().views, plain, observed, memory.held)
            self.recorder = Recorder(self.client, seen, process_name(), self._settings.max_memory_entries)
            lives = Lives(observed.lives, self.freshness, observed.reach)
            memory.store.ended = lives.ended
            self.freshness.watchers = (*self.freshness.watchers, self.recorder.invalidated)
            loader.loaded = (lives.loaded, self.recorder.loaded)
            self.client.tellers["memory"].append(partial(copies_in, memory))
            self.reporter = Reporter(
                self.client,
                stats,
                observed,
                ttls_ms=lambda: {view.name: view.policy.ttl_ms for view in views.values()},
                follow=self.recorder.follow,
            )
            self._tasks.append(asyncio.create_task(self.reporter.run(), name="cachebus history"))
        declarations = Declarations(
            self.client,
            lambda: [Declared(view.name, view.module, view.tag_templates) for view in views.values()],
            observed.reach.learn,
        )
        self._tasks.append(asyncio.create_task(declarations.run(), name="cachebus declarations"))

    def predict(self, views: Mapping[str, View[Any, Any]]) -> None:
        """Load ahead from now on what views say may be; nothing where none does, or it is switched off."""
        wanted = self._settings.enabled and self._settings.predict != "off"
        if self.predictor is None and wanted and any(view.predicts for view in views.values()):
            from cachebus.cache.foresight.prediction.predictor import Predictor  # noqa: PLC0415 - few processes predict

            self.predictor = Predictor(self._settings, self.freshness, self.client, views)
            self._tasks.append(asyncio.create_task(self.predictor.run(), name="cachebus prediction"))

    async def refused(self) -> list[str]:
        """Return a line for each server that denies access: no time to come will make that better."""
        if self.client is None:
            return []
        problems = []
        store = "REDIS_URL" if self._settings.store_url is None else "STORE_REDIS_URL"
        for variable, server in {"REDIS_URL": self.client.entries, store: self.client.store}.items():
            try:
                await server.call("PING")
            except AccessDenied as denied:
                problems.append(f"{variable}: the server denies access ({denied}); {remedy(denied)}")
            except ServerError as unavailable:
                log.debug("%s: %s", variable, unavailable)
        return problems

    def stats(self, views: dict[str, ViewStats]) -> CacheStats:
        """Return the counters of *views* with those of the process."""
        memory, journal, client, ledger = self.reader.memory.store, self.journal, self.client, self.ledger
        known_since = ledger.recall.known_since if ledger is not None else 0
        return CacheStats(
            views,
            len(memory),
            memory.bytes,
            memory.evictions,
            up=client is not None and client.store.up,
            journal_lag_ms=journal.lag_s * 1000 if journal is not None and journal.lag_s is not None else None,
            gaps=journal.gaps if journal is not None else 0,
            ledger_s=(client.now_us() - known_since) / 1e6 if client is not None and known_since else None,
            outlived=ledger.recall.outlived if ledger is not None else 0,
            queued=ledger.queued if ledger is not None else 0,
            refused=client.refusals.reason if client is not None else "",
        )

    def is_here(self) -> bool:
        """Whether the caller runs in this loop, of this process.

        A thread runs one loop at a time. `get_running_loop` would ask the kernel for the process id before Python 3.12.
        """
        return self._thread == get_ident() and self.loop.is_running() and self._process is Process.mark

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.reader.sweep(now_s())

    async def _deliver(self) -> None:
        """Send queued invalidations while there is a connection (after an outage the next connection does it)."""
        assert self.client is not None and self.ledger is not None  # noqa: S101, PT018 - started only with a server
        while True:
            await asyncio.sleep(DELIVER_S)
            if self.ledger.queued and self.client.store.up:
                with contextlib.suppress(ServerError):
                    await self.ledger.deliver()

    async def _closing_last(self) -> AsyncGenerator[None]:
        """Close when the loop ends its generators, as `asyncio.run` does: nobody else would, and connections stay."""
        try:
            yield
        finally:
            await self._close()

    async def close(self) -> None:
        """Close every connection, and what runs beside them. Idempotent."""
        if self.loop.is_closed() or self._process is not Process.mark:
            return
        await self._until_the_loop_ends.aclose()

    async def _close(self) -> None:
        await end(self._tasks)
        if self.recorder is not None:
            self.recorder.stop()
        if self.predictor is not None:
            await self.predictor.close()
        await self.sampler.close()
        await self.reader.close()
        if self.client is not None:
            await self.client.close()
        if self._embedded is not None:
            await asyncio.to_thread(self._embedded.stop)
