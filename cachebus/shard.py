"""Holding a shard: who handles its events, for how long, and how that is noticed to have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable

from cachebus.errors import CacheBusError, ServerError
from cachebus.link import Link
from cachebus.server import run_script
from cachebus.wire import Argument, Reply

log = logging.getLogger("cachebus")

STANDBY_S = 1.0
"""How often a standby looks whether the shard is free; one command each time."""
RENEW_AT = 0.4
"""Of the lease: renewed when so much has passed since the last renewal or commit; at half, the thread steps in."""
HUNG_S = 60.0
"""A holder that gets nowhere for this long stops renewing: whatever it runs will not end, and others wait."""
ANSWER_S = 1.0


class ShardLost(CacheBusError):
    """Another consumer holds the shard by now, or the lease ran out. Nothing more may be written."""


class Shard:
    """One shard of the events as one consumer sees it: taken, renewed, given back. Every decision is the server's.

    While it is held, a task renews the lease, and a thread does when the event loop is blocked: a handler that
    computes for ten seconds keeps its shard.
    """

    def __init__(  # noqa: PLR0913 - which one, whose, for how long
        self,
        link: Link,
        number: int,
        *,
        shards: int = 1,
        worker: str,
        lease_ms: int,
        busy_since: Callable[[], float | None],
        hung_s: float = HUNG_S,
    ) -> None:
        names, self._link = link.names, link
        self.number = number
        self.lease = names.bus("lease", str(number))
        self.state = names.bus("shard", str(number))
        self.events = names.bus("events", str(number))
        self.retries = names.bus("retries", str(number))
        self.retry_items = names.bus("retry-items", str(number))
        self.marks = names.bus("marks")
        self.lease_ms = lease_ms
        self._worker = re.sub(r"[\s/]", "_", worker)  # a token is "worker/number"; a mark is tokens with blanks between
        every = [names.bus("lease", str(each)) for each in range(shards)]
        self._sharing = [names.bus("contenders"), *every] if shards > 1 else []
        self._before = ""  # the token of the last holding, kept so that our own lost lease is not taken for a death
        self._candidate = ""  # the token of the next holding, kept when a reply is lost: the shard may be ours already
        self.token = ""
        """Names this holding; '' while the shard is not held."""
        self.position = "0-0"
        self.commits = 0
        self.careful_until = ""
        """Up to here an owner that died may have had events in hand: one at a time, each marked before it runs."""
        self.died = False
        """Whether the owner before ended without giving the shard back."""
        self.began_anew = False
        self.surplus = False
        """Whether this worker holds more than its share, and should give this shard to another."""
        self.retry_at = float("inf")
        """When the next retry is due, on the event loop's clock."""
        self.waiting = 0
        self._busy_since = busy_since
        self._hung_s = hung_s
        self._renewed_at = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._released = threading.Event()

    @property
    def held(self) -> bool:
        """Whether this consumer holds it, as far as it knows."""
        return bool(self.token)

    async def take(self, stop: asyncio.Future[None]) -> bool:
        """Wait until the shard is free and take it; False when *stop* came first. Raises: ServerError."""
        token = self._candidate = self._candidate or f"{self._worker}/{secrets.token_hex(8)}"
        while True:
            keys = [self.lease, self.state, self.events, self.retries, self.marks, *self._sharing]
            args = (token, self.lease_ms, self._before, self._worker)
            reply = await self._link.store.run("take_shard", keys, args, timeout_s=ANSWER_S)
            if reply[0]:
                break
            left_s = reply[1] / 1000 if reply[1] > 0 else STANDBY_S
            await asyncio.wait([stop], timeout=min(STANDBY_S, left_s + 0.002))
            if stop.done():
                return False
        self.token, self._before, self._candidate = token, token, ""
        _, position, self.commits, died, careful, due_ms, anew, self.waiting = reply
        self.position, self.careful_until = position.decode(), careful.decode()
        self.died, self.began_anew, self.surplus = bool(died), bool(anew), False
        self.told_due(due_ms)
        self.renewed()
        self._end_renewal()
        self._released.set()
        self._released = threading.Event()
        self._renewal = asyncio.create_task(self._renew(token), name=f"cachebus shard {self.number}")
        guard = threading.Thread(target=self._guard, args=(token, self._released), daemon=True)
        guard.name = f"cachebus shard {self.number}"
        guard.start()
        return True

    def lost(self) -> ShardLost:
        """Note that the shard is not ours any more; returns the error that says so."""
        self.token = ""
        self._released.set()
        return ShardLost(f"shard {self.number} is not held any more")

    async def release(self) -> None:
        """Give the shard back, if it is still held. Never raises for an absent server: the lease ends by itself."""
        token, self.token = self.token, ""
        self._released.set()
        self._end_renewal()
        if token:
            with contextlib.suppress(ServerError):
                await self._link.store.run("release_shard", (self.lease, self.state, self.marks), (token,))

    async def mark(self, name: str) -> int:
        """Note that *name* is about to be run; returns how many who did that before were not heard of again.

        Raises: ShardLost, ServerError.
        """
        others: int = await self._link.store.run("mark_event", (self.lease, self.marks), (self.token, name))
        if others < 0:
            raise self.lost()
        return others

    def renewed(self) -> None:
        """Note that the lease was renewed just now (every commit does)."""
        self._renewed_at = time.monotonic()

    def told_due(self, due_ms: int) -> None:
        """Note in how many milliseconds the next retry is due; below zero: there is none."""
        self.retry_at = asyncio.get_running_loop().time() + due_ms / 1000 if due_ms >= 0 else float("inf")

    @property
    def pardon_s(self) -> float:
        """So long an owner that lives may need to take its marks back once the server answers again.

        Its renewal is tried again after a tenth of the lease, and needs a connection and an answer, a second each.
        """
        return self.lease_ms * RENEW_AT / 4000 + 2 * ANSWER_S

    # -- inside -----------------------------------------------------------------------------------------------------

    def _end_renewal(self) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()

    async def _renew(self, token: str) -> None:
        pause_s = self.lease_ms * RENEW_AT / 1000
        if self._sharing:
            pause_s = min(pause_s, STANDBY_S)
        while self.token == token:
            age_s = time.monotonic() - self._renewed_at
            if age_s < pause_s:
                await asyncio.sleep(pause_s - age_s)
            elif self._hung():
                return
            else:
                try:
                    await self._renew_once(token)
                except ServerError:
                    await asyncio.sleep(pause_s / 4)

    async def _renew_once(self, token: str) -> None:
        reply = await self._link.store.run("renew_shard", self._keys(), self._renewing(token), timeout_s=ANSWER_S)
        if token != self.token:
            return
        if reply[0]:
            self.renewed()
            self.told_due(reply[1])
            self.waiting, self.surplus = reply[2], bool(reply[3])
        else:
            self.lost()

    def _hung(self) -> bool:
        since = self._busy_since()
        return since is not None and time.monotonic() - since > self._hung_s

    def _keys(self) -> list[str]:
        return [self.lease, self.state, self.events, self.retries, self.marks, *self._sharing]

    def _renewing(self, token: str) -> tuple[str, int, str, int]:
        return token, self.lease_ms, self._worker, self.number

    def _guard(self, token: str, released: threading.Event) -> None:
        """Renew from a thread of its own, over a connection made for it, while the loop does not get to it."""
        while not released.wait(self.lease_ms / 6000):
            if time.monotonic() - self._renewed_at < self.lease_ms / 2000 or not self._link.store.up:
                continue
            if self._hung():
                log.error("shard %d: a handler does not end; the lease is left to end", self.number)
                return
            with contextlib.suppress(ServerError, OSError, RuntimeError):
                asyncio.run(self._renew_apart(token))

    async def _renew_apart(self, token: str) -> None:
        async with asyncio.timeout(ANSWER_S):
            wire = await self._link.store.dedicated(self.lease)
        try:

            async def call(*command: Argument, key: str, timeout_s: float) -> Reply:
                return await wire.call(*command, timeout_s=timeout_s)

            reply = await run_script(call, "renew_shard", self._keys(), self._renewing(token), ANSWER_S)
            if reply[0]:
                self.renewed()
        finally:
            await wire.close()
