"""Locks for code without an event loop: Flask, Django, Celery, scripts. Renewed by the loop's thread meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from cachebus.durations import Duration
from cachebus.errors import LockError, LockLost
from cachebus.heldlock import Held
from cachebus.link import now_s
from cachebus.lock import TIMEOUT, Holder, Terms
from cachebus.locks import GUARDED_TTL, Locks
from cachebus.sync import SyncCache
from cachebus.syncpart import SyncPart


class SyncLocks:
    """`Locks` for callers without a loop, over the connections of a `SyncCache`. Thread-safe; works after a fork."""

    def __init__(self, cache: SyncCache, *, owner: str | None = None) -> None:
        self.part = SyncPart(cache, lambda link: Locks(link, owner=owner))

    def lock(
        self,
        name: str,
        timeout: Duration = TIMEOUT,
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> SyncLock:
        """Return the lock *name*, to be taken with `with` or `acquire()`. See `Locks.lock`."""
        return SyncLock(self, Terms(name, timeout, blocking_timeout, renew, max_hold))

    @contextmanager
    def many(
        self,
        names: Iterable[str],
        timeout: Duration = TIMEOUT,
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> Iterator[dict[str, SyncHeld]]:
        """Hold several locks at once, or none. See `Locks.many`."""
        every = [Terms(name, timeout, blocking_timeout, renew, max_hold) for name in sorted(set(names))]
        began_s, held = now_s(), {}
        with ExitStack() as stack:
            for terms in every:
                left = None if terms.wait_s is None else round(max(0.0, began_s + terms.wait_s - now_s()), 3)
                lock = self.lock(terms.name, timeout, left, renew=renew, max_hold=max_hold)
                held[terms.name] = stack.enter_context(lock)
            yield held

    def holder(self, name: str) -> Holder | None:
        """Return who holds a lock. See `Locks.holder`."""
        return self.part.run(lambda locks: locks.holder(name))

    def guarded_set(self, name: str, value: Any, token: int, *, ttl: Duration = GUARDED_TTL) -> None:
        """Write plain data unless a later holder has. See `Locks.guarded_set`."""
        self.part.run(lambda locks: locks.guarded_set(name, value, token, ttl=ttl))

    def guarded_get(self, name: str) -> Any:
        """Return what was last written under *name*. See `Locks.guarded_get`."""
        return self.part.run(lambda locks: locks.guarded_get(name))

    def close(self) -> None:
        """Give back what is held. Idempotent. The cache stays open."""
        if self.part.made is not None:
            self.part.run(lambda locks: locks.close())


class SyncLock:
    """A lock by name. Each thread that enters it, or acquires it, has an acquisition of its own."""

    def __init__(self, locks: SyncLocks, terms: Terms) -> None:
        self._locks = locks
        self._entered = threading.local()
        self.terms = terms

    def acquire(self) -> SyncHeld:
        """Take the lock, waiting in line for it. Raises: as `Lock.acquire`; AlreadyHeld if this thread holds it."""
        party = threading.get_ident()
        return SyncHeld(self._locks, self._locks.part.wait(lambda locks: locks.acquire(self.terms, party)))

    def __enter__(self) -> SyncHeld:
        held = self.acquire()
        entered = self._entered.__dict__.setdefault("held", [])
        entered.append(held)
        return held

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        held: SyncHeld = self._entered.held.pop()
        try:
            if not held.released:
                held.release()
        except LockLost as lost:
            if error is None:
                raise
            error.add_note(str(lost))


class SyncHeld:
    """One acquisition of a lock by a thread. A body in a thread cannot be stopped: look at `lost`, or call `ensure`."""

    def __init__(self, locks: SyncLocks, held: Held) -> None:
        self._locks = locks
        self._held = held
        self._pid = os.getpid()
        self.name = held.name
        self.token = held.token
        """The fencing number."""
        self.owner = held.owner

    @property
    def remaining(self) -> float:
        """For how many seconds it is surely held. See `Held.remaining`."""
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

    def release(self) -> None:
        """Give the lock back. Raises: LockLost if it was lost; LockError if it was released, or taken before a fork."""
        if self._pid != os.getpid():
            raise LockError(self.name, "was taken by the process that this one was forked from")
        self._locks.part.wait(lambda _: self._held.release())
