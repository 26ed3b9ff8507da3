"""Plain `PUBLISH` into the events: every worker listens and appends, and each message is appended once.

There is no leader. A message is named by what all bridges hear alike: the last marker before it, and its number on its
channel since that marker. One connection hears everything in the order in which the server ran it, and a marker goes
the same way, so names agree (in a cluster all listen at the node that owns the slot of the bus: `Cluster.dedicated`);
the script that appends drops those it has. A bridge has no names to give after it
(re)connected, until it has heard a marker of its own: what it hears meanwhile is left to the others.

`publish()` announces its own PUBLISH with a skip notice just before it: that message is in the stream already.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cachebus.bus.engine.draining import Drainable, unless
from cachebus.bus.events import PAYLOAD_BYTES, channel_fault, shard_of
from cachebus.bus.handlers import Handler
from cachebus.bus.permissions import refused_channels
from cachebus.bus.publisher import MOST_EVENTS
from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument
from cachebus.redis.subscriptions import Subscription

log = logging.getLogger("cachebus")

KEEP_NUMBERS_MS = 3_600_000
"""How long the numbers of a marker outlive its last message: longer than any bridge lags behind another."""
MARK_AGAIN_S = 2.0
"""A marker that has not been heard this long was lost."""
YIELD_S = 0.5
"""A bridge that has just begun lets those who listened before it append first: they may still have older messages."""
PAUSE_S = 0.5
AT_ONCE = 200
APPEND_S = 2.0
MOST_QUEUED = 50_000
MOST_QUEUED_BYTES = 64 * 1024 * 1024
"""Messages heard and not appended yet (the server is away, or slow); beyond that they are left to other workers."""


_LENGTH = re.compile(r"[0-9]{1,10}")
_MARKER = re.compile(r"[0-9a-f]{16}")


class Heard(NamedTuple):
    """A plain message with its name."""

    marker: str
    channel: str
    number: int
    payload: bytes


@dataclass(slots=True)
class BridgeStats:
    """What a bridge has done: plain counters."""

    heard: int = 0
    """Plain messages that got a name."""
    appended: int = 0
    """Those that were new; the others some worker had appended already."""
    skipped: int = 0
    """Messages of `publish()`, which are in the stream already."""
    unnamed: int = 0
    """Messages heard before the first marker after (re)connecting; other workers may have them."""
    gaps: int = 0
    """Times this bridge was deaf for a while."""
    overflows: int = 0
    queued: int = 0


class Bridge(Drainable):
    """Listens to the channels of some handlers and appends what it hears. `run` in a task of its own."""

    def __init__(
        self,
        client: Client,
        handlers: Iterable[Handler[..., Any]],
        *,
        shards: int = 1,
        max_events: int = MOST_EVENTS,
        max_payload_bytes: int = PAYLOAD_BYTES,
    ) -> None:
        super().__init__()
        self._client = client
        names = client.names
        self._marks, self._skip_notices = names.bus("mark"), names.bus("skip")
        self._patterns = sorted({handler.pattern.text: handler.pattern for handler in handlers}.items())
        self._shards = shards
        self._streams = [names.bus("events", str(shard)) for shard in range(shards)]
        self._max_events = max_events
        self._max_payload_bytes = max_payload_bytes
        self.stats = BridgeStats()
        self._queue: deque[Heard] = deque()
        self._queued_bytes = 0
        self._subscriptions: list[Subscription] = []
        self._connection = 0
        self._marker = ""  # the last one heard; '' while messages cannot be named
        self._own = ""  # the one we wait for, before any other counts
        self._numbers: dict[str, int] = {}
        self._skips: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self._yield_until = 0.0
        self._tried = False  # whether the access rules were, since it last heard
        self._complete = False  # whether every subscription stands on the present connection
        self._mark_due = False
        self._woken = asyncio.Event()

    @property
    def listening(self) -> bool:
        """Whether what is published now will be appended."""
        return bool(self._marker)

    # -- the main path ----------------------------------------------------------------------------------------------

    async def _work(self, stop: asyncio.Future[None]) -> None:
        """Listen and append; outages are waited out, what may have been missed is counted. Drained, append the rest."""
        while not stop.done() or self._queue:
            try:
                await self._step(stop)
            except ServerError as unavailable:
                log.debug("bridge: %s", unavailable)
                pause = asyncio.sleep(PAUSE_S)
                await (pause if self._queue else unless(stop, pause))

    async def _wake(self) -> None:
        await self._close()  # listen no more
        self._woken.set()

    async def _step(self, stop: asyncio.Future[None]) -> None:
        if not self._subscriptions and not stop.done():
            await unless(stop, self._subscribe())
        if self._connection != self._client.subscriptions.connection:
            self._lapse()
        if self._mark_due and not stop.done():
            self._mark_due = False
            self._own = secrets.token_hex(8)
            listeners = await self._client.store.call("PUBLISH", self._marks, self._own)
            if listeners > 1:
                self._yield_until = asyncio.get_running_loop().time() + YIELD_S
        if self._queue:
            await self._yield()
            await self._append()
        elif not stop.done():
            patience = None if self._marker else MARK_AGAIN_S
            try:
                async with asyncio.timeout(patience):
                    await self._woken.wait()
            except TimeoutError:
                self._mark_due = self._complete
        self._woken.clear()

    async def _yield(self) -> None:
        left_s = self._yield_until - asyncio.get_running_loop().time()
        if left_s > 0 and not self.draining:
            await asyncio.sleep(left_s)

    async def _append(self) -> None:
        """Append what is queued under one marker, at most AT_ONCE messages. Safe to repeat: names are known."""
        marker = self._queue[0].marker
        batch: list[Heard] = []
        for heard in self._queue:
            if heard.marker != marker or len(batch) == AT_ONCE:
                break
            batch.append(heard)
        args: list[Argument] = [KEEP_NUMBERS_MS, self._max_events, marker]
        for heard in batch:
            args += (shard_of(heard.channel, self._shards), heard.channel, heard.number, heard.payload)
        keys = (self._client.names.bus("plain", marker), *self._streams)
        done, new = await self._client.store.run("bus/engine/append_plain", keys, args, timeout_s=APPEND_S)
        for heard in batch[:done]:
            self._queue.popleft()
            self._queued_bytes -= len(heard.payload)
        self.stats.appended += new
        self.stats.queued = len(self._queue)
        if done < len(batch):
            log.warning("bridge: %s events wait, plain messages are held back", f"{self._max_events:,}")
            await asyncio.sleep(PAUSE_S)

    # -- listening --------------------------------------------------------------------------------------------------

    async def _subscribe(self) -> None:
        """Subscribe to everything; only then does a marker of ours mean that we hear all that comes after it."""
        subscribe = self._client.subscriptions.subscribe
        try:
            self._subscriptions.append(await subscribe(self._marks, self._heard_mark, on_gap=self._resubscribed))
            self._subscriptions.append(await subscribe(self._skip_notices, self._heard_skip))
            for text, pattern in self._patterns:
                heard = self._listener(text)
                self._subscriptions.append(await subscribe(text, heard, pattern=pattern.wild))
        except BaseException as failed:
            await self._close()
            if isinstance(failed, ServerError) and not self._tried and self._client.store.up:
                await self._name_refused()
            raise
        self._tried = False
        self._start_anew()

    async def _name_refused(self) -> None:
        """Log each channel that this user may not hear, with the rule to add. Raises: ServerError."""
        for line in await refused_channels(self._client, [text for text, _ in self._patterns]):
            log.warning("%s", line)
        self._tried = True

    async def _close(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        self._lapse()
        for subscription in subscriptions:
            await subscription.cancel()

    def _lapse(self) -> None:
        """Stop naming messages: this is another connection, and not all subscriptions stand on it yet."""
        self._connection = self._client.subscriptions.connection
        self._marker = self._own = ""
        self._complete = self._mark_due = False

    def _start_anew(self) -> None:
        """Name messages from the next marker of ours on."""
        self._lapse()
        self._complete = self._mark_due = True
        self._woken.set()

    def _resubscribed(self) -> None:
        self.stats.gaps += 1
        log.warning("bridge: disconnected for a while; plain messages that no other worker heard are lost")
        if len(self._subscriptions) == 2 + len(self._patterns):  # else `_subscribe` is still at it
            self._start_anew()

    def _heard_mark(self, _channel: str, payload: bytes) -> None:
        if self._connection != self._client.subscriptions.connection:
            self._lapse()
        marker = payload.decode(errors="replace")
        if not _MARKER.fullmatch(marker):
            return  # no bridge sent it
        if not self._marker:
            if marker != self._own:
                return
            self._skips.clear()  # left from when we heard notices, but not yet the channel they were for
        self._marker = marker  # a later one may come from another node, between a notice and its message
        self._numbers.clear()

    def _heard_skip(self, _channel: str, payload: bytes) -> None:
        length, _, channel = payload.decode(errors="replace").partition(" ")
        if length == "-":
            self._skips.pop(channel, None)  # the server refused the message that was to follow
        elif _LENGTH.fullmatch(length) and self._owner(channel):
            self._skips[channel] = int(length)

    def _listener(self, text: str) -> Callable[[str, bytes], None]:
        def heard(channel: str, payload: bytes) -> None:
            if self._owner(channel) == text:
                self._heard(channel, payload)

        return heard

    def _heard(self, channel: str, payload: bytes) -> None:
        if self._connection != self._client.subscriptions.connection:
            self._lapse()
        if self._skips.pop(channel, -1) == len(payload):
            self.stats.skipped += 1
        elif not self._marker:
            self.stats.unnamed += 1
        elif len(self._queue) >= MOST_QUEUED or self._queued_bytes >= MOST_QUEUED_BYTES:
            # Leaving out one number would make the next one say that this one is known: no names until a new marker.
            self.stats.overflows += 1
            log.error("bridge: too much is queued; plain messages are left to other workers")
            self._start_anew()
        else:
            number = self._numbers[channel] = self._numbers.get(channel, 0) + 1
            # One byte too many is enough for the consumer to refuse it, with a reason.
            self._queue.append(Heard(self._marker, channel, number, payload[: self._max_payload_bytes + 1]))
            self._queued_bytes += len(payload)
            self.stats.heard += 1
            self.stats.queued = len(self._queue)
            self._woken.set()

    def _owner(self, channel: str) -> str:
        """Return which of our subscriptions counts for *channel*: the server sends one message once for each."""
        owner = self._owners.get(channel)
        if owner is None:
            if len(self._owners) >= 10_000:
                self._owners.clear()
            matching = [text for text, pattern in self._patterns if pattern.matches(channel)]
            owner = channel if channel in matching else matching[0] if matching else ""
            self._owners[channel] = "" if channel_fault(channel) else owner
            owner = self._owners[channel]
        return owner
