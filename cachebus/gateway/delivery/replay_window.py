"""The newest part of the feed, in memory: whoever comes back soon is answered without asking Redis. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from cachebus.gateway.protocol import EncodedMessage

MOST = 10_000
"""As many as the feed itself keeps; about 5 MB."""


class ReplayWindow:
    """An unbroken run of messages: each names the one before it, the first one names `base`."""

    def __init__(self, base: str = "", most: int = MOST) -> None:
        self.base = base
        self._most = most
        self._messages: deque[EncodedMessage] = deque()
        self._numbers: dict[str, int] = {}
        self._first = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def newest(self) -> str:
        """The id that the gateway has reached."""
        return self._messages[-1].id if self._messages else self.base

    def add(self, message: EncodedMessage) -> None:
        """Take the next message; the oldest one goes when there are too many."""
        self._numbers[message.id] = self._first + len(self._messages)
        self._messages.append(message)
        while len(self._messages) > self._most:
            oldest = self._messages.popleft()
            del self._numbers[oldest.id]
            self._first += 1
            self.base = oldest.id

    def prepend(self, after: str, messages: Sequence[EncodedMessage]) -> None:
        """Take what lies between *after* and `base`; it is kept until the next message, or for as long as it fits."""
        self._first -= len(messages)
        self._messages.extendleft(reversed(messages))
        self._numbers.update((message.id, self._first + at) for at, message in enumerate(messages))
        self.base = after

    def begin(self, base: str) -> None:
        """Begin anew after *base*: what was before it does not lead here."""
        self.base = base
        self._messages.clear()
        self._numbers.clear()

    def after(self, identity: str) -> list[EncodedMessage] | None:
        """Return what came after the message with this id; None where that is not known."""
        if identity == "":
            return None
        if identity == self.newest:
            return []
        if identity == self.base:
            return list(self._messages)
        number = self._numbers.get(identity)
        return None if number is None else list(islice(self._messages, number - self._first + 1, None))
