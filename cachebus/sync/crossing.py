"""The synchronous cache, used from event loops too: for a program that lives in both worlds and wants one cache.

Everything goes through the one cache in the loop thread, so what a thread invalidates is gone for a task when the call
returns, and the other way round. An awaited call does not block its loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from cachebus.cache.view import View as AsyncView
from cachebus.errors import LockLost, Unavailable
from cachebus.locks.held import HeldLock as AsyncHeldLock
from cachebus.locks.locks import Locks as AsyncLocks
from cachebus.locks.terms import Terms
from cachebus.sync.locks import HeldLock, Lock, Locks
from cachebus.sync.portal import CLOSED, Facade, Portal, running_loop

T = TypeVar("T")


class OpenPortal(Portal):
    """A portal that event loops may use as well. A call that is not awaited blocks its loop for a round trip."""

    def __init__(self) -> None:
        super().__init__(inside_loop=True)

    def check(self) -> None:
        """Raise RuntimeError in that thread, which would wait for itself."""
        if self.is_here():
            raise RuntimeError(
                "this runs in the cache's own loop and would wait for itself; use the asynchronous cache"
            )

    def is_here(self) -> bool:
        """Whether the caller runs in the portal's own loop."""
        return running_loop() is not None and running_loop() is self._loop


async def read(facade: Facade, view: AsyncView[..., T], *args: Any, **kwargs: Any) -> T:
    """Return the value of a view of *facade*'s cache, from any loop. A load runs in the caller's loop and context."""
    held = view.held(args, {}) if not kwargs else None
    if held is not None:
        return view.answer(held, args, {})
    if running_loop() is facade.portal.loop():
        return await view.read_with(None, args, kwargs)
    load = _LoadHere(facade, partial(view.load, *args, **kwargs))
    future = facade.portal.submit(view.read_with(load.run, args, kwargs))
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():
            raise Unavailable(CLOSED) from None
        raise


class _LoadHere(Generic[T]):
    """A load that runs in the loop it was created in, whoever asks for it."""

    def __init__(self, facade: Facade, function: Callable[[], Awaitable[T]]) -> None:
        self._facade = facade
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> T:
        """Run the load. Raises: what it raises; RuntimeError when its loop is closed, TimeoutError when it stopped."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._begin, done)
        return await asyncio.wait_for(asyncio.wrap_future(done), self._facade.timeout_s)

    def _begin(self, done: concurrent.futures.Future[T]) -> None:
        self._task = self._loop.create_task(self._load(done))

    async def _load(self, done: concurrent.futures.Future[T]) -> None:
        try:
            value = await self._function()
        except BaseException as failed:  # whoever else waits for it must not be cancelled with it
            if not done.cancelled():
                ended = RuntimeError(f"the load was ended by {failed!r}")
                done.set_exception(failed if isinstance(failed, Exception) else ended)
            if not isinstance(failed, Exception):
                raise
        else:
            if not done.cancelled():
                done.set_result(value)


class CrossingLock:
    """A lock for `with` and for `async with`. Yields what has `token` (the fencing number), `lost` and `ensure()`."""

    def __init__(self, locks: Locks, terms: Terms) -> None:
        self._locks = locks
        self._terms = terms
        self._entered: list[Lock] = []
        self._stays: dict[asyncio.Task[Any] | None, list[AbstractAsyncContextManager[AsyncHeldLock]]] = {}

    def __enter__(self) -> HeldLock:
        """Acquire the lock; a body in a thread is not stopped when the lock is lost.

        In a running loop this blocks the loop, and the holder may be one of its tasks: without a `blocking_timeout` it
        waits as long as the lease there, not for ever.
        Raises: LockNotAcquired; LockUnavailable; AlreadyHeld; at exit, LockLost.
        """
        terms = self._terms
        if running_loop() is not None and terms.blocking_timeout is None:
            terms = replace(terms, blocking_timeout=terms.timeout)
        lock = Lock(self._locks, terms)
        held = lock.__enter__()
        self._entered.append(lock)
        return held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    async def __aenter__(self) -> AsyncHeldLock:
        """Acquire the lock without blocking the loop; the body is cancelled if the lock is lost.

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
    async def _stay(self) -> AsyncIterator[AsyncHeldLock]:
        """Hold the lock in the cache's loop while the body runs in this one."""
        holding = _Holding(self._locks, self._terms)
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

    def __init__(self, locks: Locks, terms: Terms) -> None:
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[AsyncHeldLock] = self._loop.create_future()
        self._body: asyncio.Timeout | None = None
        self._leave: Callable[[], object]
        self._over = asyncio.wrap_future(locks.submit(self._hold(locks.part)))

    async def _hold(self, locks: AsyncLocks) -> None:
        terms, leave = self._terms, asyncio.Event()
        self._leave = partial(asyncio.get_running_loop().call_soon_threadsafe, leave.set)
        lock = locks.lock(terms.name, terms.timeout, terms.blocking_timeout, renew=terms.renew, max_hold=terms.max_hold)
        async with lock as held:
            self._loop.call_soon_threadsafe(self._enter, held)
            await leave.wait()

    def _enter(self, held: AsyncHeldLock) -> None:
        if not self._entered.done():
            self._entered.set_result(held)

    async def begin(self) -> AsyncHeldLock:
        """Return once the lock is held. Raises: what acquiring it raises. Cancelled, nothing of it is left."""
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
