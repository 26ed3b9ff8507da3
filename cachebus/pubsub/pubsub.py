"""Pub/sub: messages to whoever listens at the moment. What must not be lost is an event (`cachebus.bus.publisher`).

Pub/sub forgets, so a subscriber learns where something may be missing: a `Gap` is in its sequence, before the first
message after it. A slow subscriber delays nobody else: its queue is bounded.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec

from cachebus.errors import CacheBusError, ConfigurationError
from cachebus.pubsub.channels import Channels, LocalChannels, ServerChannels
from cachebus.redis.client import Connector
from cachebus.redis.part import Part
from cachebus.templates import NO_UTF8, has_surrogate
from cachebus.waiting import end

log = logging.getLogger("cachebus")

LIMIT = 1000
"""Messages that wait for a subscriber."""

Overflow = Literal["drop_oldest", "disconnect"]


class Message(NamedTuple):
    """What was published. `data` is it decoded: JSON where it is that, otherwise text, otherwise the bytes."""

    channel: str
    payload: bytes

    @property
    def data(self) -> Any:
        """The message as it was given to `publish`."""
        try:
            return msgspec.json.decode(self.payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            return self.payload.decode()
        except UnicodeDecodeError:
            return self.payload


class Gap(NamedTuple):
    """Messages may be missing here: the connection was lost meanwhile, or `dropped` ones came too fast."""

    reason: Literal["reconnected", "overflow"]
    dropped: int = 0


class SubscriberTooSlow(CacheBusError):
    """More messages waited than `limit`, and the subscriber asked to be disconnected then."""


Handler = Callable[[Message], Awaitable[object] | object]
OnGap = Callable[[Gap], object]


class PubSub:
    """Publish and subscribe, over a `Cache` or a `Client`; created at import time too. One for all tasks of a process.

    All subscriptions share one connection, opened for the first one. Without a server (`Cache.memory()`,
    `REDIS_ENABLED=false`) messages reach the subscribers of this process.
    """

    def __init__(self, connector: Connector) -> None:
        self._channels: Part[Channels] = Part(
            connector, ServerChannels, lambda in_process: in_process.of(LocalChannels)
        )
        self._listeners: set[Listener] = set()

    async def publish(self, channel: str, message: Any) -> int:
        """Send *message* to whoever listens now; returns how many connections that is (of one node, in a cluster).

        Text and bytes go as they are, anything else as JSON. One round trip.
        Raises: TypeError for what is not plain data; ServerError while the server is unavailable.
        """
        if isinstance(message, str):
            message = message.encode()
        payload = message if isinstance(message, bytes) else msgspec.json.encode(message)
        channel = _checked(channel)
        return await (await self._channels.get()).publish(channel, payload)

    def listen(self, channel: str, *, limit: int = LIMIT, overflow: Overflow = "drop_oldest") -> Listener:
        """Return a subscription to be entered and iterated; *channel* may be a pattern (`orders:*`).

            async with pubsub.listen("orders:*") as listener:
                async for item in listener:  # a Message, or a Gap
                    ...

        *limit*: messages that may wait. One more drops the oldest, which shows as a `Gap`, or with
        `overflow="disconnect"` ends the subscription with `SubscriberTooSlow` after those that wait.
        """
        return Listener(self._channels, self._listeners, channel, limit, overflow)

    async def subscribe(
        self,
        channel: str,
        handler: Handler,
        *,
        on_gap: OnGap | None = None,
        limit: int = LIMIT,
        overflow: Overflow = "drop_oldest",
    ) -> Listener:
        """Call *handler* with each message from now on, one after the other, until `unsubscribe()`.

        A plain function is called on the loop, so it must not block. What a handler raises is logged, and counted in
        `failed`. *on_gap* is called where messages may be missing, before the first one after it.
        Returns when the server has confirmed. Raises: Unavailable when it does not.
        """
        if not callable(handler):
            raise ConfigurationError(f"subscribe {channel!r}: handler {handler!r} is no function")
        listener = self.listen(channel, limit=limit, overflow=overflow)
        await listener.start()
        listener.call(handler, on_gap)
        return listener

    async def close(self) -> None:
        """End every subscription. Idempotent."""
        for listener in tuple(self._listeners):
            await listener.unsubscribe()


class Listener:
    """One subscription. `dropped`, `gaps`, `failed` count messages missed, times deaf, and handlers that raised."""

    def __init__(
        self, channels: Part[Channels], others: set[Listener], channel: str, limit: int, overflow: Overflow
    ) -> None:
        if limit < 1:
            raise ConfigurationError(f"limit: {limit} must be 1 or more")
        if overflow not in ("drop_oldest", "disconnect"):
            raise ConfigurationError(f"overflow: {overflow!r} is unknown; choose 'drop_oldest' or 'disconnect'")
        self.channel = _checked(channel)
        self.dropped = self.gaps = self.failed = 0
        self._channels = channels
        self._others = others
        self._limit = limit
        self._overflow = overflow
        self._waiting: deque[Message | Gap] = deque()
        self._missed = 0  # dropped since the last Gap
        self._news = asyncio.Event()
        self._ended = False
        self._too_slow = False
        self._leave: Callable[[], None] = _nothing
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe; returns when the server has confirmed. Raises: Unavailable."""
        channels = await self._channels.get()
        self._leave = await channels.subscribe(self.channel, self._heard, self._reconnected)
        self._others.add(self)

    def call(self, handler: Handler, on_gap: OnGap | None) -> None:
        """Call *handler* with what comes, in a task of its own."""
        self._task = asyncio.create_task(self._call(handler, on_gap), name=f"cachebus subscriber of {self.channel}")

    async def unsubscribe(self) -> None:
        """End the subscription. Iterating ends after what waits; a handler's task ends now. Idempotent."""
        self._end()
        if self._task is not None and self._task is not asyncio.current_task():
            await end([self._task])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        await self.unsubscribe()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        while True:
            if self._missed:
                missed, self._missed = self._missed, 0
                return Gap("overflow", missed)
            if self._waiting:
                return self._waiting.popleft()
            if self._too_slow:
                raise SubscriberTooSlow(f"{self.channel}: more than {self._limit} messages waited")
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _heard(self, channel: str, payload: bytes) -> None:
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            if self._overflow == "disconnect":
                self._too_slow = True
                self._end()
                return
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(Message(channel, payload))
        self._news.set()

    def _reconnected(self) -> None:
        self.gaps += 1
        if not self._waiting or not isinstance(self._waiting[-1], Gap):
            self._waiting.append(Gap("reconnected"))
        self._news.set()

    def _end(self) -> None:
        self._ended = True
        leave, self._leave = self._leave, _nothing
        leave()
        self._others.discard(self)
        self._news.set()

    async def _call(self, handler: Handler, on_gap: OnGap | None) -> None:
        try:
            async for item in self:
                await self._one(item, handler, on_gap)
        except SubscriberTooSlow as slow:
            log.error("%s; unsubscribed", slow)  # noqa: TRY400 - its policy, not a bug here

    async def _one(self, item: Message | Gap, handler: Handler, on_gap: OnGap | None) -> None:
        try:
            if isinstance(item, Message):
                result = handler(item)
                if inspect.isawaitable(result):
                    await result
            elif on_gap is not None:
                on_gap(item)
        except Exception:
            self.failed += 1
            log.exception("a subscriber of %s failed", self.channel)


def _nothing() -> None:
    """Leave what was never entered, or was left."""


def _checked(channel: object) -> str:
    if not isinstance(channel, str) or not channel:
        raise ConfigurationError(f"channel: {channel!r} must be a name")
    if has_surrogate(channel):
        raise ConfigurationError(f"channel: {channel!r} {NO_UTF8}")
    return channel
