"""Who is told of each read of a view, while somebody needs that: a hit pays one attribute test where nobody does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol

from cachebus.cache.call import Call, Load
from cachebus.cache.tiers.s3fifo import CachedValue
from cachebus.clock import now_s


class WatchedRead(NamedTuple):
    """One read that memory did not answer at once: the view, its arguments, and what they make.

    Of a plain value: None, and its key.
    """

    view: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    call: Call


class ReadWatcher(Protocol):
    """Must not block, nor raise."""

    def hit(self, view: Any, held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Memory has answered a read. In the caller's thread."""
        ...

    def read(self, seen: WatchedRead, began: float, *, loaded: bool) -> None:
        """A read that began then has its value; *loaded*: the function ran for it. In the loop's thread."""
        ...


def show(watchers: tuple[ReadWatcher, ...], calls: Iterable[Call], began: float) -> None:
    """Tell of reads of plain values, whoever answered them."""
    for call in calls:
        for watcher in watchers:
            watcher.read(WatchedRead(None, (call.key,), {}, call), began, loaded=False)


async def watched(
    watchers: tuple[ReadWatcher, ...], seen: WatchedRead, load: Load, read: Callable[..., Awaitable[Any]]
) -> Any:
    """Return what *read*, called with *load*, returns, and tell of it. A read that raises is not told of."""
    loaded, began = False, now_s()

    async def noting() -> Any:
        nonlocal loaded
        loaded = True
        return await load()

    value = await read(load=noting)
    for watcher in watchers:
        watcher.read(seen, began, loaded=loaded)
    return value
