"""The bus of a process without a server: events, broadcasts, retries and dead letters. Bounded; gone with the process.

`Bus`, `Feed`, `DeadLetters` and `LocalConsumer` of one cache share one of these (`Connector.in_process`).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from cachebus.bus.letters import DeadLetter, DelayedItem, Letter, RetryItem

MOST_LETTERS = 1_000
MOST_BROADCASTS = 1_000
MOST_IDS = 100_000
"""Ids of events that are known; the oldest make room."""


class Wakeups:
    """Wakes everyone who waits for something to come."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def wait(self) -> asyncio.Future[None]:
        """Return a future that is done when `fire` is called next."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        return waiting

    def fire(self) -> None:
        """Wake them."""
        for waiting in tuple(self._waiting):
            if not waiting.done():
                waiting.set_result(None)


class LocalWindow(NamedTuple):
    """What came for a debounced handler; times are seconds of `time.monotonic`."""

    opened: float
    closes: float
    item: RetryItem
    """The handler on the newest event."""


class LocalBus:
    """What the server holds of a bus, in memory."""

    def __init__(self) -> None:
        self.events: deque[Sequence[Any]] = deque()
        """Entries that wait, in the form in which a server sends them."""
        self.retries: dict[str, tuple[float, int, RetryItem]] = {}
        """Name -> when it is due (seconds of `time.monotonic`), attempts made, item."""
        self.windows: dict[str, LocalWindow] = {}
        self.delayed: dict[str, tuple[float, DelayedItem]] = {}
        """Id -> when it is due, event."""
        self._dues: list[tuple[float, str]] = []
        self.letters: OrderedDict[str, Letter] = OrderedDict()
        self.feed: deque[tuple[str, str, bytes]] = deque(maxlen=MOST_BROADCASTS)
        """Broadcasts: id, topic, message; each follows the one before it."""
        self.epoch = str(time.time_ns() // 1000)
        self.published: deque[tuple[str, bytes]] = deque(maxlen=MOST_BROADCASTS)
        """Channel and payload of the newest events, handled or not."""
        self.arrived = Wakeups()
        """An event, or a retry."""
        self.broadcast = Wakeups()
        self.announced = False
        self._ids: OrderedDict[str, float] = OrderedDict()
        self._newest = 0
        self._clock = 0

    def append(
        self, channel: str, payload: bytes, *, name: str, key: str, remember_ms: int, traceparent: str = ""
    ) -> bool:
        """Add an event; False if its id is known already."""
        new = self.remember(name, remember_ms)
        if new:
            self._append(channel, payload, name, key, traceparent)
        return new

    def remember(self, name: str, remember_ms: int) -> bool:
        """Note the id of an event; False if it is known already."""
        now = time.monotonic()
        known = self._ids.pop(name, 0.0) > now
        self._ids[name] = now + remember_ms / 1000
        if len(self._ids) > MOST_IDS:
            self._ids.popitem(last=False)
        return not known

    def _append(self, channel: str, payload: bytes, name: str, key: str, traceparent: str = "") -> None:
        fields = [b"channel", channel.encode(), b"payload", payload, b"id", name.encode()]
        fields += [b"key", key.encode()] if key else []
        fields += [b"traceparent", traceparent.encode()] if traceparent else []
        self.events.append((self.position(), fields))
        self.published.append((channel, payload))
        self.arrived.fire()

    @contextmanager
    def announcing(self) -> Iterator[None]:
        """What plain listeners hear in this block are events that are here already: see `announced`."""
        self.announced = True
        try:
            yield
        finally:
            self.announced = False

    def position(self) -> bytes:
        """Return an id as a stream would give it."""
        self._newest = max(self._newest + 1, time.time_ns() // 1000)
        return b"%d-%d" % divmod(self._newest, 1000)

    def send(self, topic: str, body: bytes, fresh_after: str) -> None:
        """Add a broadcast to the feed; *body* is the JSON of topic, type and data."""
        self._clock = max(self._clock + 1, time.time_ns() // 1000)
        identity = f"{self.epoch}-{self._clock}"
        head = {"id": identity, "ts": self._clock // 1000, "fresh_after": fresh_after}
        self.feed.append((identity, topic, msgspec.json.encode(head)[:-1] + b"," + body[1:]))
        self.broadcast.fire()

    def bury(self, letter: DeadLetter) -> None:
        """Keep a dead letter; the oldest make room."""
        place = self.position().decode()
        identity = letter.letter or place
        self.letters[identity] = Letter(identity, *letter[:10], place)
        while len(self.letters) > MOST_LETTERS:
            self.letters.popitem(last=False)

    def retry(self, item: RetryItem, delay_ms: float, attempts: int) -> None:
        """Have a handler run on an event again in *delay_ms*."""
        self.retries[item.name] = (time.monotonic() + delay_ms / 1000, attempts, item)
        self.arrived.fire()

    def due(self) -> Iterator[tuple[str, int, RetryItem]]:
        """Yield the retries that are due: name, number of the attempt that now begins, item."""
        now = time.monotonic()
        for name, (due, attempts, item) in list(self.retries.items()):
            if due <= now:
                self.retries[name] = (float("inf"), attempts + 1, item)
                yield name, attempts + 1, item

    def again(self, name: str, delay_ms: float) -> None:
        """Put a retry that has run back."""
        _, attempts, item = self.retries[name]
        self.retry(item, delay_ms, attempts)

    def delay(self, event_id: str, item: DelayedItem, delay_ms: int) -> None:
        """Keep an event until it is due, unless one waits under its id."""
        if event_id not in self.delayed:
            due = time.monotonic() + delay_ms / 1000
            self.delayed[event_id] = (due, item)
            heapq.heappush(self._dues, (due, event_id))
            self.arrived.fire()

    def cancel(self, event_id: str) -> bool:
        """Take a delayed event back; False where there is none of that id."""
        if event_id not in self.delayed:
            return False
        del self.delayed[event_id]
        self._ids.pop(event_id, None)
        return True

    def take_delayed(self) -> Iterator[DelayedItem]:
        """Make events of the delayed ones that are due; yields each, for plain listeners."""
        while (first := self._first_delayed()) and first[0] <= time.monotonic():
            event_id = heapq.heappop(self._dues)[1]
            item = self.delayed.pop(event_id)[1]
            self._append(item.channel, item.payload, event_id, item.key, item.traceparent)
            yield item

    def _first_delayed(self) -> tuple[float, str] | None:
        """Return when the first delayed event is due, and its id; what was cancelled is dropped on the way."""
        while self._dues:
            due, event_id = self._dues[0]
            if event_id in self.delayed and self.delayed[event_id][0] == due:
                return due, event_id
            heapq.heappop(self._dues)
        return None

    def debounce(self, name: str, quiet_ms: int, most_ms: int, item: RetryItem) -> None:
        """Open a window, or move the end of the one that is open."""
        now = time.monotonic()
        opened = self.windows[name].opened if name in self.windows else now
        self.windows[name] = LocalWindow(opened, min(opened + most_ms / 1000, now + quiet_ms / 1000), item)

    def close_windows(self, *, every: bool) -> None:
        """Make retries of the windows whose time is over, or of *every* one."""
        now = time.monotonic()
        for name, window in list(self.windows.items()):
            if every or window.closes <= now:
                del self.windows[name]
                self.retry(window.item, 0, 0)

    def next_due_s(self) -> float | None:
        """Return in how many seconds the next retry or delayed event is due or window closes, None if there is none."""
        dues = (
            *(due for due, _, _ in self.retries.values()),
            *(window.closes for window in self.windows.values()),
            *((delayed[0],) if (delayed := self._first_delayed()) else ()),
        )
        first = min(dues, default=float("inf"))
        return None if first == float("inf") else max(0.0, first - time.monotonic())
