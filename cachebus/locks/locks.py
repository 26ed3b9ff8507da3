"""Locks across processes: a renewed lease, a queue that is served in order, a fencing token.

A lock in Redis is a strong hint and not a proof: a process can be paused for longer than its lease. So a holder
learns that it lost the lock (its body is cancelled), and each acquisition has a fencing number that a guarded write
checks. A waiter sends nothing while it waits: releases and renewals are pushed to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, NoReturn

import msgspec

from cachebus.clock import now_s
from cachebus.durations import Duration, milliseconds
from cachebus.errors import (
    AlreadyHeld,
    ConfigurationError,
    LockError,
    LockNotAcquired,
    LockUnavailable,
    ServerError,
    StaleToken,
)
from cachebus.locks.backend import LockBackend
from cachebus.locks.held import HeldLock
from cachebus.locks.local_backend import LocalLocks, LockLines
from cachebus.locks.server_backend import ServerLocks
from cachebus.locks.terms import TIMEOUT, Attempt, Holder, Lease, Terms, Wake, checked_name, in_order
from cachebus.locks.waiting import Waiter
from cachebus.redis.client import Client, Connector, InProcess
from cachebus.redis.part import Part
from cachebus.waiting import end

log = logging.getLogger("cachebus.locks.locks")

PATIENCE_S = 2.0
"""How late a renewal's answer may be, or a third of the lease, whichever is shorter."""
GUARDED_TTL = "7d"
"""The guard ends with the value: it must outlast every process that may still hold an old number."""


class Locks:
    """All locks of one process: one object for all its tasks, over a `Cache` or a `Client`, created at import time too.

    Without a server (`Cache.memory()`, `REDIS_ENABLED=false`) its locks exclude the tasks of this process, and nobody
    else. *owner* is what others see as the holder, host and process id by default. `counts` counts: acquired, waited,
    refused, released, renewed, lost.
    """

    def __init__(self, connector: Connector, *, owner: str | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._owner = owner
        self._part: Part[LockBackend] = Part(connector, self._over, self._alone)
        self._begin()

    def _begin(self) -> None:
        """Begin without any lock: what another event loop, or the parent of this process, holds is not ours."""
        self.owner = self._owner or f"{socket.gethostname()}:{os.getpid()}"
        self._process = f"{secrets.token_hex(6)}/"
        self._held: dict[str, dict[object, HeldLock]] = {}
        self._lines: dict[str, dict[str, Waiter]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def _over(self, client: Client) -> LockBackend:
        self._begin()
        return ServerLocks(client, self.owner, self._heard, self._wake_all)

    def _alone(self, in_process: InProcess) -> LockBackend:
        self._begin()
        return LocalLocks(in_process.of(LockLines), self.owner, self._heard)

    def lock(
        self,
        name: str,
        timeout: Duration = TIMEOUT,
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> Lock:
        """Return the lock *name*, to be entered with `async with` or acquired with `acquire()`.

        No round trip. Tasks may share it.

        *timeout* is the lease: if this process dies or hangs, the lock is free that long after its last sign of life.
        While it lives the lock is kept, for *max_hold* at most; with `renew=False` it ends after *timeout* in any case.
        *blocking_timeout* is how long to wait for it, 0 not at all, None as long as it takes.
        Raises: ConfigurationError (a ValueError).
        """
        return Lock(self, Terms(name, timeout, blocking_timeout, renew, max_hold))

    @asynccontextmanager
    async def many(
        self,
        names: str | Iterable[str],
        timeout: Duration = TIMEOUT,  # noqa: ASYNC109 - the lease, not a limit to this call
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> AsyncIterator[dict[str, HeldLock]]:
        """Hold several locks at once, or none. They are acquired in one order, so two callers never deadlock.

        *blocking_timeout* is for all of them together. One that is lost ends the body, as with `lock`.
        """
        every = [Terms(name, timeout, blocking_timeout, renew, max_hold) for name in in_order(names)]
        began_s, held = now_s(), {}
        async with AsyncExitStack() as stack:
            for terms in every:
                left = None if terms.wait_s is None else round(max(0.0, began_s + terms.wait_s - now_s()), 3)
                lock = self.lock(terms.name, timeout, left, renew=renew, max_hold=max_hold)
                held[terms.name] = await stack.enter_async_context(lock)
            yield held

    async def holder(self, name: str) -> Holder | None:
        """Return who holds a lock, None while it is free. One round trip; writes nothing.

        Raises: LockUnavailable.
        """
        try:
            return await (await self._part.get()).look(checked_name(name))
        except ServerError as reason:
            raise _unavailable(name, reason) from reason

    async def unlock(self, name: str, token: int) -> bool:
        """Take a lock away from the holder with this fencing number, for operators. One round trip.

        The first in line has it next. The holder learns of it at once, or with its next renewal, and its body is
        cancelled; until then both may be at work, and only the fencing number tells them apart.
        *token* is that of `holder(name)`, so that a lock somebody else has acquired meanwhile is left alone.
        Returns: whether it was taken away. Raises: LockUnavailable.
        """
        try:
            return await (await self._part.get()).unlock(checked_name(name), token)
        except ServerError as reason:
            raise _unavailable(name, reason) from reason

    async def guarded_set(self, name: str, value: Any, token: int, *, ttl: Duration = GUARDED_TTL) -> None:
        """Write plain data under *name*, unless a holder with a later *token* (fencing number) has written there.

        One round trip. Safe to repeat: a token equal to the last one is in order. A guard lives as long as its value.
        Raises: StaleToken, and nothing was written; LockUnavailable, and nobody knows.
        """
        if type(token) is not int or token < 1:
            raise ConfigurationError(f"token: {token!r} must be the fencing number of a lock, such as `held.token`")
        ttl_ms = milliseconds(ttl, "ttl")
        try:
            encoded = msgspec.json.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as unfit:
            raise ConfigurationError(f"value: it cannot be written as JSON ({unfit}); give plain data") from unfit
        try:
            later = await (await self._part.get()).write(checked_name(name), encoded, token, ttl_ms)
        except ServerError as reason:
            raise _unavailable(name, reason) from reason
        if later:
            raise StaleToken(name, f"token {token} comes after {later}; somebody else has held the lock since")

    async def guarded_get(self, name: str) -> Any:
        """Return what was last written under *name*, None if nothing was. One round trip. Raises: LockUnavailable."""
        try:
            found = await (await self._part.get()).read(checked_name(name))
        except ServerError as reason:
            raise _unavailable(name, reason) from reason
        return None if found is None else msgspec.json.decode(found[1])

    async def close(self) -> None:
        """Release what is held, and stop listening. Idempotent."""
        for held in self._every():
            with suppress(LockError):
                await held.release()
        await end(self._tasks)
        if self._part.made is not None:
            await self._part.made.close()

    # -- acquiring -----------------------------------------------------------------------------------------------

    async def acquire(self, terms: Terms, party: object) -> HeldLock:
        """Acquire a lock for *party*, the task or thread that must not wait for itself. See `Lock.acquire`."""
        await self._part.get()
        before = self.held_by(terms, party)
        if before is not None and not before.lost:
            raise AlreadyHeld(terms.name, "is held by this very task; it would wait for itself")
        claim = self._process + secrets.token_hex(8)
        waiter = Waiter(terms, claim)
        line = self._lines.setdefault(terms.stored, {})
        line[claim] = waiter
        held = None
        try:
            asked_s, token = await self._queue(waiter)
            held = HeldLock(self, terms, party, claim, Lease(terms, asked_s), token)
            self._held.setdefault(terms.stored, {})[party] = held
        finally:
            del line[claim]
            if not line:
                del self._lines[terms.stored]
            if held is None:  # whatever the server has of it is removed
                await asyncio.shield(self.start(self.release_claim(terms, claim)))
        self.counts["acquired"] += 1
        held.look_again()
        return held

    async def _queue(self, waiter: Waiter) -> tuple[float, int]:
        """Wait for the lock; return when the attempt that succeeded was sent, and the fencing number."""
        backend, terms, wait_s = await self._part.get(), waiter.terms, waiter.terms.wait_s
        until_s = None if wait_s is None else now_s() + wait_s
        attempt = Attempt(ours=False)
        while True:
            waiter.begin()
            asked_s = now_s()
            heard = True
            try:
                attempt = await backend.take(
                    terms.stored, waiter.claim, terms.lease_ms, wait=wait_s != 0, place=attempt.place
                )
                if attempt.ours:
                    return asked_s, attempt.token
                heard = wait_s == 0 or await backend.listen()
            except ServerError as reason:
                if not wait_s or until_s is None or not await self._back_by(until_s):
                    raise _unavailable(terms.name, reason) from reason
                continue
            if not heard:
                continue  # a release since the answer was perhaps missed
            self.counts["waited"] += 1
            waiter.expect(attempt)
            if not await waiter.woken(until_s):
                self.counts["refused"] += 1
                whose = f"held by {attempt.owner}" if attempt.owner else "offered to another waiter"
                raise LockNotAcquired(terms.name, f"{whose}; not acquired within {wait_s or 0:g} s")

    async def _back_by(self, until_s: float) -> bool:
        """Wait for the server; False where it is not back in time."""
        try:
            async with asyncio.timeout(until_s - now_s()):
                await asyncio.sleep(0.05)  # a server that answers with errors is there, and is not asked without pause
                await (await self._part.get()).ready()
        except TimeoutError:
            return False
        return True

    # -- wakes ------------------------------------------------------------------------------------------------------

    def _heard(self, wake: Wake) -> None:
        line = self._lines.get(wake.lock, {})
        for waiter in tuple(line.values()):
            waiter.hear(wake)
        if wake.kind == "offer" and wake.claim.startswith(self._process) and wake.claim not in line:
            self.start(self._decline(wake))
        for held in tuple(self._held.get(wake.lock, {}).values()):
            if held.claim != wake.claim:
                held.doubt()

    async def _decline(self, wake: Wake) -> None:
        """Release what is offered to a claim that no longer waits."""
        with suppress(ServerError):
            await (await self._part.get()).release(wake.lock, wake.claim)

    def _wake_all(self) -> None:
        """Messages may be missing: every waiter and every holder asks again."""
        for line in self._lines.values():
            for waiter in line.values():
                waiter.wake()
        for held in self._every():
            held.doubt()

    # -- releasing --------------------------------------------------------------------------------------------------

    async def release_claim(self, terms: Terms, claim: str) -> bool | None:
        """Release; False where it was not ours any more, None while the server is unavailable: then once it is back."""
        try:
            return await (await self._part.get()).release(terms.stored, claim)
        except ServerError as reason:
            log.debug("lock %r: released once the server is available again: %s", terms.name, reason)
            self.start(self._release_later(terms, claim))
            return None

    async def _release_later(self, terms: Terms, claim: str) -> None:
        until_s = now_s() + terms.lease_ms / 1000
        while await self._back_by(until_s):
            with suppress(ServerError):
                await (await self._part.get()).release(terms.stored, claim)
                return

    async def renew(self, held: HeldLock, lease_ms: int) -> bool | None:
        """Extend the lease, and let the holder know the answer: whether it is still ours. During an outage, None."""
        asked_s, patience_s = now_s(), min(PATIENCE_S, held.terms.lease_ms / 3000)
        try:
            ours = await (await self._part.get()).renew(held.terms.stored, held.claim, lease_ms, timeout_s=patience_s)
        except ServerError as reason:
            log.debug("lock %r not renewed: %s", held.terms.name, reason)
            return None
        if ours:
            self.counts["renewed"] += 1
            held.renewed(asked_s, lease_ms)
        else:
            held.lose("the server no longer has it as ours")
        return ours

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in the background; it is waited for, or ended, by `close`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def held_by(self, terms: Terms, party: object) -> HeldLock | None:
        """Return what *party* holds of this lock."""
        return self._held.get(terms.stored, {}).get(party)

    def forget(self, held: HeldLock) -> None:
        """Note that an acquisition is over."""
        parties = self._held.get(held.terms.stored, {})
        if parties.get(held.party) is held:
            del parties[held.party]
            if not parties:
                del self._held[held.terms.stored]

    def _every(self) -> list[HeldLock]:
        return [held for parties in self._held.values() for held in parties.values()]


class Lock:
    """A lock by name. Each task that enters it, or acquires it, has an acquisition of its own."""

    def __init__(self, locks: Locks, terms: Terms) -> None:
        self._locks = locks
        self._entered: dict[asyncio.Task[Any] | None, list[HeldLock]] = {}
        self.terms = terms

    async def acquire(self) -> HeldLock:
        """Acquire the lock, queueing for it: one round trip when it is free, two when it is not, however long the wait.

        Raises: LockNotAcquired after `blocking_timeout`; LockUnavailable while the server is unavailable, at once, or
        after `blocking_timeout` if there is one; AlreadyHeld. After a failure or cancellation nothing of it is left.
        """
        return await self._locks.acquire(self.terms, asyncio.current_task())

    async def release(self) -> None:
        """Release what this task holds. See `HeldLock.release`. Raises: LockError if it holds nothing."""
        held = self._locks.held_by(self.terms, asyncio.current_task())
        if held is None:
            raise LockError(self.terms.name, "is not held by this task")
        await held.release()

    def __enter__(self) -> NoReturn:
        raise TypeError(
            f"lock {self.terms.name!r}: write `async with`; code without an event loop uses cachebus.sync.Locks"
        )

    def __exit__(self, *_: object) -> None:
        """Exist, so that `with` reaches `__enter__` and its message."""

    async def __aenter__(self) -> HeldLock:
        held = await self.acquire()
        self._entered.setdefault(asyncio.current_task(), []).append(held)
        held.guard()
        return held

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        held = self._entered[task].pop()
        if not self._entered[task]:
            del self._entered[task]
        await held.leave(error)


def _unavailable(name: str, reason: ServerError) -> LockUnavailable:
    return LockUnavailable(name, f"the server cannot be asked who holds it ({reason})")
