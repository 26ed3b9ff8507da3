"""The thread that runs an event loop for callers that have none, and loads that run in the caller's own thread."""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from cachebus.cache.misses import Remembered, remembered
from cachebus.cache.reads.single_flight import in_this_load
from cachebus.errors import ServerTimeout, Unavailable
from cachebus.waiting import end

R = TypeVar("R")
T = TypeVar("T")


CLOSED = "the cache was closed during this call"
ENDS_S = 1.0
"""How long a caller whose load was interrupted waits until the read has ended: a pass of the loop."""
JOIN_S = 10.0
"""How long `stop` waits for the thread: longer than it takes to leave behind what does not end."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that the caller runs in, None outside of loops."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Forking:
    """Lets one thread at a time take note of a fork, which may find any lock held by a thread that it did not bring."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forked)

    def forked(self) -> None:
        """Begin the child with a lock that nobody holds."""
        self.lock = threading.Lock()


_forking = _Forking()


class Portal:
    """One thread that runs an event loop for callers that have none. Started at first use, and again after a fork."""

    def __init__(self, *, inside_loop: bool = False) -> None:
        self._inside_loop = inside_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        """None where the loop is somebody else's."""
        self._lock = threading.Lock()
        """Held while something is submitted, and while the loop is started or stopped."""
        self._pid = os.getpid()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run *coroutine* in the loop thread, in the context of the caller.

        Raises: RuntimeError when the caller runs in an event loop itself, which waiting would block.
        """
        try:
            self.check()
        except RuntimeError:
            coroutine.close()
            raise
        with self._locked():
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop or self._start())

    def submit_in(self, loop: asyncio.AbstractEventLoop | None, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run *coroutine* in *loop*, in none that was started after it. Raises: Unavailable where that has ended."""
        self.check()
        with self._locked():
            if loop is not None and loop is self._loop:
                return asyncio.run_coroutine_threadsafe(coroutine, loop)
        coroutine.close()
        raise Unavailable(CLOSED)

    def check(self) -> None:
        """Raise RuntimeError where the caller must not wait for this loop."""
        if not self._inside_loop and running_loop() is not None:
            raise RuntimeError("this would block the running event loop; await the asynchronous cache here")

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run *coroutine* in the loop thread and wait. Raises: ServerTimeout, Unavailable, or what it raises.

        What plain values remember (`cachebus.cache.misses`) comes back with the answer, into the context of the caller.
        """
        carrying = _Carrying(coroutine)
        future = self.submit(carrying)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise _no_answer(timeout_s) from None
        except CancelledError:
            raise Unavailable(CLOSED) from None
        finally:
            if carrying.remembered is not None:
                remembered.set(carrying.remembered)

    async def awaited(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* in the loop thread for a caller who runs in a loop of their own, and await it there."""
        carrying = _Carrying(coroutine)
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(carrying, self.loop()))
        finally:
            if carrying.remembered is not None:
                remembered.set(carrying.remembered)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop of this process."""
        loop = self._loop
        if loop is not None and self._pid == os.getpid():
            return loop
        with self._locked():
            return self._loop or self._start()

    @property
    def started(self) -> bool:
        """Whether this process has used it."""
        return self._loop is not None and self._pid == os.getpid()

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run everything in *loop* from now on, until `stop`: somebody else's, who runs it in a thread of their own."""
        with self._locked():
            self._loop, self._thread = loop, None

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None, timeout_s: float = JOIN_S) -> None:
        """Stop the thread, after *last*; a loop that was lent runs on. Idempotent.

        Calls under way are cancelled; those that come meanwhile wait, and start another thread.
        Raises: ServerTimeout; RuntimeError as `submit`.
        """
        if last is not None:
            self.check()
        with self._locked():
            loop, thread = self._loop, self._thread
            if loop is None:
                return
            try:
                if last is not None:
                    asyncio.run_coroutine_threadsafe(last(), loop).result(timeout_s)
            except TimeoutError:
                raise _no_answer(timeout_s) from None
            finally:
                self._loop = self._thread = None
                if thread is not None:
                    loop.call_soon_threadsafe(loop.stop)
                    thread.join(JOIN_S)

    def _locked(self) -> threading.Lock:
        if self._pid != os.getpid():
            with _forking.lock:
                if self._pid != os.getpid():
                    self._lock, self._loop, self._thread = threading.Lock(), None, None
                    self._pid = os.getpid()
        return self._lock

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="cachebus loop", daemon=True)
        self._thread.start()
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.run_until_complete(_end_all())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def _end_all() -> None:
    """Cancel what is left in this loop: whoever waits for it in another thread must not wait for ever."""
    await end(asyncio.all_tasks() - {asyncio.current_task()})


class _Carrying(Coroutine[Any, Any, T]):
    """A coroutine, and what its context remembers after its last step. Closing it closes the coroutine."""

    def __init__(self, inner: Coroutine[Any, Any, T]) -> None:
        self._inner = inner
        self.remembered: Remembered | None = None

    def send(self, value: Any) -> Any:
        """Take a step."""
        try:
            return self._inner.send(value)
        finally:
            self.remembered = remembered.get()

    def throw(self, *error: Any) -> Any:
        """Take a step into an error."""
        try:
            return self._inner.throw(*error)
        finally:
            self.remembered = remembered.get()

    def close(self) -> None:
        """End it."""
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()


class Facade(Protocol):
    """What a part or a view asks of the `Cache` of this room."""

    portal: Portal
    timeout_s: float

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something asynchronous in the loop thread and wait for it."""
        ...


class CallersLoad(Generic[R]):
    """A read whose caller waits, and meanwhile runs the load itself if this read is the one that loads.

    So the load has the caller's database session and thread-locals. The caller waits *facade.timeout_s* at most; the
    time of a load that it runs itself does not count, because a running function cannot be interrupted.
    """

    def __init__(self, facade: Facade, function: Callable[..., R]) -> None:
        self._facade = facade
        self._function = function
        self._context = contextvars.copy_context()
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[R], Callable[[], R]] | None] = queue.SimpleQueue()
        self._waiting = True

    async def load(self, *args: Any) -> R:
        """Have the caller's thread run the load; once it no longer waits (a background renewal), some thread."""
        function = in_this_load(partial(self._function, *args))
        if not self._waiting:
            return await asyncio.to_thread(self._context.run, function)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._jobs.put((future, function))
        return await future

    def run(self, read: Coroutine[Any, Any, T]) -> T:
        """Wait for *read*. Raises: ServerTimeout, Unavailable, or what the load raises."""
        result = self._facade.portal.submit(read)
        result.add_done_callback(lambda _: self._jobs.put(None))
        left_s = self._facade.timeout_s
        try:
            while True:
                since_s = time.monotonic()
                job = self._jobs.get(timeout=left_s)
                left_s = max(0.0, left_s - (time.monotonic() - since_s))
                if job is None:
                    return result.result(0)
                self._do(*job, result)
        except queue.Empty:
            result.cancel()
            raise _no_answer(self._facade.timeout_s) from None
        except CancelledError:
            raise Unavailable(CLOSED) from None
        finally:
            self._waiting = False

    def _do(self, job: asyncio.Future[R], function: Callable[[], R], result: Future[Any]) -> None:
        try:
            value = function()
        except BaseException as failed:
            _settle_there(job, None, failed)
            if not isinstance(failed, Exception):
                wait([result], ENDS_S)  # whoever calls next loads: nobody joins what has ended
                raise
        else:
            _settle_there(job, value, None)


def _settle_there(job: asyncio.Future[Any], value: Any, failed: BaseException | None) -> None:
    with suppress(RuntimeError):  # its loop was closed meanwhile: the read was cancelled
        job.get_loop().call_soon_threadsafe(_settle, job, value, failed)


def _settle(job: asyncio.Future[Any], value: Any, failed: BaseException | None) -> None:
    if job.done():
        return
    if failed is None:
        job.set_result(value)
    else:
        job.set_exception(
            failed if isinstance(failed, Exception) else RuntimeError(f"the load was ended by {failed!r}")
        )


def _no_answer(timeout_s: float) -> ServerTimeout:
    return ServerTimeout(f"no answer within {timeout_s:g} s")
