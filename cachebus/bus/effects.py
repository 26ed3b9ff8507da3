"""What a handler answers: effects, which one commit writes, and two signals. Plain values; making one does nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, PublishRefused

LONGEST_DELAY = "30d"
"""As Cloud Tasks has it. What is due later belongs in the database, for a job to look up."""
_LONGEST_MS = milliseconds(LONGEST_DELAY, "LONGEST_DELAY")


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
    """Make everything under these keys, tags and prefix unreadable, everywhere, before the broadcast is sent.

    A lone string is one name: `Invalidate(tags="user:7")`.
    """

    keys: str | Sequence[str] = ()
    tags: str | Sequence[str] = ()
    prefix: str | None = None


class Broadcast(msgspec.Struct, frozen=True):
    """Tell who follows *topic*: a record in the feed and a message on `ws:<topic>`, both with the clock to read after.

    *data* is anything JSON can say; hints ("orders changed") are better than figures.
    """

    topic: str
    type: str
    data: Any = None


IF_WORTH = "?"
"""Before the name of a view, in what a worker is to load: only where a read of it is likely enough."""


class Refresh:
    """Invalidate one entry of a view and have some worker load it again. Equal ones in flight are one.

    *worth*: invalidate in any case, but load only if a read before the next invalidation is likely enough, which the
    worker counts for itself.
    """

    __slots__ = ("args", "kwargs", "view", "worth")

    def __init__(self, view: Refreshable, *args: Any, worth: bool = False, **kwargs: Any) -> None:
        if not hasattr(view, "name"):
            raise TypeError(f"Refresh: {view!r} is not a view; write Refresh(view, *arguments)")
        self.view = view
        self.args = args
        self.kwargs = kwargs
        self.worth = worth

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refresh) and (self.view, self.args, self.kwargs, self.worth) == (
            other.view,
            other.args,
            other.kwargs,
            other.worth,
        )

    def __hash__(self) -> int:
        return hash((self.view.name, self.args))

    def __repr__(self) -> str:
        named = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        named += ["worth=True"] if self.worth else []
        return f"Refresh({', '.join([repr(self.view.name), *map(repr, self.args), *named])})"


class Publish(msgspec.Struct, frozen=True):
    """Publish another event, in the same commit. *event* as in `Bus.publish`: a Struct, plain data or JSON bytes.

    With *after* it waits that long, 30 days at most. Until then `Bus.cancel` takes it back by its *id*; while an event
    waits under that id, another one is not added.
    """

    channel: str
    event: Any
    key: str | None = None
    after: Duration | None = None
    id: str | None = None


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


def delay_of(delay: Duration, field: str) -> int:
    """Return *delay* in milliseconds; 0 is now. Raises: PublishRefused naming *field*: in the past, or too far away."""
    if delay == 0:
        return 0
    try:
        delay_ms = milliseconds(delay, field)
    except ConfigurationError as malformed:
        if _is_negative(delay):
            raise PublishRefused(f"{field}: {delay!r} is in the past; leave it out to publish now") from None
        raise PublishRefused(str(malformed)) from None
    if delay_ms > _LONGEST_MS:
        raise PublishRefused(
            f"{field}: {delay!r} is longer than {LONGEST_DELAY}; keep the time in your database and publish from a job"
        )
    return delay_ms


def _is_negative(delay: Duration) -> bool:
    if isinstance(delay, str):
        return delay.lstrip().startswith("-")
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    return isinstance(seconds, int | float) and seconds < 0  # type: ignore[redundant-expr] # or anything else
