"""What waits for one client. Bounded: whoever reads too slowly gets the newest of each topic, and is told. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from cachebus.gateway.protocol import EncodedMessage, Notice

MOST_WAITING = 256
MOST_BYTES = 1 << 20
MOST_NOTICES = 64

Skipped = Callable[[Counter[str]], Notice]
"""Makes the notice that says how many messages of which topics were left out."""


class ClientQueue:
    """First in, first out. `overflowed` means that not even the newest of each topic fits: close the client.

    What a client resumes with does not count: it is in memory anyway, and asked for whole.
    """

    def __init__(self, skipped: Skipped, *, most: int = MOST_WAITING, most_bytes: int = MOST_BYTES) -> None:
        self._skipped = skipped
        self._most = most
        self._room = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._waiting: deque[EncodedMessage | Notice] = deque()
        self._notices = 0
        self.left_out: Counter[str] = Counter()
        """Messages left out so far and not yet told, by topic."""
        self.overflowed = False
        self.since: float | None = None
        """When the client last took something, while something waits."""
        self.wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._waiting)

    def say(self, notice: Notice, now: float) -> None:
        """Queue a notice; notices are never left out."""
        self._notices += 1
        self.overflowed = self.overflowed or self._notices > MOST_NOTICES
        self._append(notice, now)

    def replay(self, messages: Sequence[EncodedMessage], now: float) -> None:
        """Queue what the client missed."""
        self._room = self._most + len(messages)
        for message in messages:
            self._append(message, now)

    def put(self, message: EncodedMessage, now: float) -> None:
        """Queue a message; too many, and only the newest of each topic stays."""
        self._append(message, now)
        self._bytes += len(message.text)
        if len(self._waiting) > self._room or self._bytes > self._most_bytes or self.left_out:
            self._coalesce()

    def forget(self, now: float) -> None:
        """Drop every message that waits; a notice that says so follows. Notices stay."""
        kept = [item for item in self._waiting if isinstance(item, Notice)]
        self._waiting = deque(kept)
        self._bytes = 0
        self.left_out.clear()
        self._room = self._most
        self.since = now if kept else None

    def take(self, now: float) -> list[EncodedMessage | Notice]:
        """Return everything that waits, in order; the client has the time from now on."""
        taken = list(self._waiting)
        if self.left_out:
            taken.insert(0, self._skipped(self.left_out))
        self._waiting.clear()
        self._bytes = self._notices = 0
        self.left_out = Counter()
        self._room = self._most
        self.since = now if taken else None
        return taken

    def progress(self, now: float, *, done: bool) -> None:
        """Note that the client took a part of what was taken out, or the rest of it."""
        self.since = None if done and not self._waiting else now

    def _append(self, item: EncodedMessage | Notice, now: float) -> None:
        if self.since is None:
            self.since = now
        self._waiting.append(item)
        self.wake()

    def _coalesce(self) -> None:
        newest: dict[str, EncodedMessage] = {}
        for item in self._waiting:
            if not isinstance(item, Notice):
                if item.topic in newest:
                    self.left_out[item.topic] += 1
                newest[item.topic] = item
        self._waiting = deque(item for item in self._waiting if isinstance(item, Notice) or newest[item.topic] is item)
        self._bytes = sum(len(message.text) for message in newest.values())
        self.overflowed = self.overflowed or self._bytes > self._most_bytes or len(newest) > self._most
