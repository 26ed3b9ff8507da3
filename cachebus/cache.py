"""The cache people hold: views, plain values, invalidation. Connects when first used, or as a lifespan."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Self, TypeVar

from cachebus.call import Call, Demand, Value
from cachebus.codec import Codec
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.history import Observed
from cachebus.keys import EVERYTHING, checked_key_scope, glob_scope, scopes_of, scopes_to_invalidate, stored_name
from cachebus.ledger import Clock
from cachebus.link import Link, now_s
from cachebus.memory import Held, Memory
from cachebus.names import Names
from cachebus.policy import Policy, policy
from cachebus.reader import Reader
from cachebus.running import Running
from cachebus.settings import CacheSettings
from cachebus.stats import CacheStats, ViewStats
from cachebus.view import P, R, Tags, View, demanded

log = logging.getLogger("cachebus")
T = TypeVar("T")

_missed: ContextVar[tuple[Any, dict[str, int]]] = ContextVar("cachebus_missed", default=(None, {}))
"""Keys this task looked for in vain, and the newest clock it knew then: a `set` of one of them is a fill."""


class Cache:
    """Values in memory and in Redis that are never older than the last invalidation.

    `Cache("redis://…")`, `Cache.from_env()` or `Cache.memory()` connect to nothing. `async with cache:` connects and
    closes (an app's lifespan); without it the first use connects. Lives in one event loop at a time: used from a new
    loop, or after a fork, it connects anew.
    """

    def __init__(self, url: str | None = None, *, settings: CacheSettings | None = None) -> None:
        self._settings = settings or (CacheSettings(url=url) if url is not None else None)
        self.views: dict[str, View[Any, Any]] = {}
        """Every view declared on this cache, by name."""
        self.reader: Reader | None = None
        """The parts of this process, once connected."""
        self.observed = Observed()
        """What this process tells of itself beside its counters, for the live page."""
        self._names: Names | None = None
        self._running: Running | None = None
        self._connecting: asyncio.Lock | None = None
        self._plain = Codec(Any, "cache.set")
        self._plain_stats = ViewStats()

    @classmethod
    def from_env(cls) -> Cache:
        """Return a cache that reads its settings from the environment when it first connects."""
        return cls()

    @classmethod
    def memory(cls, **settings: Any) -> Cache:
        """Return a cache of this process alone: no server, the same rules. For tests and `REDIS_ENABLED=false`."""
        return cls(settings=CacheSettings(redis_enabled=False, **settings))

    # -- views ------------------------------------------------------------------------------------------------------

    def view(  # noqa: PLR0913 - what a decorator line may say
        self,
        template: str,
        *,
        ttl: Duration | Callable[[Any], Duration] | None = None,
        tags: Tags = (),
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        negative_ttl: Duration | None = None,
        serve_invalidated: Duration | None = None,
        settle: Duration | None = None,
        read_lag: Duration | None = None,
        soft_timeout: Duration | None = None,
        hard_timeout: Duration | None = None,
        sliding: bool = False,
        critical: bool = False,
        dictionary: bool = False,
        identity: str | None = None,
        not_in_key: Iterable[str] = (),
    ) -> Callable[[Callable[P, Awaitable[R]]], View[P, R]]:
        """Cache a function's results under *template*: words joined by ':', `{parameter}` for each parameter.

        ttl: how long a value is fresh (a function of the value, if it depends on it); `CACHE_DEFAULT_TTL` otherwise.
        tags: names that invalidate it, `{parameter}` allowed; or a function of the value.
        stale: afterwards it may be served this much longer while one caller renews it in the background.
        stale_if_error: the same, only when the load fails. negative_ttl: TTL of `None`.
        serve_invalidated: serve an invalidated value this long while it is renewed. settle: under a storm of
        invalidations, obey at most one per interval. read_lag: how far the replica the loader reads may be behind.
        soft_timeout / hard_timeout: give the caller an old value / TimeoutError after this; the load goes on.
        sliding: each read from Redis begins the TTL anew. critical: nobody shall ever wait for it; schedules renew what
        was read lately before it expires (`Warm.ahead`). dictionary: compress small values too, with a zstd dictionary
        trained of them, where that makes entries a tenth smaller. identity: the parameter that says whose value it is
        (default `user_id`); a call where it is None is not cached. not_in_key: parameters that do not shape the result.

        Raises: ConfigurationError naming the view and what cannot work.
        """
        what = f"view {template!r}"
        fixed = None if callable(ttl) else ttl
        rules = policy(
            what,
            ttl=fixed if fixed is not None else self._default_ttl(),
            stale=stale,
            stale_if_error=stale_if_error,
            negative_ttl=negative_ttl,
            serve_invalidated=serve_invalidated,
            settle=settle,
            read_lag=read_lag,
            soft_timeout=soft_timeout,
            hard_timeout=hard_timeout,
            sliding=sliding,
        )

        def decorate(function: Callable[P, Awaitable[R]]) -> View[P, R]:
            if template in self.views:
                raise ConfigurationError(f"{what}: another view has this key already")
            view = View(
                self,
                function,
                template,
                rules,
                tags=tags,
                ttl_of=ttl if callable(ttl) else None,
                critical=critical,
                dictionary=dictionary,
                identity=identity,
                not_in_key=not_in_key,
            )
            self.views[template] = view
            return view

        return decorate

    @contextlib.contextmanager
    def reading(self, *, fresh_after: int = 0, strict: bool = False) -> Iterator[None]:
        """Demand the same of every read in this block: nothing older than a clock, or nothing older than the ledger."""
        token = demanded.set(Demand(fresh_after, strict))
        try:
            yield
        finally:
            demanded.reset(token)

    @contextlib.contextmanager
    def loading_only(self) -> Iterator[None]:
        """Views in this block load and never serve: for code that runs before its own invalidation takes effect."""
        token = demanded.set(Demand(load_only=True))
        try:
            yield
        finally:
            demanded.reset(token)

    # -- invalidation -----------------------------------------------------------------------------------------------

    async def invalidate(
        self,
        *,
        keys: Iterable[str] = (),
        tags: Iterable[str] = (),
        prefix: str | None = None,
        pattern: str | None = None,
    ) -> Clock:
        """Make everything under these scopes unreadable in every process.

        Here: from the moment this returns. Elsewhere: after journal lag (milliseconds). One round trip, whatever the
        number of entries. Safe to repeat. A *pattern* is widened to its longest ':'-prefix (`keys.glob_scope`).

        Returns: the clock of this invalidation, to pass on as `fresh_after`.
        Raises: ConfigurationError for a bad name. Nothing when Redis is away: it holds here, is sent when Redis is
        back, and the clock says so (`queued`).
        """
        scopes = scopes_to_invalidate(keys=keys, tags=tags, prefixes=() if prefix is None else (prefix,))
        if pattern is not None:
            scopes = (*scopes, glob_scope(pattern))
        if not scopes:
            raise ConfigurationError("invalidate: name keys, tags, a prefix or a pattern")
        return await self._invalidate(scopes)

    async def clear(self) -> Clock:
        """Make every entry of this deployment unreadable, everywhere. One round trip."""
        return await self._invalidate((EVERYTHING,))

    async def _invalidate(self, scopes: tuple[str, ...]) -> Clock:
        await self.connected()
        running = self._running
        assert running is not None  # noqa: S101 - just connected
        if running.ledger is not None:
            return await running.ledger.invalidate(scopes)
        clock = Clock(max(running.freshness.seen + 1, int(now_s() * 1_000_000)))
        running.freshness.invalidated(scopes, clock)
        return clock

    # -- plain values -----------------------------------------------------------------------------------------------

    async def get(self, key: str, default: Any = None) -> Any:
        """Return the value stored under *key*, or *default*. At most one round trip.

        A miss is remembered in this task: a `set` of the key that follows counts as born now, so a value read from the
        database in between is not trusted beyond an invalidation that came meanwhile.
        """
        reader = await self.connected()
        known = reader.freshness.seen
        found = await reader.peek(self._plain_call(key)) if self.enabled else None
        if found is not None:
            return _own(found, self._plain)
        _remember_miss(key, known)
        return default

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values there are, by key. One round trip for all."""
        wanted = list(dict.fromkeys(keys))
        missing = object()
        values = await asyncio.gather(*[self.get(key, missing) for key in wanted])
        for key, value in zip(wanted, values, strict=True):
            if value is missing and self.reader is not None:
                _remember_miss(key, self.reader.freshness.seen)
        return {key: value for key, value in zip(wanted, values, strict=True) if value is not missing}

    async def set(
        self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = (), born: int | None = None
    ) -> None:
        """Store plain data (None, numbers, text, bytes, lists, dicts, times) under *key*.

        After a miss of *key* in this task, or with `born=` (a clock known before the value was read), this is a fill:
        it never outlives an invalidation that came since. Otherwise it is an authoritative write: the key is
        invalidated everywhere and this value takes its place; never do that with a value read earlier.
        Raises: NotCacheable. Nothing when Redis is away.
        """
        reader = await self.connected()
        call = self._plain_call(key, ttl, tuple(tags))
        payload = self._plain.encode(value)
        if not self.enabled:
            return
        clock = born if born is not None else _misses().pop(key, None)
        if clock is None:
            clock = await self._invalidate((checked_key_scope(key),))
        await reader.loader.write(call, payload, clock)

    async def delete(self, key: str) -> Clock:
        """Make *key* unreadable everywhere. One round trip."""
        return await self.invalidate(keys=(key,))

    async def get_or_load(
        self, key: str, load: Callable[[], Awaitable[T]], ttl: Duration | None = None, *, tags: Iterable[str] = ()
    ) -> T:
        """Return the value of *key*; where there is none, one caller in the cluster runs *load*."""
        if not self.enabled:
            return await load()
        reader = await self.connected()
        return await reader.read(self._plain_call(key, ttl, tuple(tags)), load, demanded.get())  # type: ignore[no-any-return]

    async def get_or_load_many(
        self,
        keys: Iterable[str],
        load: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        ttl: Duration | None = None,
        *,
        tags: Iterable[str] = (),
    ) -> dict[str, T]:
        """Return values by key; what is missing comes from one call of *load* and is stored. Two round trips.

        Keys that *load* does not return are left out.
        """
        wanted = list(dict.fromkeys(keys))
        reader = await self.connected()
        known = reader.freshness.seen
        found = await self.get_many(wanted) if self.enabled else {}
        missing = [key for key in wanted if key not in found]
        if missing:
            loaded = await load(missing)
            await asyncio.gather(*[self.set(k, v, ttl, tags=tags, born=known) for k, v in loaded.items()])
            found.update(loaded)
        return {key: found[key] for key in wanted if key in found}

    def _plain_call(self, key: str, ttl: Duration | None = None, tags: tuple[str, ...] = ()) -> Call:
        checked_key_scope(key)
        scopes_to_invalidate(tags=tags)
        ttl_ms = self.settings.default_ttl_ms if ttl is None else milliseconds(ttl, f"key {key!r}: ttl")
        stored = stored_name(key)
        return Call(
            key,
            self.names.entry(stored, self._plain.fingerprint),
            self.names.lease(stored, self._plain.fingerprint),
            scopes_of(key, tags),
            tags,
            self._plain,
            Policy(ttl_ms),
            self._plain_stats,
        )

    # -- life -------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> CacheSettings:
        """The settings in force; read from the environment at first use."""
        if self._settings is None:
            self._settings = CacheSettings.from_environment(os.environ)
        return self._settings

    @property
    def enabled(self) -> bool:
        """Whether values are cached at all (`CACHE_ENABLED`)."""
        return self.settings.enabled

    @property
    def names(self) -> Names:
        """The names of what this deployment stores."""
        if self._names is None:
            self._names = Names(self.settings.namespace)
        return self._names

    @property
    def link(self) -> Link:
        """The connections of this process. Raises: ConfigurationError before the first use, or without a server."""
        if self._running is None or self._running.link is None:
            raise ConfigurationError("the cache has no connection: enter `async with cache:` first, with Redis enabled")
        return self._running.link

    @property
    def reader_here(self) -> Reader | None:
        """The reader, where the cache is connected in this loop and this process."""
        running = self._running
        return running.reader if running is not None and running.is_here() else None

    async def connected(self) -> Reader:
        """Connect unless that is done, in this loop and this process; returns the reader."""
        reader = self.reader_here
        if reader is not None:
            return reader
        if self._connecting is None or self._running is not None:
            self._connecting, self._running, self.reader = asyncio.Lock(), None, None
        async with self._connecting:
            if self._running is None:
                self._running = await Running.start(self.settings)
                self._running.report(
                    self.stats, self.observed, lambda: {v.name: v.policy.ttl_ms for v in self.views.values()}
                )
                self.reader = self._running.reader
            return self._running.reader

    def noticed(self, view: View[Any, Any], args: tuple[Any, ...], *, weight: int, held: Held | None = None) -> None:
        """Take note of one read that stands for *weight* of its kind; *held* where memory answered it."""
        running = self._running
        if running is None:
            return
        if running.popularity is not None and args:
            running.popularity.note(view.name, partial(view.encode_arguments, *args), weight)
        if held is not None and running.sampler.wants(view.stats.l1_hits):
            running.sampler.check(view.key(*args), held, view.codec, view.stats, partial(view.load, *args))

    async def close(self) -> None:
        """Close every connection. Loads under way are cancelled. Idempotent."""
        running, self._running, self.reader, self._connecting = self._running, None, None, None
        if running is not None:
            await running.close()

    async def __aenter__(self) -> Self:
        await self.connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def stats(self) -> CacheStats:
        """Return what this process has counted since it started. No round trip."""
        running = self._running
        views = {name: view.stats for name, view in self.views.items()}
        if self._plain_stats.reads or self._plain_stats.bytes_stored:
            views["(plain keys)"] = self._plain_stats
        memory = running.reader.memory if running is not None else Memory(0)
        up = running is not None and running.link is not None and running.link.store.up
        lag = (
            (now_s() - running.freshness.heard_at) * 1000
            if running is not None and running.journal is not None
            else None
        )
        return CacheStats(
            views,
            len(memory),
            memory.bytes,
            memory.evictions,
            up,
            lag,
            running.journal.gaps if running is not None and running.journal is not None else 0,
            running.ledger.queued if running is not None and running.ledger is not None else 0,
        )

    def _default_ttl(self) -> Duration:
        return self._settings.default_ttl_ms / 1000 if self._settings is not None else 300


def _own(found: Value, codec: Codec) -> Any:
    return found.value if found.payload is None else codec.decode(found.payload)


def _misses() -> dict[str, int]:
    """Return this task's misses; a task started within another one has its own."""
    task, missed = _missed.get()
    if task is not asyncio.current_task():
        task, missed = asyncio.current_task(), {}
        _missed.set((task, missed))
    return missed


def _remember_miss(key: str, clock: int) -> None:
    missed = _misses()
    if len(missed) >= 100:
        missed.pop(next(iter(missed)))
    missed[key] = clock
