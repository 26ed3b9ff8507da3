"""Listening on channels: one connection for all of a process's subscriptions, and the knowledge of its gaps.

Pub/sub forgets. What was published while nobody listened is gone, so a subscriber learns whenever that may have
happened (`on_reconnect` before the first message of the new connection, `on_gap` once it is subscribed), and a
connection that no longer delivers is noticed by a probe of our own: TCP would not say so for minutes. A connection
whose credentials end is replaced by another while both listen: that loses nothing, so nobody is told.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from cachebus.errors import ServerError, ServerTimeout, Unavailable
from cachebus.redis.connection import Connection
from cachebus.redis.server import Server
from cachebus.waiting import end

log = logging.getLogger("cachebus")

PROBE_S = 3.0
"""How often the connection must prove that it delivers."""
DEAF_S = 2.0
"""How long it may take to; a deaf connection is noticed within PROBE_S + DEAF_S."""
CONFIRM_S = 2.0
"""How long the server may take to confirm a subscription."""
AGAIN_S = 1.0
"""Between two attempts of who waits for one."""

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


class _Handover:
    """Two connections of which one continues where the other ends.

    Once both listen, the server publishes a marker. What it sends before the marker is the old connection's to deliver,
    what it sends after it the new one's: nothing is missed, heard twice, or out of order.
    """

    def __init__(self, marker: str, deliver: Callable[[Any], None]) -> None:
        loop = asyncio.get_running_loop()
        self._marker = marker
        self._deliver = deliver
        self._expected: set[Name | None] = {(marker, False), None}
        """What is not confirmed yet; None: the marker's channel, on the old connection."""
        self._old_ended = self._new_begun = False
        self._kept: list[Any] = []
        self.listening: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()

    def begin(self, wanted: Iterable[Name]) -> list[Name]:
        """Return the names that both shall listen to."""
        names = list(wanted)
        self._expected.update(names)
        return names

    def old(self, push: Any) -> None:
        """Take what the old connection hears."""
        if self._old_ended:
            return
        if _about(push) != self._marker:
            self._deliver(push)
        elif push[0] == b"message":
            self._old_ended = True
            self._met()
        else:
            self._confirmed(None)

    def new(self, push: Any) -> None:
        """Take what the new connection hears."""
        if self.done.done():
            self._deliver(push)
        elif isinstance(push, ServerError):  # this user may not listen to one of them
            if not self.listening.done():
                self.listening.set_exception(push)
        elif push[0] in (b"subscribe", b"psubscribe"):
            self._confirmed((_text(push[1]), push[0] == b"psubscribe"))
        elif _about(push) == self._marker:
            self._new_begun = True
            self._met()
        elif self._new_begun:
            self._kept.append(push)

    def _confirmed(self, name: Name | None) -> None:
        self._expected.discard(name)
        if not self._expected and not self.listening.done():
            self.listening.set_result(None)

    def _met(self) -> None:
        if self._old_ended and self._new_begun and not self.done.done():
            self.done.set_result(None)
            for push in self._kept:
                self._deliver(push)


class Subscriptions:
    """All subscriptions of a process on one server. The connection is opened when the first one is made."""

    def __init__(self, server: Server, key: str) -> None:
        self._server = server
        self._key = key
        self._wanted: dict[Name, list[Subscription]] = {}
        self._confirmed: dict[Name, asyncio.Future[None]] = {}
        self._leaving: Counter[Name] = Counter()
        """Channels being left on this connection: until that is confirmed, confirmations are of an earlier request."""
        self._current: Connection | None = None
        self._replacing: asyncio.Future[None] | None = None
        """Done when a replacement that is under way has ended: nobody subscribes to half of one."""
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self.gaps = 0
        """Times the connection was replaced: messages may be missing."""
        self._connections = 0

    @property
    def connection(self) -> int:
        """The number of the present connection, 0 while there is none: messages of two are not one sequence."""
        return self._connections if self._current is not None else 0

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
        connection, *on_gap* when the subscriptions are confirmed again (what is looked up then misses nothing).
        Raises: Unavailable when the server does not confirm; the subscription is then not kept.
        """
        if self._replacing is not None:
            await asyncio.wait([self._replacing])
        name = (channel, pattern)
        subscription = Subscription(self, name, handler, on_gap, on_reconnect)
        self._wanted.setdefault(name, []).append(subscription)
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="cachebus subscriptions")
        confirmed = self._confirmed.get(name)
        if confirmed is None:
            confirmed = self._confirmed[name] = asyncio.get_running_loop().create_future()
            if self._current is not None:
                self._post(self._current, name, "SUBSCRIBE")
        try:
            done, _ = await asyncio.wait([confirmed], timeout=CONFIRM_S)
        except asyncio.CancelledError:
            self.drop(subscription)
            raise
        if not done:
            self.drop(subscription)
            raise Unavailable(f"the subscription to {channel!r} was not confirmed")
        return subscription

    @asynccontextmanager
    async def requests(self, channel: str, most: int) -> AsyncIterator[asyncio.Queue[bytes]]:
        """Queue what is published on *channel* while the block runs; of more than *most* the newest are dropped.

        It is entered when the server has confirmed, however long it is unavailable or refuses this user the channel.
        """
        waiting: asyncio.Queue[bytes] = asyncio.Queue(most)

        def heard(_channel: str, payload: bytes) -> None:
            with suppress(asyncio.QueueFull):
                waiting.put_nowait(payload)

        subscription: Subscription | None = None
        while subscription is None:
            try:
                subscription = await self.subscribe(channel, heard)
            except ServerError:
                await asyncio.sleep(AGAIN_S)
        try:
            yield waiting
        finally:
            await subscription.cancel()

    def drop(self, subscription: Subscription) -> None:
        """Forget a subscription; the last one of a name leaves the channel."""
        others = self._wanted.get(subscription.name, [])
        if subscription in others:
            others.remove(subscription)
        if not others and self._wanted.pop(subscription.name, None) is not None:
            self._confirmed.pop(subscription.name, None)
            if self._current is not None and not self._current.lost.done():
                self._post(self._current, subscription.name, "UNSUBSCRIBE")

    async def close(self) -> None:
        """Stop listening to everything. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await end([task])
        self._wanted.clear()
        self._confirmed.clear()

    # -- the connection ---------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        again = False
        while True:
            connection: Connection | None = None
            try:
                connection = await self._server.dedicated(self._key, self._pushed)
                await self._subscribe(connection, again=again)
                while True:
                    await self._listen(connection)
                    connection = await self._replace(connection)
            except ServerError as lost:
                log.debug("subscriptions: %s", lost)
                await asyncio.sleep(0.1)
            finally:
                self._current = None
                self._ask_anew()
                if connection is not None:
                    await connection.close()
            again = True

    async def _subscribe(self, connection: Connection, *, again: bool) -> None:
        """Ask a new connection for everything that is wanted."""
        loop = asyncio.get_running_loop()
        before = list(self._wanted.items())
        self._current, self._heard_at = connection, loop.time()
        self._connections += 1
        self._leaving.clear()
        if again:
            self.gaps += 1
            _call(subscription.on_reconnect for _, subscriptions in before for subscription in subscriptions)
        for name in self._wanted:
            self._post(connection, name, "SUBSCRIBE")
        if again:
            await asyncio.wait([asyncio.gather(*[self._confirmed[name] for name, _ in before])], timeout=CONFIRM_S)
            _call(subscription.on_gap for _, subscriptions in before for subscription in subscriptions)

    async def _listen(self, connection: Connection) -> None:
        """Return when the connection has to be replaced. Raises: Unavailable when it is lost."""
        loop = asyncio.get_running_loop()
        while not connection.lost.done():
            replace_at = connection.replace_at
            if replace_at is not None and loop.time() >= replace_at:
                return
            connection.post("PING")
            asked = loop.time()
            pause_s = PROBE_S if replace_at is None else min(PROBE_S, replace_at - asked)
            await asyncio.wait([connection.lost], timeout=pause_s)
            self._heard_at += max(0.0, loop.time() - asked - pause_s)  # this process was late, not the server
            if loop.time() - self._heard_at > PROBE_S + DEAF_S:
                connection.abort(ServerTimeout("the subscriptions' connection is deaf"))
        raise Unavailable(str(connection.lost.result()))

    async def _replace(self, old: Connection) -> Connection:
        """Return a connection that continues where *old* ends.

        Raises: ServerError where that cannot be had; *old* is given up then, and the gap is told as any other.
        """
        marker = f"{self._key}:{secrets.token_hex(8)}"
        handover = _Handover(marker, self._pushed)
        new = await self._server.dedicated(self._key, handover.new)
        names = handover.begin(self._wanted)
        self._replacing = asyncio.get_running_loop().create_future()
        try:
            old.on_push = handover.old
            for channel, pattern in names:
                new.post("PSUBSCRIBE" if pattern else "SUBSCRIBE", channel)
            for connection in (new, old):
                connection.post("SUBSCRIBE", marker)
            await _first(handover.listening, old.lost, new.lost)
            await self._server.call("PUBLISH", marker, "", key=self._key)
            await _first(handover.done, old.lost, new.lost)
        except BaseException:
            await new.close()
            raise
        finally:
            self._replacing.set_result(None)
            self._replacing = None
        new.on_push = self._pushed
        new.post("UNSUBSCRIBE", marker)
        self._current = new
        self._leaving.clear()
        for name in set(names) - self._wanted.keys():
            self._post(new, name, "UNSUBSCRIBE")
        await old.close()
        return new

    def _ask_anew(self) -> None:
        """Without a connection nothing is confirmed."""
        for name, confirmed in self._confirmed.items():
            if confirmed.done():
                self._confirmed[name] = asyncio.get_running_loop().create_future()

    def _post(self, connection: Connection, name: Name, verb: str) -> None:
        channel, pattern = name
        self._leaving[name] += verb == "UNSUBSCRIBE"
        connection.post(f"P{verb}" if pattern else verb, channel)

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


async def _first(wanted: asyncio.Future[None], *losses: asyncio.Future[Exception]) -> None:
    """Wait for *wanted*. Raises: Unavailable when a connection is lost first, or it takes too long."""
    ends: list[asyncio.Future[Any]] = [wanted, *losses]
    await asyncio.wait(ends, timeout=CONFIRM_S, return_when=asyncio.FIRST_COMPLETED)
    if not wanted.done():
        raise Unavailable("the subscriptions' connection could not be replaced while both listened")
    wanted.result()


def _about(push: Any) -> str:
    """Return the channel of a message or a confirmation."""
    return _text(push[1]) if isinstance(push, list) and isinstance(push[1], bytes) else ""


def _text(channel: bytes) -> str:
    """Return a channel's name; anybody may publish on one that is not UTF-8."""
    return channel.decode(errors="replace")


def _call(functions: Iterable[Callable[[], None] | None]) -> None:
    for function in functions:
        if function is not None:
            function()
