"""Holding a shard: who handles its events, for how long, and how that is noticed to have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from cachebus.errors import CacheBusError, ServerError
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument, Connection
from cachebus.redis.replies import Reply
from cachebus.redis.subscriptions import Subscription

log = logging.getLogger("cachebus")

STANDBY_S = 1.0
"""How often a standby looks whether the shard is free; one command each time."""
RENEW_AT = 0.4
"""Of the lease: renewed when so much has passed since the last renewal or commit; at half, the thread steps in."""
ANSWER_S = 1.0


class ShardLost(CacheBusError):
    """Another consumer holds the shard by now, or the lease ran out. Nothing more may be written."""


class Shard:
    """One shard of the events as one consumer sees it: taken, renewed, given back. Every decision is the server's.

    While it is held, a task renews the lease, and the thread of `guarded` does when the event loop is blocked: a
    handler that computes for ten seconds keeps its shard.
    """

    def __init__(
        self,
        client: Client,
        number: int,
        *,
        shards: int = 1,
        worker: str,
        lease_ms: int,
    ) -> None:
        names, self._client = client.names, client
        self.number = number
        self.lease = names.bus("lease", str(number))
        self.state = names.bus("shard", str(number))
        self.events = names.bus("events", str(number))
        self.retries = names.bus("retries", str(number))
        self.retry_items = names.bus("retry-items", str(number))
        self.windows = names.bus("debounced", str(number))
        self.window_items = names.bus("debounced-items", str(number))
        self.marks = names.bus("marks", str(number))  # streams of two shards may call two events alike
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
        """Up to here an owner that died may have had events in hand: one at a time, each marked before it runs.
        '' where the owner before gave the shard back."""
        self.began_anew = False
        self.surplus = False
        """Whether this worker holds more than its share, and should give this shard to another."""
        self.far_ahead = False
        """Whether the position is far ahead of the server's clock: taken again, the stream begins again."""
        self.retry_at = float("inf")
        """When the next retry is due or window closes, on the event loop's clock."""
        self.woken: asyncio.Future[None]
        """Done when somebody has put work into the retries."""
        self.waiting = 0
        self._wake_channel = names.bus("retry", str(number))
        self._open: Callable[[], Awaitable[Connection]] | None = None  # threads share no connection with the loop
        self._refused_at = float("-inf")  # when the loop last failed to renew
        self._renewed_at = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether this consumer holds it, as far as it knows."""
        return bool(self.token)

    async def take(self, stop: asyncio.Future[None]) -> bool:
        """Wait until the shard is free and take it; False when *stop* came first. Raises: ServerError."""
        token = self._candidate = self._candidate or f"{self._worker}/{secrets.token_hex(8)}"
        while True:
            args = (token, self.lease_ms, self._before, self._worker)
            reply = await self._client.store.run("bus/engine/take_shard", self._keys(), args, timeout_s=ANSWER_S)
            if reply[0]:
                break
            left_s = reply[1] / 1000 if reply[1] > 0 else STANDBY_S
            await asyncio.wait([stop], timeout=min(STANDBY_S, left_s + 0.002))
            if stop.done():
                return False
        self.token, self._before, self._candidate = token, token, ""
        _, position, self.commits, careful, due_ms, anew, self.waiting = reply
        self.position, self.careful_until = position.decode(), careful.decode()
        self.began_anew, self.surplus = bool(anew), False
        self.far_ahead = False
        self.retry_due(due_ms)
        self.renewed()
        self._end_tasks()
        self.expect()
        self._open = self._client.store.opener(self.lease)
        self._renewal = asyncio.create_task(self._renew(token), name=f"cachebus shard {self.number}")
        self._listening = asyncio.create_task(self._listen(), name=f"cachebus shard {self.number} wakes")
        return True

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Renew from a thread of its own, while the block lasts, whatever is held and the loop does not get to.

        Entered before anything is held: where memory is short, starting a thread can fail, or hang for good
        (`Thread.start` waits for a thread that died before it said that it runs).
        """
        over = threading.Event()
        threading.Thread(target=self._guard, args=(over,), name=f"cachebus shard {self.number}", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def lost(self) -> ShardLost:
        """Note that the shard is not ours any more; returns the error that says so."""
        self.token = ""
        return ShardLost(f"shard {self.number} is not held any more")

    async def release(self) -> None:
        """Give the shard back, if it is still held. Never raises for an absent server: the lease ends by itself."""
        token, self.token = self.token, ""
        self._end_tasks()
        if token:
            with contextlib.suppress(ServerError):
                await self._client.store.run("bus/engine/release_shard", (self.lease, self.state, self.marks), (token,))

    async def mark(self, name: str) -> int:
        """Note that *name* is about to be run; returns how many who did that before were not heard of again.

        Raises: ShardLost, ServerError.
        """
        others: int = await self._client.store.run(
            "bus/engine/mark_event", (self.lease, self.marks), (self.token, name)
        )
        if others < 0:
            raise self.lost()
        return others

    def renewed(self) -> None:
        """Note that the lease was renewed just now (every commit does)."""
        self._renewed_at = time.monotonic()

    def retry_due(self, due_ms: int) -> None:
        """Note in how many milliseconds the next retry is due or window closes; below zero: there is none."""
        self.retry_at = asyncio.get_running_loop().time() + due_ms / 1000 if due_ms >= 0 else float("inf")

    def expect(self) -> None:
        """Wait for the next wake: what was put into the retries before is about to be looked for."""
        self.woken = asyncio.get_running_loop().create_future()

    @property
    def pardon_s(self) -> float:
        """So long an owner that lives may need to take its marks back once the server answers again.

        Its renewal is tried again after a tenth of the lease, and needs a connection and an answer, a second each.
        """
        return self.lease_ms * RENEW_AT / 4000 + 2 * ANSWER_S

    # -- inside -----------------------------------------------------------------------------------------------------

    def _end_tasks(self) -> None:
        for task in (self._renewal, self._listening):
            if task is not None:
                task.cancel()
        self._renewal = self._listening = None

    async def _listen(self) -> None:
        """Hear of work that is put into the retries. Where that cannot be heard, it is found a few seconds later."""
        subscription: Subscription | None = None
        subscribe = self._client.subscriptions.subscribe
        try:
            while subscription is None:
                try:
                    subscription = await subscribe(self._wake_channel, self._wake)
                except ServerError:
                    await asyncio.sleep(STANDBY_S)
            await asyncio.get_running_loop().create_future()
        finally:
            if subscription is not None:
                await subscription.cancel()

    def _wake(self, *_: object) -> None:
        if not self.woken.done():
            self.woken.set_result(None)

    async def _renew(self, token: str) -> None:
        pause_s = self.lease_ms * RENEW_AT / 1000
        if self._sharing:
            pause_s = min(pause_s, STANDBY_S)
        while self.token == token:
            age_s = time.monotonic() - self._renewed_at
            if age_s < pause_s:
                await asyncio.sleep(pause_s - age_s)
            else:
                try:
                    await self._renew_once(token)
                except (ServerError, MemoryError):
                    self._refused_at = time.monotonic()
                    await asyncio.sleep(pause_s / 4)

    async def _renew_once(self, token: str) -> None:
        reply = await self._client.store.run(
            "bus/engine/renew_shard", self._keys(), self._renewing(token), timeout_s=ANSWER_S
        )
        if token != self.token:
            return
        if reply[0]:
            self.renewed()
            self.retry_due(reply[1])
            self.waiting, self.surplus = reply[2], bool(reply[3])
        else:
            self.lost()

    def _keys(self) -> list[str]:
        return [self.lease, self.state, self.events, self.retries, self.marks, self.windows, *self._sharing]

    def _renewing(self, token: str) -> tuple[str, int, str, int]:
        return token, self.lease_ms, self._worker, self.number

    def _guard(self, over: threading.Event) -> None:
        """Renew what is held while the loop does not get to it. What befalls one look leaves the next to be done."""
        retry_s = self.lease_ms * RENEW_AT / 2000  # the loop itself tries again after half of that
        while not over.is_set():
            with contextlib.suppress(ServerError, OSError, RuntimeError, MemoryError):
                over.wait(self.lease_ms / 6000)
                token, now = self.token, time.monotonic()
                if not token or now - self._renewed_at < self.lease_ms / 2000 or now - self._refused_at < retry_s:
                    continue  # there is nothing to renew, or the loop does it, or tries to: the server is unavailable
                renewing = self._run_apart("bus/engine/renew_shard", self._keys(), self._renewing(token))
                if asyncio.run(renewing)[0] and token == self.token:
                    self.renewed()

    def mark_apart(self, name: str) -> None:
        """As `mark`, from a thread of its own while the loop is blocked; silent where it cannot."""
        with contextlib.suppress(ServerError, OSError, RuntimeError):
            asyncio.run(self._run_apart("bus/engine/mark_event", [self.lease, self.marks], (self.token, name)))

    async def _run_apart(self, verb: str, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script in an event loop of this thread, over a connection made for it."""
        assert self._open is not None  # noqa: S101 - set before the threads begin
        async with asyncio.timeout(ANSWER_S):
            connection = await self._open()
        try:
            return await connection.run(verb, keys, args, timeout_s=ANSWER_S)
        finally:
            await connection.close()
