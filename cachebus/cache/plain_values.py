"""Plain values of a cache: read and written under a key by whoever has it, without a view."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from enum import Enum
from functools import lru_cache, partial
from inspect import isawaitable
from typing import Any, TypeVar, overload

import msgspec

from cachebus.cache.call import MOST_NAMED, USUAL, AnyCodec, Call, CallKind, plain_name
from cachebus.cache.misses import Miss, Misses, birth
from cachebus.cache.policy import ViewPolicy
from cachebus.cache.reads.reader import Reader, read_and_store_nothing
from cachebus.cache.reads.watching import ReadWatcher, WatchedRead, show, watched
from cachebus.cache.settings import CacheSettings
from cachebus.cache.stats import ViewStats
from cachebus.cache.values.extensions import Codecs, SelfDescribing
from cachebus.cache.values.never import NeverCached
from cachebus.cache.values.plain_codec import PlainCodec
from cachebus.cache.view import P, demanded
from cachebus.clock import now_s
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.freshness.clock import Born, Clock, clock_of, parse_clock
from cachebus.freshness.ledger import Invalidation
from cachebus.freshness.rule import Freshness
from cachebus.freshness.scopes import checked_key_scope, names, scopes_of, scopes_to_invalidate
from cachebus.redis.keyspace import Names

T = TypeVar("T")
D = TypeVar("D")

MOST_KINDS = 256
"""Types and TTLs of plain values that are remembered."""
_MISSING = object()


class SetResult(Enum):
    """What became of a value. True where it was stored."""

    STORED = "stored"
    DROPPED = "dropped"
    """It was old by then: something newer is there, or an invalidation came after it was read."""

    def __bool__(self) -> bool:
        return self is SetResult.STORED


class PlainValues(ABC):
    """The half of `Cache` that reads and writes values by key. The other half connects, names and invalidates."""

    def __init__(self, never: NeverCached, codecs: Codecs | None = None) -> None:
        self.never = never
        """The names whose values are refused."""
        self.forms = SelfDescribing(codecs)
        """How values that no type describes are written; knows the application's codecs."""
        self._codecs: dict[Any, PlainCodec] = {}
        self._named = lru_cache(MOST_NAMED)(lambda key: plain_name(self.names, key))
        self._kinds: dict[tuple[Any, int], CallKind] = {}
        self._misses = Misses()
        self._plain_stats = ViewStats()
        self.watchers: tuple[ReadWatcher, ...] = ()
        """Who is told of each read of a plain value."""

    @overload
    async def get(self, key: str, default: Any = None) -> Any: ...

    @overload
    async def get(self, key: str, *, type: type[T]) -> T | None: ...

    @overload
    async def get(self, key: str, default: D, *, type: type[T]) -> T | D: ...

    async def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:  # noqa: A002 - msgspec's word for it
        """Return the value stored under *key*, or *default*. At most one round trip.

        type: return it as this, also what contains objects of your own classes; what is not of the type is a miss.
        A miss is remembered: a `set` of the key that follows counts as born now, so that a value read from the database
        in between does not outlive an invalidation that comes meanwhile (docs/howto/cache-aside.md).
        """
        reader = await self.connected()
        born, moment = reader.freshness.born, reader.freshness.moment()
        value = await self._find(reader, key, type)
        if value is not _MISSING:
            return value
        self._misses.missed(key, born, moment, now_s())
        return default

    @overload
    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...

    @overload
    async def get_many(self, keys: Iterable[str], *, type: type[T]) -> dict[str, T]: ...

    async def get_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Any]:  # noqa: A002
        """Return the values there are, by key. One round trip for all. type, misses: as in `get`."""
        reader = await self.connected()
        born, moment = reader.freshness.born, reader.freshness.moment()
        found = await self._find_many(reader, keys, type)
        if missing := [key for key, value in found.items() if value is _MISSING]:
            self._missed(len(missing))
            for key in missing:
                del found[key]
                self._misses.missed(key, born, moment, now_s())
        return found

    async def _find(self, reader: Reader, key: str, declared: Any) -> Any:
        """Return what *key* holds, `_MISSING` where that is nothing of the type."""
        call, began = self._plain_call(key, declared=declared), now_s()
        found = await reader.peek(call, demanded.get()) if self.enabled else None
        if self.watchers:
            show(self.watchers, [call], began)
        if found is None:
            self._missed(1)
            return _MISSING
        return _opened(call.kind.codec, key, found.value, found.payload)

    def _missed(self, reads: int) -> None:
        """Count plain reads that found nothing, or with the cache switched off did not look."""
        if self.enabled:
            self._plain_stats.misses += reads
        else:
            self._plain_stats.bypassed += reads

    async def _find_many(self, reader: Reader, keys: Iterable[str], declared: Any) -> dict[str, Any]:
        """Do the same with several: what memory cannot answer in one round trip, and no task, for all."""
        found: dict[str, Any] = dict.fromkeys(names(keys), _MISSING)
        demand, now, codec, memory = demanded.get(), now_s(), self._codec(declared), reader.memory
        here = memory.plain(found, now) if demand is USUAL and self.enabled else {}
        for key, held in here.items():
            shared = held.opened_by is codec
            found[key] = value = held.value if shared else _opened(codec, key, held.value, held.payload)
            if not shared and value is not _MISSING:
                memory.share(key, held, value, codec)
        self._plain_stats.l1_hits += len(here)
        if self.watchers:
            show(self.watchers, map(self._describing(None, (), declared), found), now)
        if len(here) < len(found) and self.enabled:
            calls = list(map(self._describing(None, (), declared), [key for key in found if key not in here]))
            for call, seen in zip(calls, await reader.peek_many(calls, demand), strict=True):
                if seen is not None:
                    found[call.key] = _opened(codec, call.key, seen.value, seen.payload)
        return found

    async def set(
        self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = (), born: str | None = None
    ) -> SetResult:
        """Store a value under *key*; other processes see it within milliseconds. Two round trips.

        After a miss of *key* in this context it is a fill: the value counts from the miss, and an invalidation since
        then wins. Without one it counts from the key's oldest miss of the last minute that nobody answered; only where
        there is none it is a write, as `write`. born: a `clock` known before the value was read; it says so outright.
        A value that follows this context's own miss and invalidation is kept, unless somebody else invalidated, too.

        Returns: STORED, or DROPPED (false) where the value was old by now. Raises: NotCacheable; nothing when Redis is
        unavailable: then this process alone keeps it.
        """
        reader = await self.connected()
        call = self._plain_call(key, ttl, names(tags))
        payload = self._codec(Any).encode(value)
        if not self.enabled:
            return SetResult.DROPPED
        miss = self._misses.answer(key, now_s()) if born is None else _said(key, born, reader.freshness)
        return await (self._fill(reader, call, payload, miss) if miss else self._write(reader, call, payload))

    async def write(self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> SetResult:
        """Store a value that is the newest there is, whoever reads or loads: a pushed price. Two round trips.

        The key is invalidated everywhere, and the value takes its place. Never do that with a value read earlier.
        Returns: STORED, or DROPPED where another write came at the same time. Raises: as `set`.
        """
        reader = await self.connected()
        call = self._plain_call(key, ttl, names(tags))
        payload = self._codec(Any).encode(value)
        return await self._write(reader, call, payload) if self.enabled else SetResult.DROPPED

    async def _write(self, reader: Reader, call: Call, payload: bytes) -> SetResult:
        clock = await self._send((checked_key_scope(call.key),))
        born = parse_clock(clock) or reader.freshness.born
        return self._counted(await reader.loader.write(call, payload, born, moment=reader.freshness.moment()))

    async def _fill(self, reader: Reader, call: Call, payload: bytes, miss: Miss) -> SetResult:
        born: Born | None = miss.born
        if own := self._misses.own(call.scopes, miss):
            clocks = await reader.clocks(call.scopes)
            born = birth(miss, call.scopes, clocks, own) if clocks is not None else None
        if born is None:
            return self._counted(stored=False)
        return self._counted(await reader.loader.write(call, payload, born, moment=miss.moment, notify=True))

    def _remember(self, scopes: Iterable[str], done: Invalidation) -> None:
        """Note an invalidation of this context's own: its own values may follow it."""
        clock = parse_clock(done.clock)
        if clock is not None and done.before:
            before = {scope: done.before[scope] for scope in scopes if scope in done.before}
            self._misses.invalidated(clock, before, now_s())

    def _counted(self, stored: bool) -> SetResult:
        self._plain_stats.dropped += not stored
        return SetResult.STORED if stored else SetResult.DROPPED

    async def clock(self) -> Clock:
        """Return the newest clock this process knows. No round trip once connected.

        For `set(…, born=clock)`: taken before a value is read, it keeps the value from outliving what comes meanwhile.
        """
        reader = await self.connected()
        return clock_of(reader.freshness.born)

    def delete(self, key: str) -> Coroutine[Any, Any, Clock]:
        """Make *key* unreadable everywhere. One round trip."""
        return self._invalidate((checked_key_scope(key),))

    async def get_or_load(
        self,
        key: str,
        load: Callable[[], Awaitable[T]],
        ttl: Duration | None = None,
        *,
        tags: Iterable[str] = (),
        type: Any = Any,  # noqa: A002
    ) -> T:
        """Return the value of *key*; where there is none, one caller in the cluster runs *load*. type: as in `get`."""
        load = _asynchronous(load)
        if not self.enabled:
            self._missed(1)
            return await load()
        reader = await self.connected()
        call, demand = self._plain_call(key, ttl, names(tags), type), demanded.get()
        read = partial(read_and_store_nothing, reader) if demand.serve_only else reader.read
        if self.watchers:
            seen = WatchedRead(None, (key,), {}, call)
            value: T = await watched(self.watchers, seen, load, partial(read, call, demand=demand))
        else:
            value = await read(call, load, demand)
        return value

    async def get_or_load_many(
        self,
        keys: Iterable[str],
        load: Callable[[list[str]], Awaitable[Mapping[str, T]]],
        ttl: Duration | None = None,
        *,
        tags: Iterable[str] = (),
        type: Any = Any,  # noqa: A002
    ) -> dict[str, T]:
        """Return values by key; what is missing comes from one call of *load* and is stored. Two round trips.

        Keys that *load* does not return are left out. type: as in `get`.
        """
        load = _asynchronous(load)
        reader = await self.connected()
        born, moment = reader.freshness.born, reader.freshness.moment()
        found = await self._find_many(reader, keys, type)
        missing = [key for key, value in found.items() if value is _MISSING]
        if missing:
            loaded = _by_key(await self._loaded(load, missing))
            calls = list(map(self._describing(ttl, names(tags), type), loaded))
            settled = [reader.loader.settle(call, loaded[call.key]) for call in calls]
            found.update((call.key, value) for call, (value, _) in zip(calls, settled, strict=True))
            if self.enabled and not demanded.get().serve_only:
                write = partial(reader.loader.write, born=born, moment=moment)
                pairs = zip(calls, settled, strict=True)
                await asyncio.gather(*[write(call, payload) for call, (_, payload) in pairs if payload is not None])
        return {key: value for key, value in found.items() if value is not _MISSING}

    async def _loaded(
        self, load: Callable[[list[str]], Awaitable[Mapping[str, T]]], missing: list[str]
    ) -> Mapping[str, T]:
        """Load several in one call, counted as a load of each."""
        if not self.enabled:
            self._missed(len(missing))
            return await load(missing)
        stats, began = self._plain_stats, now_s()
        try:
            loaded = await load(missing)
        except Exception:
            stats.load_errors += len(missing)
            raise
        stats.loads += len(missing)
        stats.load_ms += (now_s() - began) * 1000
        return loaded

    def _plain_call(
        self, key: str, ttl: Duration | None = None, tags: tuple[str, ...] = (), declared: Any = Any
    ) -> Call:
        return self._describing(ttl, tags, declared, key)(key)

    def _describing(
        self, ttl: Duration | None, tags: tuple[str, ...], declared: Any, key: str = ""
    ) -> Callable[[str], Call]:
        """Return what describes a read of each key; *key* for what is said of a wrong TTL."""
        if tags:
            scopes_to_invalidate(tags=tags)  # only checked
        ttl_ms = self.settings.default_ttl_ms if ttl is None else milliseconds(ttl, f"key {key!r}: ttl")
        kind = self._kind(declared, ttl_ms)

        def describe(key: str) -> Call:
            if type(key) is not str:
                checked_key_scope(key)  # what cannot be hashed cannot be looked up
            entry, scopes = self._named(key)
            return Call(key, entry, scopes_of(key, tags) if tags else scopes, tags, kind)

        return describe

    def _kind(self, declared: Any, ttl_ms: int) -> CallKind:
        kind = self._kinds.get((declared, ttl_ms))
        if kind is None:
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.clear()
            kind = CallKind(self._codec(declared), ViewPolicy(ttl_ms), self._plain_stats, plain=True)
            self._kinds[declared, ttl_ms] = kind
        return kind

    def _codec(self, declared: Any) -> PlainCodec:
        if declared not in self._codecs:
            self._codecs[declared] = PlainCodec(declared, "plain values", self.never, self.forms)
        return self._codecs[declared]

    # -- what the cache provides ------------------------------------------------------------------------------------

    reader: Reader | None

    @property
    @abstractmethod
    def settings(self) -> CacheSettings:
        """The settings in force."""

    @property
    @abstractmethod
    def enabled(self) -> bool:
        """Whether values are cached at all."""

    @property
    @abstractmethod
    def names(self) -> Names:
        """The names of what this deployment stores."""

    @abstractmethod
    async def connected(self) -> Reader:
        """Connect unless that is done; returns the reader."""

    @abstractmethod
    def _invalidate(self, scopes: tuple[str, ...]) -> Coroutine[Any, Any, Clock]: ...

    @abstractmethod
    async def _send(self, scopes: tuple[str, ...]) -> Clock: ...


def _by_key(loaded: Mapping[str, T]) -> Mapping[str, T]:
    answer: object = loaded
    if not isinstance(answer, Mapping):
        raise ConfigurationError(f"get_or_load_many: load returned {answer!r:.60}, not values by key")
    return loaded


def _said(key: str, born: str, freshness: Freshness) -> Miss:
    """Return the miss that `born=` stands for. A number this process has not seen counts as now, no clock as never."""
    given: object = born
    if not isinstance(given, str):
        raise ConfigurationError(f"set {key!r}: born={given!r} is no clock; write born=await cache.clock()")
    said = parse_clock(born) or Born(0, "")
    born_then = said._replace(number=min(said.number, freshness.seen))
    return Miss(key, born_then, freshness.moment(), now_s(), here=False)


def _opened(codec: AnyCodec, key: str, value: Any, payload: bytes | None) -> Any:
    """Return a value as its caller may keep it; `_MISSING` where it is not of the type."""
    try:
        return value if payload is None else codec.decode(payload)
    except msgspec.DecodeError:
        return _MISSING
    except ConfigurationError as untyped:
        raise ConfigurationError(f"key {key!r}: {untyped}") from None


def _asynchronous(load: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return *load* as one that says so where it is a plain function: only a call shows that, of a lambda too."""
    given: object = load
    if not callable(given):
        raise TypeError(f"load is a {type(load).__name__}, not a function: pass the function, without calling it")
    return partial(_awaitable, load)


def _awaitable(load: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
    answer: object = (awaitable := load(*args, **kwargs))
    if not isawaitable(answer):
        name = getattr(load, "__name__", "load")
        raise TypeError(
            f"load: {name} is a plain function, which blocks the event loop: make it `async def`, or run it in "
            "one with asyncio.to_thread"
        )
    return awaitable
