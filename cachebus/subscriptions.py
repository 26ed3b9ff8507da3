"""Listening on channels: one connection for all of a process's subscriptions, and the knowledge of when it was deaf.

Pub/sub forgets. What was published while nobody listened is gone, so a subscriber is told (`on_gap`) whenever that may
have happened, and a connection that no longer delivers is noticed by a probe of our own: neither TCP nor the driver
would say so for minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from cachebus.errors import ServerError, ServerTimeout, Unavailable
from cachebus.server import Server
from cachebus.wire import Wire

log = logging.getLogger("cachebus")

PROBE_S = 2.0
"""How often the connection must prove that it delivers."""
DEAF_S = 2.0
"""How long it may take to; a deaf connection is noticed within PROBE_S + DEAF_S."""
CONFIRM_S = 2.0
"""How long the server may take to confirm a subscription."""

Handler = Callable[[str, bytes], None]
"""Called on the loop with (channel, payload). Must not block, must not raise."""
Name = tuple[str, bool]
"""A channel, or a pattern (True)."""


class Subscription:
    """One handler on one channel or pattern, until cancelled."""

    def __init__(self, owner: Subscriptions, name: Name, handler: Handler, on_gap: Callable[[], None] | None) -> None:
        self._owner = owner
        self.name = name
        self.handler = handler
        self.on_gap = on_gap

    async def cancel(self) -> None:
        """Stop delivering. Idempotent."""
        self._owner.drop(self)


class Subscriptions:
    """All subscriptions of a process on one server. The connection is opened when the first one is made."""

    def __init__(self, server: Server, key: str) -> None:
        self._server = server
        self._key = key
        self._wanted: dict[Name, list[Subscription]] = {}
        self._confirmed: dict[Name, asyncio.Future[None]] = {}
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self.gaps = 0
        """Times the connection was made anew: messages may be missing."""

    async def subscribe(
        self, channel: str, handler: Handler, *, pattern: bool = False, on_gap: Callable[[], None] | None = None
    ) -> Subscription:
        """Deliver what is published on *channel* from now on; returns when the server has confirmed.

        *on_gap* is called after every reconnection: messages may be missing between.
        Raises: Unavailable when the server does not confirm; the subscription is then not kept.
        """
        name = (channel, pattern)
        subscription = Subscription(self, name, handler, on_gap)
        self._wanted.setdefault(name, []).append(subscription)
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="cachebus subscriptions")
        confirmed = self._confirmed.get(name)
        if confirmed is None:
            confirmed = self._confirmed[name] = asyncio.get_running_loop().create_future()
            if self._wire is not None:
                self._post(self._wire, name, "SUBSCRIBE")
        try:
            done, _ = await asyncio.wait([confirmed], timeout=CONFIRM_S)
        except asyncio.CancelledError:
            self.drop(subscription)
            raise
        if not done:
            self.drop(subscription)
            raise Unavailable(f"the subscription to {channel!r} was not confirmed")
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Forget a subscription; the last one of a name leaves the channel."""
        others = self._wanted.get(subscription.name, [])
        if subscription in others:
            others.remove(subscription)
        if not others and self._wanted.pop(subscription.name, None) is not None:
            self._confirmed.pop(subscription.name, None)
            if self._wire is not None and not self._wire.lost.done():
                self._post(self._wire, subscription.name, "UNSUBSCRIBE")

    async def close(self) -> None:
        """Stop listening to everything. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._wanted.clear()
        self._confirmed.clear()

    # -- the connection ---------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        again = False
        while True:
            wire: Wire | None = None
            try:
                wire = await self._server.dedicated(self._key, self._pushed)
                await self._listen(wire, again=again)
            except ServerError as lost:
                log.debug("subscriptions: %s", lost)
                await asyncio.sleep(0.1)
            finally:
                self._wire = None
                if wire is not None:
                    await wire.close()
            again = True

    async def _listen(self, wire: Wire, *, again: bool) -> None:
        loop = asyncio.get_running_loop()
        before = list(self._wanted.items())
        for name, confirmed in self._confirmed.items():
            if confirmed.done():
                self._confirmed[name] = loop.create_future()
        self._wire, self._heard_at = wire, loop.time()
        for name in self._wanted:
            self._post(wire, name, "SUBSCRIBE")
        if again:
            await asyncio.wait([asyncio.gather(*[self._confirmed[name] for name, _ in before])], timeout=CONFIRM_S)
            self._tell_gap([subscription for _, subscriptions in before for subscription in subscriptions])
        while not wire.lost.done():
            wire.post("PING")
            await asyncio.wait([wire.lost], timeout=PROBE_S)
            if loop.time() - self._heard_at > PROBE_S + DEAF_S:
                wire.abort(ServerTimeout("the subscriptions' connection is deaf"))
        raise Unavailable(str(wire.lost.result()))

    def _tell_gap(self, subscriptions: list[Subscription]) -> None:
        self.gaps += 1
        for subscription in subscriptions:
            if subscription.on_gap is not None:
                subscription.on_gap()

    @staticmethod
    def _post(wire: Wire, name: Name, verb: str) -> None:
        channel, pattern = name
        wire.post(f"P{verb}" if pattern else verb, channel)

    def _pushed(self, push: Any) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        kind = push[0] if isinstance(push, list) else push
        if kind == b"message":
            self._dispatch((push[1].decode(), False), push[1].decode(), push[2])
        elif kind == b"pmessage":
            self._dispatch((push[1].decode(), True), push[2].decode(), push[3])
        elif kind in (b"subscribe", b"psubscribe"):
            confirmed = self._confirmed.get((push[1].decode(), kind == b"psubscribe"))
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)

    def _dispatch(self, name: Name, channel: str, payload: bytes) -> None:
        for subscription in tuple(self._wanted.get(name, ())):
            try:
                subscription.handler(channel, payload)
            except Exception:
                log.exception("a handler of %s failed", name[0])
