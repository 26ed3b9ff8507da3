"""Locks for code without an event loop: Flask, Django, Celery, scripts. Renewed by the loop's thread meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import NoReturn

from cachebus.clock import now_s
from cachebus.durations import Duration
from cachebus.errors import LockError, LockLost
from cachebus.locks.held import HeldLock as AsyncHeldLock
from cachebus.locks.locks import Locks as AsyncLocks
from cachebus.locks.terms import TIMEOUT, Terms, in_order
from cachebus.sync.forwarders import LocksForwarders
from cachebus.sync.part import SyncCache, asynchronous


class Locks(LocksForwarders):
    """`cachebus.Locks` for callers without a loop, over a `Cache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache, *, owner: str | None = None) -> None:
        super().__init__(cache, AsyncLocks(asynchronous(cache, "Locks"), owner=owner))

    def lock(
        self,
        name: str,
        timeout: Duration = TIMEOUT,
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> Lock:
        """Return the lock *name*, to be entered with `with` or acquired with `acquire()`. See `Locks.lock`."""
        return Lock(self, Terms(name, timeout, blocking_timeout, renew, max_hold))

    @contextmanager
    def many(
        self,
        names: str | Iterable[str],
        timeout: Duration = TIMEOUT,
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> Iterator[dict[str, HeldLock]]:
        """Hold several locks at once, or none. See `Locks.many`."""
        every = [Terms(name, timeout, blocking_timeout, renew, max_hold) for name in in_order(names)]
        began_s, held = now_s(), {}
        with ExitStack() as stack:
            for terms in every:
                left = None if terms.wait_s is None else round(max(0.0, began_s + terms.wait_s - now_s()), 3)
                lock = self.lock(terms.name, timeout, left, renew=renew, max_hold=max_hold)
                held[terms.name] = stack.enter_context(lock)
            yield held


class Lock:
    """A lock by name. Each thread that enters it, or acquires it, has an acquisition of its own."""

    def __init__(self, locks: Locks, terms: Terms) -> None:
        self._locks = locks
        self._entered = threading.local()
        self.terms = terms

    def acquire(self) -> HeldLock:
        """Acquire the lock, queueing for it. Raises: as `Lock.acquire`; AlreadyHeld if this thread holds it."""
        party = threading.get_ident()
        return HeldLock(self._locks, self._locks.wait(self._locks.part.acquire(self.terms, party)))

    def release(self) -> None:
        """Release what this thread holds. Raises: LockError if it holds nothing; LockLost."""
        held = self._locks.part.held_by(self.terms, threading.get_ident())
        if held is None:
            raise LockError(self.terms.name, "is not held by this thread")
        self._locks.wait(held.release())

    def __enter__(self) -> HeldLock:
        held = self.acquire()
        entered = self._entered.__dict__.setdefault("held", [])
        entered.append(held)
        return held

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        held: HeldLock = self._entered.held.pop()
        try:
            if not held.released:
                held.release()
        except LockLost as lost:
            if error is None:
                raise
            error.add_note(str(lost))

    async def __aenter__(self) -> NoReturn:
        raise TypeError(f"lock {self.terms.name!r}: write `with`; asynchronous code uses cachebus.Locks")

    async def __aexit__(self, *_: object) -> None:
        """Exist, so that `async with` reaches `__aenter__` and its message."""


class HeldLock:
    """One acquisition of a lock by a thread. A body in a thread cannot be stopped: look at `lost`, or call `ensure`."""

    def __init__(self, locks: Locks, held: AsyncHeldLock) -> None:
        self._locks = locks
        self._held = held
        self._pid = os.getpid()
        self.name = held.name
        self.token = held.token
        """The fencing number."""
        self.owner = held.owner

    @property
    def remaining(self) -> float:
        """For how many seconds it is surely held. See `HeldLock.remaining`."""
        return self._held.remaining

    @property
    def lost(self) -> bool:
        """Whether the lock may be somebody else's now. No round trip."""
        return self._held.lost

    @property
    def released(self) -> bool:
        """Whether it was released."""
        return self._held.released

    def ensure(self) -> None:
        """Return if the lock is held. No round trip. Raises: LockLost."""
        self._held.ensure()

    def extend(self, timeout: Duration) -> None:
        """Hold the lock for *timeout* from now, at least. See `HeldLock.extend`."""
        self._locks.wait(self._held.extend(timeout))

    def release(self) -> None:
        """Release the lock. Raises: LockLost if it was lost; LockError if released, or acquired before a fork."""
        if self._pid != os.getpid():
            raise LockError(self.name, "was acquired by the process that this one was forked from")
        self._locks.wait(self._held.release())
