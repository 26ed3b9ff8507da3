"""`distributed_lock`: one at a time, across processes. The rules are `cachebus.locks`'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from cachebus.durations import Duration
from cachebus.errors import LockLost
from cachebus.heldlock import Held
from cachebus.lock import TIMEOUT, Terms
from cachebus.locks import Locks
from cachebus.synclocks import SyncHeld, SyncLock, SyncLocks
from cachebus.syncpart import SyncPart
from tradesense.caching.shared import facade, portal

T = TypeVar("T")


class _Part(SyncPart[Locks]):
    """The locks of this process, also for callers who do not block."""

    def begin(self, work: Callable[[Locks], Coroutine[Any, Any, T]]) -> Future[T]:
        """Do something with the locks in the cache's loop."""
        return portal.submit(self._work(work))


_part = _Part(facade, Locks)
_locks = SyncLocks(facade)
_locks.part = _part


def distributed_lock(
    name: str,
    timeout: Duration = TIMEOUT,
    blocking_timeout: Duration | None = None,
    *,
    renew: bool = True,
    max_hold: Duration | None = None,
) -> DistributedLock:
    """Return the lock *name*, to be held with `with`, or in async code with `async with`.

    *timeout* is a lease: the lock is free that long after its holder has died or hung. While the holder lives it is
    kept; with `renew=False` it ends after *timeout* in any case. *blocking_timeout* is how long to wait for it.
    Raises: ConfigurationError (a ValueError).
    """
    return DistributedLock(Terms(name, timeout, blocking_timeout, renew, max_hold))


class DistributedLock:
    """A lock by name. What is yielded has `token` (the fencing number), `remaining`, `lost` and `ensure()`."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._entered: list[SyncLock] = []
        self._stays: dict[asyncio.Task[Any] | None, list[AbstractAsyncContextManager[Held]]] = {}

    def __enter__(self) -> SyncHeld:
        """Take the lock, waiting in line for it; a body in a thread is not stopped when the lock is lost.

        In a running event loop this blocks the loop, and the holder may be one of its tasks: without a
        `blocking_timeout` it waits as long as the lease there, not for ever.
        Raises: LockNotAcquired; LockUnavailable when the server is away; AlreadyHeld; at exit, LockLost.
        """
        lock = SyncLock(_locks, self._terms_here())
        held = lock.__enter__()
        self._entered.append(lock)
        return held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    def _terms_here(self) -> Terms:
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            if self._terms.blocking_timeout is None:
                return replace(self._terms, blocking_timeout=self._terms.timeout)
        return self._terms

    async def __aenter__(self) -> Held:
        """Take the lock without blocking the loop; the body is cancelled if the lock is lost.

        Raises: as `with`; LockLost instead of the cancellation.
        """
        stay = self._stay()
        held = await stay.__aenter__()
        self._stays.setdefault(asyncio.current_task(), []).append(stay)
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        stay = self._stays[task].pop()
        if not self._stays[task]:
            del self._stays[task]
        await stay.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _stay(self) -> AsyncIterator[Held]:
        """Hold the lock in the cache's loop while the body runs in this one."""
        holding = _Holding(self._terms)
        held = await holding.begin()
        try:
            async with asyncio.timeout(None) as body:
                holding.bound(body)
                yield held
        except BaseException as error:
            if not (isinstance(error, TimeoutError) and body.expired()):
                try:
                    await holding.end()
                except LockLost as lost:
                    error.add_note(str(lost))
                raise
        await holding.end()


class _Holding:
    """A task in the cache's loop that holds a lock for a body in another one."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[Held] = self._loop.create_future()
        self._body: asyncio.Timeout | None = None
        self._leave: Callable[[], object]
        self._over = asyncio.wrap_future(_part.begin(self._hold))

    async def _hold(self, locks: Locks) -> None:
        terms, leave = self._terms, asyncio.Event()
        self._leave = partial(asyncio.get_running_loop().call_soon_threadsafe, leave.set)
        lock = locks.lock(terms.name, terms.timeout, terms.blocking_timeout, renew=terms.renew, max_hold=terms.max_hold)
        async with lock as held:
            self._loop.call_soon_threadsafe(self._enter, held)
            await leave.wait()

    def _enter(self, held: Held) -> None:
        if not self._entered.done():
            self._entered.set_result(held)

    async def begin(self) -> Held:
        """Return once the lock is held. Raises: what acquiring it raises. Cancelled, nothing of it stays behind."""
        try:
            either: set[asyncio.Future[Any]] = {self._entered, self._over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._entered.done():
                await self._over
            return await self._entered
        except BaseException:
            self._entered.cancel()
            self._over.cancel()
            raise

    def bound(self, body: asyncio.Timeout) -> None:
        """End the body if the lock is lost."""
        self._body = body
        self._over.add_done_callback(self._lost)

    def _lost(self, _over: object) -> None:
        if self._body is not None:
            self._body.reschedule(0)

    async def end(self) -> None:
        """Release. Raises: LockLost."""
        self._body = None
        self._leave()
        await asyncio.shield(self._over)
