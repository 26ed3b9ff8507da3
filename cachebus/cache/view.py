"""A view: a function whose results are cached under a key template. A plain object at import time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from cachebus.cache.binding import RESERVED, Binding, unwrapped
from cachebus.cache.call import USUAL, Call, CallKind, Demand, Warmed, with_words
from cachebus.cache.host import ViewHost
from cachebus.cache.policy import Declaration, ViewPolicy
from cachebus.cache.reads.conditional import unconditional
from cachebus.cache.reads.reader import read_and_store_nothing
from cachebus.cache.reads.watching import ReadWatcher, WatchedRead, watched
from cachebus.cache.stats import ViewStats
from cachebus.cache.tiers.s3fifo import MOST_HITS, CachedValue
from cachebus.cache.values.plain_codec import codec_for, fingerprint_of
from cachebus.clock import now_s
from cachebus.durations import milliseconds
from cachebus.errors import ConfigurationError
from cachebus.freshness.clock import Clock
from cachebus.freshness.rule import TRUST_S
from cachebus.freshness.scopes import names, tag_scope
from cachebus.templates import stored_name, unmarked

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

demanded: ContextVar[Demand] = ContextVar("cachebus_demand", default=USUAL)
"""What reads in this context demand (`Cache.reading`, `Cache.loading_only`)."""

SAMPLE_HITS = 16
"""One of this many memory hits is noticed: for what is popular, and for the consistency sampler."""
SAMPLE_READS = 2
"""The same of reads that memory did not answer; each of them is a round trip anyway."""
CRITICAL_TTL_MS = 60_000
"""Whoever looks for what ends soon, within the last quarter of a TTL, must come by at least once in it."""


class View(Generic[P, R]):
    """A cached function. Call it like the function; `fresh_after=` and `strict=` may be added to any call.

    `await view(7)` answers from memory, from Redis, or from one load in the whole cluster. In a class it is a method.
    """

    def __init__(self, host: ViewHost, function: Callable[P, Awaitable[R]], declared: Declaration) -> None:
        what = declared.what
        function, self._of_class = unwrapped(function)
        declared.check(function)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigurationError(
                f"{what}: {function.__qualname__} yields its results one after the other, which cannot be cached; "
                "return a list"
            )
        self.name = declared.template
        """The key template: the name of this view in statistics and metrics."""
        self.function: Callable[P, Awaitable[R]] = function
        self.module = str(getattr(function, "__module__", ""))
        self.origin = f"{self.module}.{getattr(function, '__qualname__', self.name)}"
        """Where it is declared: module and function."""
        self.stats = ViewStats()
        self.host = host
        self._declared = declared
        self._policy: ViewPolicy | None = None
        self._known_kind: CallKind | None = None
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", self.name)
        self.__wrapped__ = function
        self._check_times()
        self.critical = declared.critical
        """Whether it is renewed ahead of its end for whoever reads it."""
        self.watchers: tuple[ReadWatcher, ...] = ()
        """Who is told of each of its reads."""
        self.sample_hits, self._sample_reads = (1, 1) if self.critical else (SAMPLE_HITS, SAMPLE_READS)
        self._reads = 0
        tags = declared.tags
        self._tags_of = tags if callable(tags) else None
        static = () if callable(tags) else declared.names_in("tags", tags)
        self.binding = Binding(what, function, self.name, static, declared.names_in("not_in_key", declared.not_in_key))
        """How arguments become names."""
        self.is_method = self.binding.bound
        """Whether its first argument is an object, which no other process has."""
        self.identity = self._identity(declared.identity)
        self.predicts = declared.predicts(self.identity, is_method=self.is_method)
        """Whether its calls may be loaded before they are made."""
        self.loading = 0
        """Loads of it under way in this process."""
        self._is_anonymous = self.binding.compiled("False" if self.identity is None else f"{self.identity} is None")
        self.codec = codec_for(self.binding.returns, what, host.never, host.forms)
        self.fingerprint = fingerprint_of(self.codec, declared.policy.version)
        """Of the type and the version of its results; part of what they are stored under."""
        self.key = cast("Callable[P, str]", self.binding.key)

    # -- reading ----------------------------------------------------------------------------------------------------

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(
        self, *args: Any, fresh_after: Clock | str | None, strict: bool = False, **kwargs: Any
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(self, *args: Any, strict: bool, **kwargs: Any) -> Coroutine[Any, Any, R]: ...
    async def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Return the value: from memory, from Redis, or from one load in the cluster.

        *fresh_after*: nothing older than this clock. *strict*: nothing older than the ledger knows now.
        Memory: no round trip. Redis: one, shared with other reads of this loop tick. Load and fill: two.
        Raises: what the loader raises; never anything because Redis is unavailable.
        """
        held = self.held(args, kwargs) if not kwargs or RESERVED.isdisjoint(kwargs) else None
        if held is None:
            return await self.read_with(None, args, kwargs)
        value = self.take(held)
        if not self.stats.l1_hits % self.sample_hits:
            self.notice(held, args, kwargs)
        if self.watchers:
            self.show_hit(held, args, kwargs)
        return value

    def held(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CachedValue | None:
        """Return what memory holds for a call, if it may be served as it is. Any thread; no round trip."""
        reader = self.host.reader
        if reader is None or demanded.get() is not USUAL:
            return None
        try:
            held = reader.memory.held.get(self.key(*args, **kwargs) if kwargs else self.key(*args))  # type: ignore[call-arg]
        except TypeError as wrong:
            raise self.binding.misfit(args, kwargs) or wrong from None
        freshness = reader.freshness
        # In time, in a process that hears of invalidations, and of none since it was last looked at.
        if held is None or (now := now_s()) >= held.early_at or now - freshness.heard_at > TRUST_S:
            return None
        return held if held.checked == freshness.version or freshness.holds(held) else None

    def take(self, held: CachedValue) -> R:
        """Return the value of a hit as this caller may keep it, and count it."""
        if held.hits < MOST_HITS:
            held.hits += 1
        self.stats.l1_hits += 1
        value: R = held.value if held.payload is None else self.codec.decode(held.payload)
        return value

    def answer(self, held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        """Return the value of a hit, as `take`, and tell who watches. Any thread."""
        value = self.take(held)
        if self.watchers:
            self.show_hit(held, args, kwargs)
        return value

    def notice(self, held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note of a hit, for what is popular and for the consistency sampler. In the loop's thread."""
        self.host.noticed(self, self._positional(args, kwargs), weight=self.sample_hits, held=None if kwargs else held)

    def show_hit(self, held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell who watches of a hit."""
        for watcher in self.watchers:
            watcher.hit(self, held, args, kwargs)

    async def read_with(
        self, load: Callable[[], Awaitable[R]] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> R:
        """Read through memory, Redis and the load; *load* replaces running the function here."""
        demand, load = demanded.get(), partial(self.observed, load, args, kwargs)
        if kwargs and not RESERVED.isdisjoint(kwargs):
            demand = with_words(demand, kwargs)
        try:
            if self._is_anonymous(*args, **kwargs) or demand.load_only or not self.host.enabled:
                return await self._bypass(load, demand)
            call = self._call(args, kwargs)
        except TypeError as wrong:
            raise self.binding.misfit(args, kwargs) or wrong from None
        reader = self.host.reader_here
        if reader is None or self.watchers or demand.serve_only:
            return await self._read_otherwise(WatchedRead(self, args, kwargs, call), load, demand)
        self._sample(args, kwargs)
        return cast("R", await reader.read(call, load, demand))

    async def _read_otherwise(self, seen: WatchedRead, load: Callable[[], Awaitable[R]], demand: Demand) -> R:
        """Read where the cache is not connected here yet, somebody watches, or nothing may be stored."""
        reader = await self.host.connected()
        self._sample(seen.args, seen.kwargs)
        if demand.serve_only:
            return cast("R", await read_and_store_nothing(reader, seen.call, load, demand))
        return cast("R", await watched(self.watchers, seen, load, partial(reader.read, seen.call, demand=demand)))

    async def _bypass(self, load: Callable[[], Awaitable[R]], demand: Demand) -> R:
        """Load for this caller alone, and store nothing."""
        self.stats.direct += demand.load_only
        self.stats.bypassed += not demand.load_only
        with unconditional():
            return await load()

    async def load(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function itself, uncached."""
        with unconditional():
            return await self.observed(None, args, kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Invalidate and load now; returns the new value. Three round trips. Safe to repeat."""
        clock = await self.invalidate(*args, **kwargs)
        return await self.read_with(None, args, {**kwargs, "fresh_after": clock})

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Clock:
        """Make this entry unreadable everywhere; returns the clock to pass on as `fresh_after`. One round trip."""
        return await self.host.invalidate(keys=unmarked(self.key(*args, **kwargs)))

    async def warm(self, *args: P.args, **kwargs: P.kwargs) -> Warmed:
        """See to it that a valid entry with a good part of its TTL left exists; load it here unless another does."""
        return await self.warm_with(partial(self.observed, None, args, kwargs), args, kwargs)

    async def warm_with(
        self, load: Callable[[], Awaitable[R]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Warmed:
        """Do the same with *load* in the place of the function."""
        reader = await self.host.connected()
        if demanded.get().serve_only:
            return Warmed(reader.freshness.born, loaded=False)
        value = await reader.warm(self._call(args, kwargs), load, demanded.get())
        return Warmed(value.born, value.loaded)

    # -- naming -----------------------------------------------------------------------------------------------------

    key: Callable[P, str]
    """`view.key(7)` is the logical key of that call."""

    def tags(self, *args: P.args, **kwargs: P.kwargs) -> list[str]:
        """Return the tags of this call that are known before the load."""
        return list(self.binding.named(*args, **kwargs)[1])

    @property
    def tag_templates(self) -> list[str]:
        """The tags as declared."""
        return [tag.text for tag in self.binding.tag_templates]

    def encode_arguments(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """Return the arguments as JSON, to be loaded by another process. Raises: TypeError."""
        return self.binding.encoded(*args, **kwargs)

    def decode_arguments(self, encoded: bytes) -> tuple[Any, ...]:
        """Return arguments for a call, converted to the declared types. Raises: msgspec.ValidationError."""
        return self.binding.decoded(encoded)

    @property
    def policy(self) -> ViewPolicy:
        """How long its values live. A view without a TTL has that of the settings, which are read at first use."""
        if self._policy is None:  # no cached_property: an instance whose __dict__ was touched is a tenth slower to read
            self._policy = self._declared.policy_of(self.host.default_ttl)
        return self._policy

    # -- in a class -------------------------------------------------------------------------------------------------

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self: View[Concatenate[S, Q], R], instance: S, owner: type | None = None) -> BoundView[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return the view of one object's method (or of a class's, under `@classmethod`), as a function does it."""
        if self._of_class:
            return BoundView(self, owner)
        return BoundView(self, instance) if self.binding.bound and instance is not None else self

    def __repr__(self) -> str:
        return f"<view {self.name!r}>"

    # -- inside -----------------------------------------------------------------------------------------------------

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, seen by no observer. A plain function runs in a thread."""
        if inspect.iscoroutinefunction(self.function):
            return await self.function(*args, **kwargs)
        result: Any = await asyncio.to_thread(self.function, *args, **kwargs)
        return cast("R", await result if inspect.isawaitable(result) else result)

    async def observed(
        self, load: Callable[[], Awaitable[R]] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> R:
        """Run *load*, or else the function, within what the cache's observers ask for."""
        self.loading += 1
        try:
            with ExitStack() as within:
                for observer in self.host.observers:
                    within.enter_context(observer.loading(self.name))
                return await (self.run(*args, **kwargs) if load is None else load())
        finally:
            self.loading -= 1

    def _sample(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note of some of the reads that memory did not answer. In the loop's thread."""
        self._reads += 1
        if not self._reads % self._sample_reads:
            self.host.noticed(self, self._positional(args, kwargs), weight=self._sample_reads)

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments of a call, all of them by position where one was given by name."""
        return tuple(self.binding.arguments(*args, **kwargs).values()) if kwargs else args

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        key, tags, scopes = self.binding.named(*args, **kwargs)
        return Call(key, self.host.names.entry(stored_name(key), self.fingerprint), scopes, tags, self._kind)

    @property
    def _kind(self) -> CallKind:
        if self._known_kind is None:
            ttl_of = self._ttl_ms if callable(self._declared.ttl) else None
            tags_of = self._value_tags if self._tags_of is not None else None
            keep = self._declared.policy.keep
            self._known_kind = CallKind(
                self.codec, self.policy, self.stats, self.name, ttl_of=ttl_of, tags_of=tags_of, keep=keep
            )
        return self._known_kind

    def _ttl_ms(self, value: Any) -> int:
        assert callable(self._declared.ttl)  # noqa: S101 - asked only then
        return milliseconds(self._declared.ttl(value), f"{self._declared.what}: ttl of the value")

    def _value_tags(self, value: Any) -> tuple[str, ...]:
        assert self._tags_of is not None  # noqa: S101 - asked only then
        return tuple(tag_scope(tag)[2:] for tag in names(self._tags_of(value)))

    def _check_times(self) -> None:
        """Refuse what no TTL could make right; a view without one gets it from the settings later."""
        ttl_ms = self._declared.policy_of(default_ttl="5m").ttl_ms
        if self._declared.critical and ttl_ms < CRITICAL_TTL_MS:
            raise ConfigurationError(
                f"{self._declared.what}: critical needs a ttl of {CRITICAL_TTL_MS // 1000} s or more: "
                "it is looked at a few times a TTL"
            )

    def _identity(self, identity: str | None) -> str | None:
        fields = self.binding.template.fields
        if identity is None:
            return "user_id" if "user_id" in fields else None
        if identity not in fields:
            parameters = ", ".join(self.binding.signature.parameters) or "none"
            raise ConfigurationError(
                f"{self._declared.what}: identity {identity!r} is not in the key (parameters: {parameters})"
            )
        return identity


class BoundView(Generic[P, R]):
    """A view that is a method, of one object or class: everything a view does, with that one as first argument."""

    def __init__(self, view: View[..., R], owner: object) -> None:
        self.view = view
        self.name = view.name
        self.owner = owner

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(
        self, *args: Any, fresh_after: Clock | str | None, strict: bool = False, **kwargs: Any
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(self, *args: Any, strict: bool, **kwargs: Any) -> Coroutine[Any, Any, R]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, R]:
        """Return the value. See `View`."""
        return self.view(self.owner, *args, **kwargs)

    async def load(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the method itself, uncached."""
        return await self.view.load(self.owner, *args, **kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Invalidate and load now; returns the new value."""
        return await self.view.refresh(self.owner, *args, **kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Clock:
        """Make this entry unreadable everywhere."""
        return await self.view.invalidate(self.owner, *args, **kwargs)

    async def warm(self, *args: P.args, **kwargs: P.kwargs) -> Warmed:
        """See to it that a valid entry exists."""
        return await self.view.warm(self.owner, *args, **kwargs)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the logical key of this call."""
        return self.view.key(self.owner, *args, **kwargs)

    def tags(self, *args: P.args, **kwargs: P.kwargs) -> list[str]:
        """Return the tags of this call that are known before the load."""
        return self.view.tags(self.owner, *args, **kwargs)

    def encode_arguments(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """Raises: TypeError, always."""
        raise TypeError(
            f"view {self.name!r} is a method: its object cannot be sent to another process; "
            "refresh it here, or make it a function of what the object holds"
        )
