"""Refreshing: entries that handlers asked for, loaded by any worker, each after its invalidation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from cachebus.consumer import DEAD_LETTERS
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ServerError
from cachebus.link import Link
from cachebus.plan import DETAIL_CHARACTERS, REASON_CHARACTERS
from cachebus.stopping import unless
from cachebus.subscriptions import Subscription
from cachebus.wire import Argument

log = logging.getLogger("cachebus")

POLL_S = 10.0
"""How often it is looked whether a wake was missed."""
PAUSE_S = 0.5
ANSWER_S = 2.0
GRACE_MS = 15_000
"""A taker that is silent this much longer than a load may take has died."""
MOST_SILENT = 2
"""So many takers fell silent over one entry, and it is a dead letter."""
MOST_FAILURES = 5
BACKOFF_MS = 1000


class Warmable(Protocol):
    """What is asked of a view (`cache.view` makes them)."""

    def decode_arguments(self, encoded: bytes) -> tuple[Any, ...]:
        """Return the arguments of a call."""
        ...

    async def warm(self, *args: Any) -> Any:
        """See to it that a valid entry exists; returns at least `born` and `loaded`."""
        ...


class Taken(NamedTuple):
    """One entry to load."""

    key: str
    clock: int
    """The entry must be born at it, or later."""
    failures: int
    view: str
    arguments: bytes


@dataclass(slots=True)
class RefreshStats:
    """What a refresher has done: plain counters."""

    loaded: int = 0
    """Entries whose loader ran here."""
    fresh: int = 0
    """Entries that somebody else had loaded already."""
    failed: int = 0
    dead_lettered: int = 0
    loading: int = 0
    faults: int = 0


class Refresher:
    """Loads what handlers asked for, some at a time. `run` in a task of its own; any number of them in a deployment."""

    def __init__(
        self,
        link: Link,
        views: Mapping[str, Warmable],
        *,
        reading: Callable[..., AbstractContextManager[Any]],
        concurrency: int = 4,
        timeout: Duration = "60s",
    ) -> None:
        """*views* by name (`cache.views`); *reading* is `cache.reading`: entered with the clock a load must follow."""
        self._link = link
        self._views = views
        self._reading = reading
        self._concurrency = concurrency
        self._timeout_ms = milliseconds(timeout, "timeout")
        names = link.names
        self._wake_channel = names.bus("refresh")
        self._keys = (names.bus("refreshes"), names.bus("refresh-items"), names.bus("deadletters"))
        self.stats = RefreshStats()
        self._loads: dict[asyncio.Task[None], Taken] = {}
        self._subscription: Subscription | None = None
        self._woken = asyncio.Event()
        self._draining = asyncio.Event()
        self._running = False
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Take and load until cancelled. Outages are waited out."""
        self._running = True
        self._ended.clear()
        try:
            while not self._draining.is_set():
                try:
                    await self._step()
                except ServerError as away:
                    self.stats.faults += 1
                    log.debug("refreshes: %s", away)
                    await unless(self._draining, asyncio.sleep(PAUSE_S))
            await asyncio.gather(*self._loads, return_exceptions=True)
        finally:
            self._running = False
            await self._hand_back()
            self._ended.set()
        await asyncio.get_running_loop().create_future()  # drained: nothing to do until cancelled

    async def drain(self) -> None:
        """Take nothing more; returns when the loads under way are done. Cut short, they are handed back."""
        self._draining.set()
        self._woken.set()
        if self._running:
            await self._ended.wait()

    # -- the main path ----------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        if self._subscription is None:
            await unless(self._draining, self._subscribe())
            return
        self._woken.clear()
        free = self._concurrency - len(self._loads)
        wait_s = POLL_S
        if free > 0:
            args = (free, self._timeout_ms + GRACE_MS, MOST_SILENT, DEAD_LETTERS)
            due_ms, buried, *parts = await self._link.store.run("take_refreshes", self._keys, args, timeout_s=ANSWER_S)
            self.stats.dead_lettered += buried
            for taken in _taken(parts):
                task = asyncio.create_task(self._load(taken), name=f"cachebus refresh {taken.view}")
                self._loads[task] = taken
                task.add_done_callback(self._loaded)
            self.stats.loading = len(self._loads)
            if due_ms >= 0:
                wait_s = min(POLL_S, due_ms / 1000 + 0.001)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._woken.wait()

    async def _subscribe(self) -> None:
        subscribe = self._link.subscriptions.subscribe
        self._subscription = await subscribe(self._wake_channel, lambda *_: self._woken.set(), on_gap=self._woken.set)

    async def _load(self, taken: Taken) -> None:
        """Load one entry and say what became of it."""
        try:
            warmed = await self._warm(taken)
        except Exception as error:  # noqa: BLE001 - whatever a loader raises, the others go on
            await self._failed(taken, error)
            return
        if warmed.loaded:
            self.stats.loaded += 1
        else:
            self.stats.fresh += 1
        await self._settle(taken.key, "loaded", warmed.born)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _warm(self, taken: Taken) -> Any:
        view = self._views.get(taken.view)
        if view is None:
            raise LookupError(f"no view is called {taken.view!r} here")
        with self._reading(fresh_after=taken.clock):
            async with asyncio.timeout(self._timeout_ms / 1000):
                return await view.warm(*view.decode_arguments(taken.arguments))

    async def _failed(self, taken: Taken, error: Exception) -> None:
        self.stats.failed += 1
        delay_ms = int(BACKOFF_MS * 2**taken.failures * (0.5 + random.random() / 2))  # noqa: S311 - jitter, not a secret
        reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
        detail = "".join(traceback.format_exception(error))[-DETAIL_CHARACTERS:]
        ended = await self._settle(taken.key, "failed", delay_ms, MOST_FAILURES, DEAD_LETTERS, reason, detail)
        if ended:
            self.stats.dead_lettered += 1
            log.warning("refresh of %s given up: %s", taken.key, reason)

    async def _settle(self, key: str, outcome: str, *args: Argument) -> bool:
        """Tell the server; where it is away the entry comes back by itself when its taker has been silent too long."""
        try:
            return bool(
                await self._link.store.run("settle_refresh", self._keys, (key, outcome, *args), timeout_s=ANSWER_S)
            )
        except ServerError as away:
            self.stats.faults += 1
            log.debug("refreshes: %s", away)
            return False

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loads.pop(task, None)
        self.stats.loading = len(self._loads)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("refresh broke: %r", error)

    async def _hand_back(self) -> None:
        """Cancel what still loads and let others have it."""
        loads = dict(self._loads)
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        for taken in loads.values():
            await self._settle(taken.key, "back")
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.cancel()


def _taken(parts: list[Any]) -> list[Taken]:
    return [
        Taken(key.decode(), int(clock), failures, view.decode(), arguments)
        for key, clock, failures, view, arguments in zip(*[iter(parts)] * 5, strict=True)
    ]
