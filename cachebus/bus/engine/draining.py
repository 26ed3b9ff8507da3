"""The shell of every engine: run until cancelled, or until drained; and of those that sleep until there is work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.redis.subscriptions import Subscription

log = logging.getLogger("cachebus")

POLL_S = 10.0
"""How often a sleeping engine looks whether a wake was missed."""
PAUSE_S = 0.5
"""How long it waits after a fault of the server."""


class Drainable:
    """Work that runs in a task of its own and can be asked to finish in order.

    An engine implements `_work`, which returns soon after `_stop` is done; `_wake`, where it waits for something else
    than that; and `_close`, which gives back what it holds.
    """

    def __init__(self) -> None:
        self.draining = False
        """Whether it was asked to finish: it takes in nothing more."""
        self._stop: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._patient_until = 0.0  # on the event loop's clock; 0 before a fault while draining

    async def run(self) -> None:
        """Work until cancelled. Once drained there is nothing to do, and it waits to be cancelled."""
        loop = asyncio.get_running_loop()
        self._stop, ended = loop.create_future(), loop.create_future()
        self._ended = ended
        if self.draining:
            self._stop.set_result(None)
        try:
            try:
                await self._work(self._stop)
            finally:
                await self._close()
        finally:
            self._ended = None
            ended.set_result(None)
        await loop.create_future()

    async def drain(self) -> None:
        """Take in nothing more, finish what is under way; returns when that is done. Idempotent."""
        self.draining = True
        ended = self._ended
        if ended is None:
            return
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(None)
        await self._wake()
        await asyncio.wait([ended])

    async def _work(self, stop: asyncio.Future[None]) -> None:
        """Do the work; return soon after *stop* is done."""
        raise NotImplementedError

    async def _wake(self) -> None:
        """End whatever `_work` waits for."""

    async def _close(self) -> None:
        """Give back what is held. Called once after `_work`, however it ended."""

    def _gives_up(self, patience_s: float) -> bool:
        """Whether, while draining, the server has refused for *patience_s*: what it refuses is left to others then."""
        if not self.draining:
            return False
        now = asyncio.get_running_loop().time()
        self._patient_until = self._patient_until or now + patience_s
        return now >= self._patient_until


class Faults(Protocol):
    """Counters of an engine, faults of the server among them."""

    faults: int


class Sleeper(Drainable):
    """An engine that looks for work when it is woken on a channel, when some is due, and now and then anyway.

    It implements `_look`. Outages are waited out.
    """

    stats: Faults

    def __init__(self, client: Client, channel: str, what: str) -> None:
        """*what*: it looks for, in log lines."""
        super().__init__()
        self._client = client
        self._channel = channel
        self._what = what
        self._subscription: Subscription | None = None
        self._woken = asyncio.Event()

    async def _look(self) -> float:
        """Do what there is to do; return how many seconds to sleep, at most `POLL_S`. Raises: ServerError."""
        raise NotImplementedError

    async def _work(self, stop: asyncio.Future[None]) -> None:
        while not stop.done():
            try:
                if self._subscription is None:
                    await unless(stop, self._subscribe())
                    continue
                self._woken.clear()
                sleep_s = await self._look()
            except ServerError as unavailable:
                self.stats.faults += 1
                log.debug("%s: %s", self._what, unavailable)
                await asyncio.wait([stop], timeout=PAUSE_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(sleep_s, POLL_S)):
                    await self._woken.wait()

    async def _wake(self) -> None:
        self._woken.set()

    async def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.cancel()

    async def _subscribe(self) -> None:
        subscribe = self._client.subscriptions.subscribe
        self._subscription = await subscribe(self._channel, lambda *_: self._woken.set(), on_gap=self._woken.set)


def until_due(due_ms: int) -> float:
    """Return how many seconds a sleeping engine has until something is due; below zero: nothing is."""
    return POLL_S if due_ms < 0 else due_ms / 1000 + 0.001


async def unless(stop: asyncio.Future[None], work: Coroutine[Any, Any, None]) -> None:
    """Run *work* to its end, or give it up as soon as *stop* is done. Raises: what *work* raises."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
