"""Listening on channels: one connection for all of a process's subscriptions, and the knowledge of when it was deaf.

Pub/sub forgets. What was published while nobody listened is gone, so a subscriber is told whenever that may have
happened (`on_reconnect` before the first message of the new connection, `on_gap` once it stands), and a connection that
no longer delivers is noticed by a probe of our own: neither TCP nor the driver would say so for minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from cachebus.errors import ServerError, ServerTimeout, Unavailable
from cachebus.server import Server
from cachebus.wire import Wire

log = logging.getLogger("cachebus")

PROBE_S = 3.0
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

    def __init__(
        self,
        owner: Subscriptions,
        name: Name,
        handler: Handler,
        on_gap: Callable[[], None] | None,
        on_reconnect: Callable[[], None] | None,
    ) -> None:
        self._owner = owner
        self.name = name
        self.handler = handler
        self.on_gap = on_gap
        self.on_reconnect = on_reconnect

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
        self._leaving: Counter[Name] = Counter()
        """Channels being left on this connection: until that is confirmed, confirmations are of an earlier request."""
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self.gaps = 0
        """Times the connection was made anew: messages may be missing."""
        self._connections = 0

    @property
    def connection(self) -> int:
        """The number of the present connection, 0 while there is none: messages of two are not one sequence."""
        return self._connections if self._wire is not None else 0

    async def subscribe(
        self,
        channel: str,
        handler: Handler,
        *,
        pattern: bool = False,
        on_gap: Callable[[], None] | None = None,
        on_reconnect: Callable[[], None] | None = None,
    ) -> Subscription:
        """Deliver what is published on *channel* from now on; returns when the server has confirmed.

        After every reconnection messages may be missing: *on_reconnect* is called before the first of the new
        connection, *on_gap* when the subscriptions stand again (what is looked up then misses nothing).
        Raises: Unavailable when the server does not confirm; the subscription is then not kept.
        """
        name = (channel, pattern)
        subscription = Subscription(self, name, handler, on_gap, on_reconnect)
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
                self._ask_anew()
                if wire is not None:
                    await wire.close()
            again = True

    async def _listen(self, wire: Wire, *, again: bool) -> None:
        loop = asyncio.get_running_loop()
        before = list(self._wanted.items())
        self._wire, self._heard_at = wire, loop.time()
        self._connections += 1
        self._leaving.clear()
        if again:
            self.gaps += 1
            _call(subscription.on_reconnect for _, subscriptions in before for subscription in subscriptions)
        for name in self._wanted:
            self._post(wire, name, "SUBSCRIBE")
        if again:
            await asyncio.wait([asyncio.gather(*[self._confirmed[name] for name, _ in before])], timeout=CONFIRM_S)
            _call(subscription.on_gap for _, subscriptions in before for subscription in subscriptions)
        while not wire.lost.done():
            wire.post("PING")
            await asyncio.wait([wire.lost], timeout=PROBE_S)
            if loop.time() - self._heard_at > PROBE_S + DEAF_S:
                wire.abort(ServerTimeout("the subscriptions' connection is deaf"))
        raise Unavailable(str(wire.lost.result()))

    def _ask_anew(self) -> None:
        """Without a connection nothing is confirmed."""
        for name, confirmed in self._confirmed.items():
            if confirmed.done():
                self._confirmed[name] = asyncio.get_running_loop().create_future()

    def _post(self, wire: Wire, name: Name, verb: str) -> None:
        channel, pattern = name
        self._leaving[name] += verb == "UNSUBSCRIBE"
        wire.post(f"P{verb}" if pattern else verb, channel)

    def _pushed(self, push: Any) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        kind = push[0] if isinstance(push, list) else push
        if kind == b"message":
            channel = _text(push[1])
            self._dispatch((channel, False), channel, push[2])
        elif kind == b"pmessage":
            self._dispatch((_text(push[1]), True), _text(push[2]), push[3])
        elif kind in (b"subscribe", b"psubscribe"):
            name = (_text(push[1]), kind == b"psubscribe")
            confirmed = self._confirmed.get(name)
            if confirmed is not None and not confirmed.done() and not self._leaving[name]:
                confirmed.set_result(None)
        elif kind in (b"unsubscribe", b"punsubscribe"):
            self._leaving[_text(push[1]), kind == b"punsubscribe"] -= 1

    def _dispatch(self, name: Name, channel: str, payload: bytes) -> None:
        for subscription in tuple(self._wanted.get(name, ())):
            try:
                subscription.handler(channel, payload)
            except Exception:
                log.exception("a handler of %s failed", name[0])


def _text(channel: bytes) -> str:
    """Return a channel's name; anybody may publish on one that is not UTF-8."""
    return channel.decode(errors="replace")


def _call(functions: Iterable[Callable[[], None] | None]) -> None:
    for function in functions:
        if function is not None:
            function()
