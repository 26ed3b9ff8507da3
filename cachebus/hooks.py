"""Hooks: what a program may be told of its cache while it runs.

Reads are counted, not called: a hit from memory takes less time than a call of a hook would, so hooks get the counts of
an interval. A load is long enough to be called around. Names are templates of views, never keys: a million users are
one name.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from typing import Any, Protocol

from cachebus.cache import Cache
from cachebus.durations import Duration, milliseconds
from cachebus.stats import CacheStats, ViewStats
from cachebus.view import View

log = logging.getLogger("cachebus")

EVERY = "1s"

_COUNTERS = tuple(field.name for field in fields(ViewStats))


class Hooks(Protocol):
    """What is called, always in the cache's event loop. Derive from it and define what you need.

    None of them may block. What `loading` raises is for whoever reads; what the others raise is logged.
    """

    def loading(self, view: str) -> contextlib.AbstractContextManager[object]:
        """Return what a load of *view* shall run within: entered before it, left after it, or with its exception."""
        return contextlib.nullcontext()

    def counted(self, view: str, counts: ViewStats) -> None:
        """*view* was used: hits by layer, loads, waits, stale values, bytes, invalidations since the last time."""

    def changed(self, before: CacheStats, now: CacheStats) -> None:
        """The cache's state is another one: Redis went away or is back, the journal had a gap, invalidations wait."""


@contextlib.asynccontextmanager
async def watching(cache: Cache, hooks: Hooks, *, every: Duration = EVERY) -> AsyncIterator[None]:
    """Call *hooks* while this block runs; what is left is counted at its end. Without it the cache pays nothing.

    Views declared later are seen at the next interval.
    """
    watch = _Watch(cache, hooks)
    watch.look()
    ticking = asyncio.create_task(watch.run(milliseconds(every, "every") / 1000), name="cachebus hooks")
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        watch.look()
        watch.close()


class _Watch:
    """One cache being watched."""

    def __init__(self, cache: Cache, hooks: Hooks) -> None:
        self._cache = cache
        self._hooks = hooks
        self._before = cache.stats()
        self._counted = {name: _copied(stats) for name, stats in self._before.views.items()}
        self._undo: dict[str, Callable[[], None]] = {}

    async def run(self, every_s: float) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(every_s)
            try:
                self.look()
            except Exception:
                log.exception("a hook of the cache failed")

    def look(self) -> None:
        """Tell of everything since the last look."""
        for name, view in self._cache.views.items():
            if name not in self._undo:
                self._undo[name] = _surround(view, functools.partial(self._hooks.loading, name))
        now = self._cache.stats()
        for name, stats in now.views.items():
            before, self._counted[name] = self._counted.get(name, ViewStats()), _copied(stats)
            counts = ViewStats(**{field: getattr(stats, field) - getattr(before, field) for field in _COUNTERS})
            if counts != ViewStats():
                self._hooks.counted(name, counts)
        before_all, self._before = self._before, now
        if (now.up, now.gaps, bool(now.queued)) != (before_all.up, before_all.gaps, bool(before_all.queued)):
            self._hooks.changed(before_all, now)

    def close(self) -> None:
        """Leave every view as it was."""
        for undo in self._undo.values():
            undo()


def _surround(
    view: View[..., Any], within: Callable[[], contextlib.AbstractContextManager[object]]
) -> Callable[[], None]:
    """Have every load of *view* run within a context; return what takes that back."""
    load, read_with = view.load, view.read_with

    async def load_within(*args: Any, **kwargs: Any) -> Any:
        with within():
            return await load(*args, **kwargs)

    async def read_within(load: Callable[[], Awaitable[Any]] | None, args: Any, kwargs: Any) -> Any:
        """As `View.read_with`; a synchronous cache brings the load that shall run."""
        if load is None:
            return await read_with(None, args, kwargs)

        async def brought() -> Any:
            with within():
                return await load()

        return await read_with(brought, args, kwargs)

    # The view's own methods stay as they are for whoever has no hooks: nothing is looked up, nothing is asked.
    vars(view).update(load=load_within, read_with=read_within)

    def undo() -> None:
        vars(view).update(load=load, read_with=read_with)

    return undo


def _copied(stats: ViewStats) -> ViewStats:
    return ViewStats(**{field: getattr(stats, field) for field in _COUNTERS})
