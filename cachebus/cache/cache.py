"""The cache people hold: views, plain values, invalidation. Connects when first used, or as a lifespan."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn, Self

from cachebus.cache.call import PLAIN, Demand, with_options
from cachebus.cache.clashes import refuse_shared_keys
from cachebus.cache.hooks import Observer
from cachebus.cache.plain_values import PlainValues
from cachebus.cache.policy import Declaration, Policy, Tags
from cachebus.cache.reads.reader import Reader
from cachebus.cache.runtime import Connecting, Runtime
from cachebus.cache.settings import CacheSettings
from cachebus.cache.stats import CacheStats, ViewStats
from cachebus.cache.tiers.s3fifo import CachedValue
from cachebus.cache.upkeep.reporter import Observed
from cachebus.cache.values.extensions import Codecs
from cachebus.cache.values.never import NeverCached
from cachebus.cache.view import P, R, View, demanded
from cachebus.clock import now_s
from cachebus.durations import Duration
from cachebus.errors import CannotStart, ConfigurationError, Unavailable
from cachebus.freshness.clock import Born, Clock, clock_of
from cachebus.freshness.ledger import Invalidation
from cachebus.freshness.scopes import EVERYTHING, glob_scope, scopes_to_invalidate
from cachebus.redis.client import Client, InProcess
from cachebus.redis.credentials import Provider
from cachebus.redis.keyspace import Names

log = logging.getLogger("cachebus")

ALONE = "REDIS_ENABLED=false: cache, bus, locks, limits, sessions, pub/sub work inside this process alone"


class Cache(PlainValues):
    """Values in memory and in Redis that are never older than the last invalidation.

    `Cache("redis://…")`, `Cache.from_env()` or `Cache.memory()` connect to nothing. `async with cache:` (a lifespan)
    connects and closes; without it the first use connects. From a new event loop, or after a fork, it connects again.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        credentials: Provider | None = None,
        settings: CacheSettings | None = None,
        never: Iterable[str] = (),
        codecs: Codecs | None = None,
    ) -> None:
        """Make a cache that connects later.

        credentials: an async function that returns (user, password, expires_at), for those that change: asked at each
        connect, and before they expire (`expires_at` in seconds of the epoch, or None).
        never: names of fields that are refused wherever they are met, beside credentials; `-token` allows one again,
        `-*` all of them. `NEVER_CACHE` adds to it. codecs: `{Money: (to_plain, from_plain)}` (docs/reference/types.md).
        """
        self._settings = settings or CacheSettings.written(url, credentials)
        self.views: dict[str, View[Any, Any]] = {}
        """Every view declared on this cache, by name."""
        self.reader: Reader | None = None
        """The parts of this process, once connected."""
        self.observed = Observed(self.views)
        """What this process tells of itself beside its counters, for the live page."""
        self.observers: tuple[Observer, ...] = ()
        """Who is told of loads and invalidations while they happen."""
        self._running: Runtime | None = None
        self._connecting: Connecting | None = None
        self._names: Names | None = None
        super().__init__(NeverCached(never), codecs)
        if self._settings is not None:
            self.never.amend(self._settings.never or ())

    @classmethod
    def from_env(cls, *, never: Iterable[str] = (), codecs: Codecs | None = None) -> Cache:
        """Return a cache that reads its settings from the environment when it first connects. The rest: as `Cache`."""
        return cls(never=never, codecs=codecs)

    @classmethod
    def memory(cls, *, never: Iterable[str] = (), codecs: Codecs | None = None, **settings: Any) -> Cache:
        """Return a cache of this process alone: no server, the same rules. For tests and `REDIS_ENABLED=false`."""
        return cls(settings=CacheSettings(redis_enabled=False, **settings), never=never, codecs=codecs)

    # -- views ------------------------------------------------------------------------------------------------------

    def view(  # noqa: PLR0913 - what a decorator line may say
        self,
        template: str,
        *,
        ttl: Duration | Callable[[Any], Duration] | None = None,
        tags: Tags = (),
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        identity: str | None = None,
        not_in_key: str | Iterable[str] = (),
        critical: bool = False,
        policy: Policy | None = None,
    ) -> Callable[[Callable[P, Awaitable[R]]], View[P, R]]:
        """Cache a function's results under *template*: words joined by ':', `{parameter}` for each parameter.

        ttl: how long a value is fresh (a function of the value, if it depends on it); `CACHE_DEFAULT_TTL` otherwise.
        tags: names that invalidate it, `{parameter}` allowed; or a function of the value.
        stale: afterwards it may be served this much longer while one caller renews it in the background.
        stale_if_error: the same, only when the load fails. identity: the parameter that says whose value it is (default
        `user_id`); a call where it is None is not cached. not_in_key: parameters that do not shape the result.
        critical: nobody shall ever wait for it; schedules renew what was read lately before it expires (`Warm.ahead`).
        policy: the rarer options (`Policy`).

        Raises: ConfigurationError naming the view and what cannot work.
        """
        if callable(template):
            name = getattr(template, "__name__", "function")
            raise ConfigurationError(
                f'@cache.view above {name}() needs a key: write @cache.view("{name}:{{parameter}}", ttl="5m")'
            )
        declared = Declaration(
            template=template,
            ttl=ttl,
            tags=tags,
            stale=stale,
            stale_if_error=stale_if_error,
            identity=identity,
            not_in_key=not_in_key,
            critical=critical,
            policy=policy or Policy(),
        )

        def decorate(function: Callable[P, Awaitable[R]]) -> View[P, R]:
            view = View(self, function, declared)
            refuse_shared_keys(view, self.views)
            self.views[template] = view
            if self._running is not None and self._running.is_here():
                self._running.predict(self.views)
            return view

        return decorate

    @contextlib.contextmanager
    def reading(self, *, fresh_after: str = "", strict: bool = False) -> Iterator[None]:
        """Demand the same of every read in this block: nothing older than a clock, or nothing older than the ledger."""
        token = demanded.set(with_options(demanded.get(), fresh_after, strict))
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

    @contextlib.contextmanager
    def observed_by(self, observer: Observer) -> Iterator[None]:
        """Have *observer* called while this block runs. Several may be at once, and end in any order."""
        self.observers = (*self.observers, observer)
        try:
            yield
        finally:
            at = self.observers.index(observer)
            self.observers = self.observers[:at] + self.observers[at + 1 :]

    # -- invalidation -----------------------------------------------------------------------------------------------

    def invalidate(
        self,
        *,
        keys: str | Iterable[str] = (),
        tags: str | Iterable[str] = (),
        prefix: str | None = None,
        pattern: str | None = None,
    ) -> Coroutine[Any, Any, Clock]:
        """Make everything under these scopes unreadable in every process.

        Here: from the moment this returns. Elsewhere: after journal lag (milliseconds). One round trip, whatever the
        number of entries. Safe to repeat. A *pattern* is widened to its longest ':'-prefix (`keys.glob_scope`).

        Returns: the clock of this invalidation, to pass on as `fresh_after`. Raises: ConfigurationError for a bad name;
        nothing while Redis is unavailable: it holds here, is sent when Redis is back, the clock says so (`is_queued`).
        """
        scopes = scopes_to_invalidate(keys=keys, tags=tags, prefixes=() if prefix is None else (prefix,))
        if pattern is not None:
            scopes = (*scopes, glob_scope(pattern))
        if not scopes:
            raise ConfigurationError("invalidate: name keys, tags, a prefix or a pattern")
        return self._invalidate(scopes)

    def clear(self) -> Coroutine[Any, Any, Clock]:
        """Make every entry of this deployment unreadable, everywhere. One round trip."""
        return self._invalidate((EVERYTHING,))

    def _invalidate(self, scopes: tuple[str, ...]) -> Coroutine[Any, Any, Clock]:
        for observer in self.observers:
            observer.invalidating()
        return self._send(scopes)

    async def _send(self, scopes: tuple[str, ...]) -> Clock:
        self.observed.invalidated(scopes)
        await self.connected()
        running = self._running
        assert running is not None  # noqa: S101 - just connected
        if running.ledger is not None:
            done = await running.ledger.take_over(scopes)
        else:
            number = max(running.freshness.seen + 1, int(now_s() * 1_000_000))
            before = {scope: running.freshness.latest((scope,)) for scope in scopes}
            running.freshness.invalidated(scopes, number)
            done = Invalidation(clock_of(Born(number, running.freshness.era)), before)
        self._remember(scopes, done)
        return done.clock

    # -- life -------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> CacheSettings:
        """The settings in force; read from the environment at first use."""
        return self._settings or self.configure(CacheSettings.of_this_process())

    def configure(self, settings: CacheSettings) -> CacheSettings:
        """Give a cache that has none the settings of its application. Raises: ConfigurationError where it has some."""
        if self._settings is not None:
            raise ConfigurationError("cache: it has its settings already; configure it before it is used, once")
        if not settings.redis_enabled:
            log.warning(ALONE)
        self._settings = settings
        self.never.amend(settings.never or ())
        return settings

    @property
    def enabled(self) -> bool:
        """Whether values are cached at all (`CACHE_ENABLED`)."""
        return self.settings.enabled

    @property
    def names(self) -> Names:
        """The names of what this deployment stores."""
        self._names = self._names or Names(self.settings.namespace)  # pyright: no Connector has a cached_property
        return self._names

    @property
    def client(self) -> Client:
        """The connections of this process. Raises: ConfigurationError before the first use, or without a server."""
        if self._running is None or self._running.client is None:
            raise ConfigurationError("the cache has no connection: enter `async with cache:` first, with Redis enabled")
        return self._running.client

    async def connection(self) -> Client | None:
        """Connect unless that is done; returns the client, None where this process works alone, without a server."""
        await self.connected()
        return self._running.client if self._running is not None else None

    @property
    def in_process(self) -> InProcess:
        """What bus, locks, limits, sessions and pub/sub share in a process without a server. Begins empty."""
        if self._running is None:
            raise ConfigurationError("the cache is not connected: use it, or enter `async with cache:`, first")
        return self._running.in_process

    @property
    def reader_here(self) -> Reader | None:
        """The reader, where the cache is connected in this loop and this process."""
        running = self._running
        return running.reader if running is not None and running.is_here() else None

    async def connected(self) -> Reader:
        """Connect unless done, in this loop and process; returns the reader. Raises: RuntimeError in a second loop."""
        if (reader := self.reader_here) is not None:
            return reader
        if self._connecting is not None:
            self._connecting.refuse_others()
        if self._connecting is None or self._running is not None or not self._connecting.is_here():
            self._connecting, self._running, self.reader = Connecting(), None, None
        async with (connecting := self._connecting):
            if self._running is None:
                running = await Runtime.start(self.settings)
                if self._connecting is not connecting:
                    await running.close()
                    raise Unavailable("the cache was closed while it connected")
                running.report(self.stats, self.observed, self.views, self)
                running.predict(self.views)
                self._running, self.reader = running, running.reader
            return self._running.reader

    def noticed(
        self, view: View[Any, Any], args: tuple[Any, ...], *, weight: int, held: CachedValue | None = None
    ) -> None:
        """Take note of one read that stands for *weight* of its kind; *held* where memory answered it."""
        if (running := self._running) is None:
            return
        if args and not view.is_method:
            running.popularity.note(view.name, partial(view.encode_arguments, *args), weight)
        if held is not None:
            running.sampler.noticed(view, args, held, self.observers)

    async def close(self) -> None:
        """Close every connection. Idempotent. Loads under way are cancelled: who waits for one gets `Unavailable`."""
        running, self._running, self.reader, self._connecting = self._running, None, None, None
        if running is not None:
            await running.close()

    async def __aenter__(self) -> Self:
        """Connect. Raises: CannotStart where the server denies access; nothing where it is unavailable."""
        await self.connected()
        if self._running is not None and (problems := await self._running.refused()):
            await self.close()
            raise CannotStart(problems)
        return self

    def __enter__(self) -> NoReturn:
        raise TypeError("a cachebus.Cache is entered with `async with`; code without a loop uses cachebus.sync.Cache")

    def __exit__(self, *_: object) -> None:
        """Exist, so that `with` reaches `__enter__` and its message."""

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def stats(self) -> CacheStats:
        """Return what this process has counted since it started. No round trip."""
        self.observed.invalidations()  # brings what views say of theirs up to date
        views = {name: view.stats for name, view in self.views.items()}
        if self._plain_stats != ViewStats():
            views[PLAIN] = self._plain_stats
        return CacheStats(views) if self._running is None else self._running.stats(views)

    @property
    def default_ttl(self) -> Duration:
        """The TTL of a view that names none."""
        return self.settings.default_ttl_ms / 1000
