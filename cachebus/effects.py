"""What a handler answers: effects, which one commit writes, and two signals. Plain values; making one does nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from cachebus.durations import Duration, milliseconds


class Refreshable(Protocol):
    """What `Refresh` asks of a view (`cache.view` makes them)."""

    @property
    def name(self) -> str:
        """The key template: unique in its cache."""
        ...

    @property
    def key(self) -> Any:
        """Called with the arguments: the logical key of that call."""
        ...

    def encode_arguments(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the arguments as JSON, for another process to decode."""
        ...


class Invalidate(msgspec.Struct, frozen=True, kw_only=True):
    """Make everything under these keys, tags and prefix unreadable, everywhere, before the broadcast is sent."""

    keys: Sequence[str] = ()
    tags: Sequence[str] = ()
    prefix: str | None = None


class Broadcast(msgspec.Struct, frozen=True):
    """Tell who follows *topic*: a record in the feed and a message on `ws:<topic>`, both with the clock to read after.

    *data* is anything JSON can say; hints ("portfolio changed") are better than figures.
    """

    topic: str
    type: str
    data: Any = None


class Refresh:
    """Invalidate one entry of a view and have some worker load it anew. Equal ones in flight are one."""

    __slots__ = ("args", "kwargs", "view")

    def __init__(self, view: Refreshable, *args: Any, **kwargs: Any) -> None:
        self.view = view
        self.args = args
        self.kwargs = kwargs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refresh) and (self.view, self.args, self.kwargs) == (
            other.view,
            other.args,
            other.kwargs,
        )

    def __hash__(self) -> int:
        return hash((self.view.name, self.args))

    def __repr__(self) -> str:
        named = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"Refresh({', '.join([repr(self.view.name), *map(repr, self.args), *named])})"


class Publish(msgspec.Struct, frozen=True):
    """Publish another event, in the same commit. *event* as in `Bus.publish`: a Struct, plain data or JSON bytes."""

    channel: str
    event: Any
    key: str | None = None


Effect = Invalidate | Broadcast | Refresh | Publish
Effects = Iterable[Effect]
"""What a handler returns or yields; a handler may also return None: no effects."""
Answer = Effects | Effect | None


class Signal(Exception):
    """Raised by a handler to say what becomes of the event. None of its effects are kept."""


class Retry(Signal):
    """Run this handler on this event again later; it counts as an attempt."""

    def __init__(self, after: Duration | None = None, reason: str = "the handler asked for a retry") -> None:
        super().__init__(reason)
        self.after_ms = None if after is None else milliseconds(after, "Retry(after)")
        """None: the handler's own backoff."""


class Drop(Signal):
    """Be done with this event: no effects, no retry, no dead letter. Counted."""
