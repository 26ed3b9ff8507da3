"""Refreshing: entries that handlers asked for, loaded by any worker, each after its invalidation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from cachebus.bus.effects import IF_WORTH
from cachebus.bus.engine.consumer import DEAD_LETTERS
from cachebus.bus.engine.draining import POLL_S, Sleeper, until_due
from cachebus.bus.letters import DETAIL_CHARACTERS, REASON_CHARACTERS
from cachebus.durations import Duration, backoff_s, milliseconds
from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument
from cachebus.tracing import installed
from cachebus.waiting import is_cancelled, pass_on

log = logging.getLogger("cachebus")

ANSWER_S = 2.0
GRACE_MS = 15_000
"""A taker that is silent this much longer than a load may take has died."""
MOST_SILENT = 2
"""After this many workers that died while they loaded one entry, its refresh is dead-lettered."""
MOST_FAILURES = 5
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0


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
    clock: str
    """The entry must be born at it, or later."""
    failures: int
    view: str
    arguments: bytes
    traceparent: str = ""
    if_worth: bool = False
    """Only if a read is likely enough."""


Worth = Callable[[str, bytes, str], Awaitable[bool]]
"""Says whether a read of an entry is likely enough: its view, its arguments, the clock of its invalidation."""


@dataclass(slots=True)
class RefreshStats:
    """What a refresher has done: plain counters."""

    loaded: int = 0
    """Entries whose loader ran here."""
    fresh: int = 0
    """Entries that somebody else had loaded already."""
    not_worth: int = 0
    """Entries that were only invalidated: a read was not likely enough (`Refresh(…, worth=True)`)."""
    failed: int = 0
    dead_lettered: int = 0
    loading: int = 0
    faults: int = 0


class Refresher(Sleeper):
    """Loads what handlers asked for, some at a time. `run` in a task of its own; any number of them in a deployment."""

    def __init__(
        self,
        client: Client,
        views: Mapping[str, Warmable],
        *,
        reading: Callable[..., AbstractContextManager[Any]],
        concurrency: int = 4,
        timeout: Duration = "60s",
        worth: Worth | None = None,
    ) -> None:
        """*views* by name (`cache.views`); *reading* is `cache.reading`: entered with the clock a load must follow.

        *worth*: is asked about entries that are to be loaded only then; without it they are loaded.
        """
        names = client.names
        super().__init__(client, names.bus("refresh"), "refreshes")
        self._views = views
        self._reading = reading
        self._concurrency = concurrency
        self._worth = worth
        self._timeout_ms = milliseconds(timeout, "timeout")
        letters = (names.bus("deadletters"), names.bus("deadletter-ids"))
        self._keys = (names.bus("refreshes"), names.bus("refresh-items"), *letters)
        self.stats: RefreshStats = RefreshStats()
        self._loads: dict[asyncio.Task[None], Taken] = {}

    # -- the main path ----------------------------------------------------------------------------------------------

    async def _work(self, stop: asyncio.Future[None]) -> None:
        """Take and load. Drained, the loads under way are finished."""
        await super()._work(stop)
        await asyncio.gather(*self._loads, return_exceptions=True)

    async def _look(self) -> float:
        """Begin to load as much as there is room for; return how long until more is due."""
        free = self._concurrency - len(self._loads)
        if free < 1:
            return POLL_S  # the end of a load wakes it
        args = (free, self._timeout_ms + GRACE_MS, MOST_SILENT, DEAD_LETTERS)
        due_ms, buried, *parts = await self._client.store.run(
            "bus/engine/take_refreshes", self._keys, args, timeout_s=ANSWER_S
        )
        self.stats.dead_lettered += buried
        for taken in _taken(parts):
            task = asyncio.create_task(self._load(taken), name=f"cachebus refresh {taken.view}")
            self._loads[task] = taken
            task.add_done_callback(self._loaded)
        self.stats.loading = len(self._loads)
        return until_due(due_ms)

    async def _load(self, taken: Taken) -> None:
        """Load one entry and say what became of it."""
        try:
            if not await self._is_worth(taken):
                self.stats.not_worth += 1
                await self._settle(taken.key, "loaded", taken.clock)
                return
            warmed = await self._warm(taken)
        except BaseException as error:  # whatever a loader raises, the others continue
            if is_cancelled():
                raise
            pass_on(error)
            await self._failed(taken, error)
            return
        if warmed.loaded:
            self.stats.loaded += 1
        else:
            self.stats.fresh += 1
        await self._settle(taken.key, "loaded", taken.clock)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _is_worth(self, taken: Taken) -> bool:
        if not taken.if_worth or self._worth is None:
            return True
        return await self._worth(taken.view, taken.arguments, taken.clock)

    async def _warm(self, taken: Taken) -> Any:
        view = self._views.get(taken.view)
        if view is None:
            raise LookupError(f"there is no view {taken.view!r} in this process")
        with span_of(taken), self._reading(fresh_after=taken.clock):
            async with asyncio.timeout(self._timeout_ms / 1000):
                return await view.warm(*view.decode_arguments(taken.arguments))

    async def _failed(self, taken: Taken, error: BaseException) -> None:
        self.stats.failed += 1
        delay_s = backoff_s(taken.failures + 1, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, random.random())  # noqa: S311 - jitter, not a secret
        reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
        detail = "".join(traceback.format_exception(error))[-DETAIL_CHARACTERS:]
        ended = await self._settle(
            taken.key, "failed", int(delay_s * 1000), MOST_FAILURES, DEAD_LETTERS, reason, detail
        )
        if ended:
            self.stats.dead_lettered += 1
            log.warning("refresh of %s given up: %s", taken.key, reason)

    async def _settle(self, key: str, outcome: str, *args: Argument) -> bool:
        """Record the end on the server; while that is unavailable, the entry becomes due again by itself."""
        try:
            return bool(
                await self._client.store.run(
                    "bus/engine/settle_refresh", self._keys, (key, outcome, *args), timeout_s=ANSWER_S
                )
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
            log.error("refresh failed: %r", error)

    async def _close(self) -> None:
        """Cancel what still loads and release it to other workers."""
        loads = dict(self._loads)
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        for taken in loads.values():
            await self._settle(taken.key, "back")
        await super()._close()


def _taken(parts: list[Any]) -> list[Taken]:
    return [
        Taken(
            key.decode(),
            clock.decode(),
            failures,
            view.decode().removeprefix(IF_WORTH),
            arguments,
            trace.decode(),
            view.decode().startswith(IF_WORTH),
        )
        for key, clock, failures, view, arguments, trace in zip(*[iter(parts)] * 6, strict=True)
    ]


def span_of(taken: Taken) -> AbstractContextManager[Any]:
    """Return what a refresh runs within: a span, where somebody traces."""
    tracer = installed.tracer
    return contextlib.nullcontext() if tracer is None else tracer.refreshing(taken.view, taken.traceparent)
