"""Locks across processes: a lease that is renewed while its holder lives, a line that is served in order, a fence.

A lock in Redis is a strong hint and not a proof: a process can stand still for longer than its lease. So a holder
learns that it lost the lock (its body is cancelled), and each acquisition has a fencing number that a guarded write
checks. Who waits sends nothing meanwhile: releases and renewals are pushed.
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
from typing import Any

import msgspec

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
from cachebus.heldlock import Held
from cachebus.link import Link, now_s
from cachebus.lock import TIMEOUT, Holder, Lease, Taken, Terms, Wake, checked_name
from cachebus.lockkeeper import LockKeeper, ProcessKeeper, ServerKeeper
from cachebus.lockwaiter import Waiter

log = logging.getLogger("cachebus.locks")

PATIENCE_S = 2.0
"""How late a renewal's answer may be, or a third of the lease, whichever is shorter."""
GUARDED_TTL = "7d"
"""The guard ends with the value: it must outlast every process that may still hold an old number."""


class Locks:
    """All locks of one process. One for all its tasks; holds no connection of its own.

    `Locks(None)` is for a process without a server: its locks hold among its own tasks, and nowhere else.
    *owner* is what others see as the holder. `counts` counts: acquired, waited, refused, released, renewed, lost.
    """

    def __init__(self, link: Link | None, *, owner: str | None = None) -> None:
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}"
        self.counts: Counter[str] = Counter()
        self._process = f"{secrets.token_hex(6)}/"
        self._keeper: LockKeeper
        if link is None:
            log.warning("no Redis: locks hold among the tasks of this process and nowhere else")
            self._keeper = ProcessKeeper(self.owner, self._heard)
        else:
            self._keeper = ServerKeeper(link, self.owner, self._heard, self._wake_all)
        self._held: dict[str, dict[object, Held]] = {}
        self._lines: dict[str, dict[str, Waiter]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def lock(
        self,
        name: str,
        timeout: Duration = TIMEOUT,
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> Lock:
        """Return the lock *name*, to be taken with `async with` or `acquire()`. Costs nothing; may be shared by tasks.

        *timeout* is the lease: if this process dies or hangs, the lock is free that long after its last sign of life.
        While it lives the lock is kept, for *max_hold* at most; with `renew=False` it ends after *timeout* in any case.
        *blocking_timeout* is how long to wait for it, 0 not at all, None as long as it takes.
        Raises: ConfigurationError (a ValueError).
        """
        return Lock(self, Terms(name, timeout, blocking_timeout, renew, max_hold))

    @asynccontextmanager
    async def many(
        self,
        names: Iterable[str],
        timeout: Duration = TIMEOUT,  # noqa: ASYNC109 - the lease, not a limit to this call
        blocking_timeout: Duration | None = None,
        *,
        renew: bool = True,
        max_hold: Duration | None = None,
    ) -> AsyncIterator[dict[str, Held]]:
        """Hold several locks at once, or none. They are taken in one order, so two callers never wait for each other.

        *blocking_timeout* is for all of them together. One that is lost ends the body, as with `lock`.
        """
        every = [Terms(name, timeout, blocking_timeout, renew, max_hold) for name in sorted(set(names))]
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
            return await self._keeper.look(checked_name(name))
        except ServerError as away:
            raise _unavailable(name, away) from away

    async def guarded_set(self, name: str, value: Any, token: int, *, ttl: Duration = GUARDED_TTL) -> None:
        """Write plain data under *name*, unless a holder with a later *token* (fencing number) has written there.

        One round trip. Safe to repeat: a token equal to the last one is in order. A guard lives as long as its value.
        Raises: StaleToken, and nothing was written; LockUnavailable, and nobody knows.
        """
        if type(token) is not int or token < 1:
            raise ConfigurationError(f"token: {token!r} must be the fencing number of a lock, such as `held.token`")
        ttl_ms, encoded = milliseconds(ttl, "ttl"), msgspec.json.encode(value)
        try:
            later = await self._keeper.write(checked_name(name), encoded, token, ttl_ms)
        except ServerError as away:
            raise _unavailable(name, away) from away
        if later:
            raise StaleToken(name, f"token {token} comes after {later}; somebody else has held the lock since")

    async def guarded_get(self, name: str) -> Any:
        """Return what was last written under *name*, None if nothing was. One round trip. Raises: LockUnavailable."""
        try:
            found = await self._keeper.read(checked_name(name))
        except ServerError as away:
            raise _unavailable(name, away) from away
        return None if found is None else msgspec.json.decode(found[1])

    async def close(self) -> None:
        """Give back what is held, and hear nothing more. Idempotent."""
        for held in self._every():
            with suppress(LockError):
                await held.release()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keeper.close()

    # -- taking -----------------------------------------------------------------------------------------------------

    async def acquire(self, terms: Terms, party: object) -> Held:
        """Take a lock for *party*, the task or thread that will not wait for itself. See `Lock.acquire`."""
        before = self.held_by(terms, party)
        if before is not None and not before.lost:
            raise AlreadyHeld(terms.name, "is held by this very task; it would wait for itself")
        claim = self._process + secrets.token_hex(8)
        waiter = Waiter(terms, claim)
        line = self._lines.setdefault(terms.stored, {})
        line[claim] = waiter
        held = None
        try:
            asked_s, token = await self._stand_in_line(waiter)
            held = Held(self, terms, party, claim, Lease(terms, asked_s), token)
            self._held.setdefault(terms.stored, {})[party] = held
        finally:
            del line[claim]
            if not line:
                del self._lines[terms.stored]
            if held is None:  # whatever became of the question, nothing of it stays
                await asyncio.shield(self.start(self.give_back(terms, claim)))
        self.counts["acquired"] += 1
        held.look_again()
        return held

    async def _stand_in_line(self, waiter: Waiter) -> tuple[float, int]:
        """Return when the question was asked that the server answered with "yours", and the fencing number."""
        terms, wait_s = waiter.terms, waiter.terms.wait_s
        until_s = None if wait_s is None else now_s() + wait_s
        taken = Taken(ours=False)
        while True:
            waiter.begin()
            asked_s = now_s()
            heard = True
            try:
                taken = await self._keeper.take(
                    terms.stored, waiter.claim, terms.lease_ms, wait=wait_s != 0, place=taken.place
                )
                if taken.ours:
                    return asked_s, taken.token
                heard = wait_s == 0 or await self._keeper.listen()
            except ServerError as away:
                if not wait_s or until_s is None or not await self._back_by(until_s):
                    raise _unavailable(terms.name, away) from away
                continue
            if not heard:
                continue  # what was said between the answer and now was perhaps missed
            self.counts["waited"] += 1
            waiter.expect(taken)
            if not await waiter.woken(until_s):
                self.counts["refused"] += 1
                whose = f"held by {taken.owner}" if taken.owner else "on its way to somebody else"
                raise LockNotAcquired(terms.name, f"{whose}, and not to be had within {wait_s or 0:g} s")

    async def _back_by(self, until_s: float) -> bool:
        """Wait for the server; False where it is not back in time."""
        try:
            async with asyncio.timeout(until_s - now_s()):
                await asyncio.sleep(0.05)  # a server that answers with errors is there, and is not asked without pause
                await self._keeper.ready()
        except TimeoutError:
            return False
        return True

    # -- hearing ----------------------------------------------------------------------------------------------------

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
        """Hand on what is offered to somebody who waits no more."""
        with suppress(ServerError):
            await self._keeper.release(wake.lock, wake.claim)

    def _wake_all(self) -> None:
        """Messages may be missing: everybody looks."""
        for line in self._lines.values():
            for waiter in line.values():
                waiter.wake()
        for held in self._every():
            held.doubt()

    # -- giving back ------------------------------------------------------------------------------------------------

    async def give_back(self, terms: Terms, claim: str) -> bool | None:
        """Release; False where it was not ours any more, None where the server is away: then when it is back."""
        try:
            return await self._keeper.release(terms.stored, claim)
        except ServerError as away:
            log.debug("lock %r is given back when the server is there again: %s", terms.name, away)
            self.start(self._give_back_later(terms, claim))
            return None

    async def _give_back_later(self, terms: Terms, claim: str) -> None:
        until_s = now_s() + terms.lease_ms / 1000
        while await self._back_by(until_s):
            with suppress(ServerError):
                await self._keeper.release(terms.stored, claim)
                return

    async def renew(self, held: Held, lease_ms: int) -> None:
        """Ask for more time, and tell the holder what came of it. An outage says nothing: its time runs."""
        asked_s, patience_s = now_s(), min(PATIENCE_S, held.terms.lease_ms / 3000)
        try:
            ours = await self._keeper.renew(held.terms.stored, held.claim, lease_ms, timeout_s=patience_s)
        except ServerError as away:
            log.debug("lock %r not renewed: %s", held.terms.name, away)
            return
        if ours:
            self.counts["renewed"] += 1
            held.renewed(asked_s, lease_ms)
        else:
            held.lose("it ended, or was taken from us, on the server")

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in the background; it is waited for, or ended, by `close`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def held_by(self, terms: Terms, party: object) -> Held | None:
        """Return what *party* holds of this lock."""
        return self._held.get(terms.stored, {}).get(party)

    def forget(self, held: Held) -> None:
        """Note that an acquisition is over."""
        parties = self._held.get(held.terms.stored, {})
        if parties.get(held.party) is held:
            del parties[held.party]
            if not parties:
                del self._held[held.terms.stored]

    def _every(self) -> list[Held]:
        return [held for parties in self._held.values() for held in parties.values()]


class Lock:
    """A lock by name. Each task that enters it, or acquires it, has an acquisition of its own."""

    def __init__(self, locks: Locks, terms: Terms) -> None:
        self._locks = locks
        self._entered: dict[asyncio.Task[Any] | None, list[Held]] = {}
        self.terms = terms

    async def acquire(self) -> Held:
        """Take the lock, waiting in line for it: one round trip when it is free, two when it is not, however long.

        Raises: LockNotAcquired after `blocking_timeout`; LockUnavailable when the server is away, at once, or after
        `blocking_timeout` if there is one; AlreadyHeld. Cancelled or failed, nothing of it stays behind.
        """
        return await self._locks.acquire(self.terms, asyncio.current_task())

    async def release(self) -> None:
        """Give back what this task holds. See `Held.release`. Raises: LockError if it holds nothing."""
        held = self._locks.held_by(self.terms, asyncio.current_task())
        if held is None:
            raise LockError(self.terms.name, "is not held by this task")
        await held.release()

    async def __aenter__(self) -> Held:
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


def _unavailable(name: str, away: ServerError) -> LockUnavailable:
    return LockUnavailable(name, f"the server cannot be asked who holds it ({away})")
