"""A lock that is held: its lease, its renewals, its release, and the end of the body if it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Protocol

from cachebus.clock import now_s
from cachebus.durations import Duration, milliseconds
from cachebus.errors import LockError, LockLost, LockUnavailable
from cachebus.locks.terms import Lease, Terms

log = logging.getLogger("cachebus.locks.locks")


class Releaser(Protocol):
    """What an acquisition asks of the `Locks` it came from."""

    owner: str
    counts: Counter[str]

    async def release_claim(self, terms: Terms, claim: str) -> bool | None:
        """Release; False where it was not ours any more, None where the server could not be asked."""
        ...

    async def renew(self, held: HeldLock, lease_ms: int) -> bool | None:
        """Extend the lease, and let the holder know the answer; None where the server could not be asked."""
        ...

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in the background."""
        ...

    def forget(self, held: HeldLock) -> None:
        """Note that an acquisition is over."""
        ...


class HeldLock:
    """One acquisition of a lock, until it is released or lost. Made by `Lock`."""

    def __init__(self, locks: Releaser, terms: Terms, party: object, claim: str, lease: Lease, token: int) -> None:
        self.name = terms.name
        self.token = token
        """The fencing number: greater than that of every holder before. Pass it with each write to what is guarded."""
        self.owner = locks.owner
        self.terms = terms
        self.party = party
        self.claim = claim
        self._locks = locks
        self._lease = lease
        self._lost = ""
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[Any] | None = None
        self._body: asyncio.Task[Any] | None = None
        self._cancelled_before = 0
        self._cancelled = False

    @property
    def remaining(self) -> float:
        """For how many seconds it is surely held, if no renewal succeeds. Counted from before the server was asked."""
        return 0.0 if self._over or self._lost else self._lease.left_s(now_s())

    @property
    def lost(self) -> bool:
        """Whether the lock may be somebody else's now, although it was not released."""
        return not self._over and (bool(self._lost) or self._lease.left_s(now_s()) == 0)

    @property
    def released(self) -> bool:
        """Whether it was released, lost or not."""
        return self._over

    def ensure(self) -> None:
        """Return if the lock is held. No round trip. Raises: LockLost."""
        if self.lost or self._over:
            raise LockLost(self.name, self._lost or ("was released" if self._over else "its lease ended"))

    async def extend(self, timeout: Duration) -> None:  # noqa: ASYNC109 - the lease, not a limit to this call
        """Hold the lock for *timeout* from now, at least, renewed or not, whatever `max_hold` says. One round trip.

        Never shortens what is left. Raises: LockLost if it is somebody else's, or may be; LockUnavailable if the server
        cannot be asked: then it is held for as long as before.
        """
        self.ensure()
        lease_ms = milliseconds(timeout, "timeout")
        if await self._locks.renew(self, lease_ms) is None:
            raise LockUnavailable(self.name, "it was not extended; it is held for as long as before")
        self.ensure()

    async def release(self) -> None:
        """Release the lock; the first in the queue has it next. One round trip.

        While the server is unavailable it is released once that is back, and nothing is raised if the lease still ran.
        Raises: LockLost if it was lost before; LockError if it was released before.
        """
        if self._over:
            raise LockError(self.name, "was released already")
        known_lost, in_time = self._lost, self._lease.left_s(now_s()) > 0
        self._end()
        ours = await asyncio.shield(self._locks.start(self._locks.release_claim(self.terms, self.claim)))
        if known_lost or ours is False or (ours is None and not in_time):
            if not known_lost:
                self._locks.counts["lost"] += 1
            raise LockLost(self.name, known_lost or "its lease ended before it was released")
        self._locks.counts["released"] += 1

    # -- the body of `async with` -----------------------------------------------------------------------------------

    def guard(self) -> None:
        """Cancel the current task if the lock is lost."""
        self._body = asyncio.current_task()
        self._cancelled_before = self._body.cancelling() if self._body is not None else 0
        if self._lost:
            self._cancel_body()

    async def leave(self, error: BaseException | None) -> None:
        """Release at the end of the body. Raises: LockLost, unless the body raised, or others cancelled it."""
        body, self._body = self._body, None
        by_us = self._cancelled and body is not None and body.uncancel() <= self._cancelled_before
        if self._cancelled and not isinstance(error, asyncio.CancelledError):
            await self._absorb(body)
        try:
            if not self._over:
                await self.release()
        except LockLost as lost:
            if error is None or (by_us and isinstance(error, asyncio.CancelledError)):
                raise lost from None
            error.add_note(str(lost))

    async def _absorb(self, body: asyncio.Task[Any] | None) -> None:
        """Absorb a cancellation of ours that came after the end of the body, so that it hits nothing else."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if body is not None and body.cancelling() > self._cancelled_before:
                raise

    def _cancel_body(self) -> None:
        if self._body is not None and not self._body.done() and not self._cancelled:
            self._cancelled = True
            self._body.cancel(f"lock {self.name!r} was lost: {self._lost}")

    # -- its time ---------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Do what is due now, a renewal or the end, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
        if self._over or self._lost:
            return
        now = now_s()
        if self._lease.left_s(now) == 0:
            self.lose("its lease ended")
            return
        lease_ms = self._lease.to_ask_ms(now)
        if lease_ms and (self._asking is None or self._asking.done()):
            self._asking = self._locks.start(self._locks.renew(self, lease_ms))
        self._timer = asyncio.get_running_loop().call_later(self._lease.next_s(now), self.look_again)

    def doubt(self) -> None:
        """Ask the server now: the lock may be lost."""
        self._lease.hurry(now_s())
        self.look_again()

    def renewed(self, asked_s: float, lease_ms: int) -> None:
        """Note more time."""
        if not self._over:
            self._lease.renewed(asked_s, lease_ms)
            self.look_again()

    def lose(self, why: str) -> None:
        """Note that the lock is lost, and end the body."""
        if self._over or self._lost:
            return
        self._lost = why
        self._locks.counts["lost"] += 1
        log.warning("lock %r was lost: %s", self.name, why)
        if self._timer is not None:
            self._timer.cancel()
        self._cancel_body()

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._locks.forget(self)
