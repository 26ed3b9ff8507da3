"""The same cache for code without an event loop: Flask, Django, Celery, `def` endpoints.

One implementation: a hit in memory is answered in the caller's thread; everything else crosses to one thread that runs
the loop. Loads of plain functions run in the caller's thread, where its database session and thread-locals are.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Generic, ParamSpec, TypeVar

from cachebus.cache import Cache
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ServerTimeout
from cachebus.ledger import Clock
from cachebus.stats import CacheStats
from cachebus.view import View

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

DEFAULT_TIMEOUT = "30s"
"""How long a call may take altogether, a load included."""


class _Starting:
    """Lets one thread at a time start a loop. A fork may find the lock held by a thread that it did not bring along."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forked)

    def forked(self) -> None:
        """Begin the child with a lock that nobody holds."""
        self.lock = threading.Lock()


_starting = _Starting()


class Portal:
    """One thread that runs an event loop for callers that have none. Begins when first used, anew after a fork."""

    def __init__(self, *, inside_loop: bool = False) -> None:
        self._inside_loop = inside_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run *coroutine* in the loop thread.

        Raises: RuntimeError when the caller runs in an event loop itself, which waiting would block.
        """
        if not self._inside_loop and _in_a_loop():
            coroutine.close()
            raise RuntimeError("this would block the running event loop; await the asynchronous cache here")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop())

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run *coroutine* in the loop thread and wait. Raises: ServerTimeout, or what it raises."""
        future = self.submit(coroutine)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise ServerTimeout(f"no answer within {timeout_s:g} s") from None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop of this process."""
        loop = self._loop
        if loop is not None and self._pid == os.getpid():
            return loop
        with _starting.lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._run, args=(self._loop,), name="cachebus loop", daemon=True).start()
            return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        loop.close()

    def stop(self) -> None:
        """Stop the thread. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None and self._pid == os.getpid():
            loop.call_soon_threadsafe(loop.stop)


class SyncCache:
    """A `Cache` for callers without a loop. Thread-safe; give each one process-wide cache its own facade."""

    def __init__(
        self, cache: Cache | None = None, *, timeout: Duration = DEFAULT_TIMEOUT, portal: Portal | None = None
    ) -> None:
        self.cache = cache or Cache.from_env()
        self.portal = portal or Portal()
        self.timeout_s = milliseconds(timeout, "timeout") / 1000

    def view(self, template: str, **options: Any) -> Callable[[Callable[P, R]], SyncView[P, R]]:
        """Cache a plain function's results; the options are those of `Cache.view`."""

        def decorate(function: Callable[P, R]) -> SyncView[P, R]:
            return SyncView(self, self.cache.view(template, **options)(function), function)  # type: ignore[arg-type] # a View also takes plain functions

        return decorate

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under *key*, or *default*. See `Cache.get`."""
        return self.run(self.cache.get(key, default))

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values there are, by key. See `Cache.get_many`."""
        return self.run(self.cache.get_many(keys))

    def set(
        self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = (), born: int | None = None
    ) -> None:
        """Store plain data: an authoritative write, or a fill with `born=`. See `Cache.set`."""
        self.run(self.cache.set(key, value, ttl, tags=tags, born=born))

    def delete(self, key: str) -> Clock:
        """Make *key* unreadable everywhere. See `Cache.delete`."""
        return self.run(self.cache.delete(key))

    def clear(self) -> Clock:
        """Make every entry unreadable everywhere. See `Cache.clear`."""
        return self.run(self.cache.clear())

    def invalidate(
        self,
        *,
        keys: Iterable[str] = (),
        tags: Iterable[str] = (),
        prefix: str | None = None,
        pattern: str | None = None,
    ) -> Clock:
        """Make everything under these scopes unreadable everywhere. See `Cache.invalidate`."""
        return self.run(self.cache.invalidate(keys=keys, tags=tags, prefix=prefix, pattern=pattern))

    def stats(self) -> CacheStats:
        """Return what this process has counted."""
        return self.cache.stats()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run anything asynchronous of this library in the loop thread and wait for it."""
        return self.portal.call(coroutine, self.timeout_s)

    def close(self) -> None:
        """Close the connections and stop the thread. Idempotent."""
        self.run(self.cache.close())
        self.portal.stop()


class SyncView(Generic[P, R]):
    """A cached plain function. Call it like the function."""

    def __init__(self, facade: SyncCache, view: View[P, R], function: Callable[P, R]) -> None:
        self.view = view
        self._facade = facade
        self._function = function
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value: from memory in this thread, otherwise through the loop thread; loads run in this thread."""
        held = self.view.held(*args) if not kwargs else None
        if held is not None:
            return self.view.take(held)
        errand: _Errand[R] = _Errand(lambda: self._function(*args, **kwargs), self._facade)
        return errand.run(self.view.read_with(errand.load, args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Invalidate and load now; returns the new value."""
        clock = self.invalidate(*args, **kwargs)
        errand: _Errand[R] = _Errand(lambda: self._function(*args, **kwargs), self._facade)
        return errand.run(self.view.read_with(errand.load, args, {**kwargs, "fresh_after": clock}))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Clock:
        """Make this entry unreadable everywhere."""
        return self._facade.run(self.view.invalidate(*args, **kwargs))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the logical key of this call."""
        return self.view.key(*args, **kwargs)


class _Errand(Generic[R]):
    """A read whose caller waits, and meanwhile runs the load itself if it falls to it."""

    def __init__(self, function: Callable[[], R], facade: SyncCache) -> None:
        self._function = function
        self._facade = facade
        self._context = contextvars.copy_context()
        self._jobs: queue.SimpleQueue[asyncio.Future[R] | None] = queue.SimpleQueue()
        self._waiting = True

    async def load(self) -> R:
        """Have the caller's thread run the load; where nobody waits (a renewal in the background), some thread."""
        if not self._waiting:
            return await asyncio.to_thread(self._context.run, self._function)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._jobs.put(future)
        return await future

    def run(self, read: Coroutine[Any, Any, R]) -> R:
        """Wait for *read*. Raises: ServerTimeout, or what the load raises."""
        result = self._facade.portal.submit(read)
        result.add_done_callback(lambda _: self._jobs.put(None))
        try:
            while (job := self._jobs.get(timeout=self._facade.timeout_s)) is not None:
                self._do(job)
            return result.result(0)
        except queue.Empty:
            result.cancel()
            raise ServerTimeout(f"no answer within {self._facade.timeout_s:g} s") from None
        finally:
            self._waiting = False

    def _do(self, job: asyncio.Future[R]) -> None:
        loop = job.get_loop()
        try:
            value = self._function()
        except BaseException as failed:
            loop.call_soon_threadsafe(_settle, job, None, failed)
            if not isinstance(failed, Exception):
                raise
        else:
            loop.call_soon_threadsafe(_settle, job, value, None)


def _settle(job: asyncio.Future[Any], value: Any, failed: BaseException | None) -> None:
    if job.done():
        return
    if failed is None:
        job.set_result(value)
    else:
        job.set_exception(
            failed if isinstance(failed, Exception) else RuntimeError(f"the load was ended by {failed!r}")
        )


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
