"""The core cache manager: values by key, cached functions and queries, and what makes them old.

One synchronous cache answers threads and event loops alike, so what one of them invalidates is gone for all of them
when the call returns. A plain function is loaded in the caller's thread, an async one in the caller's loop and context,
where its database session is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

import msgspec

from cachebus import Cache, Clock, ConfigurationError, sync
from cachebus.cache.plain_values import SetResult
from cachebus.durations import Duration
from cachebus.sync.crossing import OpenPortal, read
from cachebus.templates import escape
from tradesense.core.records import from_plain, to_plain
from tradesense.never import NEVER_CACHED

F = TypeVar("F", bound=Callable[..., Any])

OF_USER = ("user:{user_id}", "user:{user_id}:trades")
"""Whatever belongs to a user may be computed of trades: too wide costs a load, too narrow would be stale."""
OF_USERS_QUERIES = (*OF_USER, "user:{user_id}:queries")
_MISSING = object()

facade = sync.Cache(Cache.from_env(never=NEVER_CACHED), portal=OpenPortal())
"""The cache behind every name of the strategy."""


# -- values by key ----------------------------------------------------------------------------------------------------


class CacheManager:
    """Get, set and delete values under keys of the caller's choice. Every call blocks for at most one round trip."""

    def __init__(self) -> None:
        self._misses = 0

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under *key*, or *default*.

        A miss is remembered: what the same thread or task sets under the key next counts as read now, and does not
        outlive an invalidation that comes in between.
        """
        value = facade.get(key, _MISSING)
        if value is _MISSING:
            self._misses += 1
            return default
        return from_plain(value)

    def set(self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> SetResult:
        """Store *value* for *ttl* (`CACHE_DEFAULT_TTL` otherwise): the newest there is, or after a miss what was read.

        Rows, decimals, dates and tuples come back as such. Returns: STORED or DROPPED, as `Cache.set`. Raises:
        NotCacheable.
        """
        return facade.set(key, to_plain(value), ttl, tags=tags)

    def delete(self, key: str) -> Clock:
        """Make *key* unreadable everywhere."""
        return facade.delete(key)

    def clear(self) -> Clock:
        """Make everything cached by this deployment unreadable, everywhere. Sessions, limits and locks stay."""
        return facade.clear()

    def get_stats(self) -> dict[str, Any]:
        """Return what this process has counted. No round trip.

        `hits`, `misses`, `hit_rate` (0.0 to 1.0), `entries` and `bytes` in memory, `evictions`, `connected`, `backend`
        ("redis", or "memory" where Redis is off or unavailable), and `views`: the same by cached function.
        """
        stats = facade.stats()
        hits, misses = stats.totals.l1_hits + stats.totals.l2_hits, stats.totals.loads + self._misses
        return {
            **stats.as_dict(),
            "backend": "redis" if stats.up else "memory",
            "connected": stats.up,
            "enabled": facade.enabled,
            "hits": hits,
            "misses": misses,
            "hit_rate": round(hits / (hits + misses), 4) if hits + misses else 0.0,
        }


cache_manager = CacheManager()


# -- cached functions and queries -------------------------------------------------------------------------------------


def cache_response(
    ttl: Duration | None = None,
    key_prefix: str = "response",
    user_aware: bool = False,
    *,
    not_in_key: Iterable[str] = (),
) -> Callable[[F], F]:
    """Cache what a function returns, plain or async, under `key_prefix:[user_id:]module.function:arguments`.

    *user_aware* demands a parameter `user_id`: no response of one user can ever reach another. A call where it is None
    is not cached. Every parameter is part of the key; one that does not shape the result (a database session) is named
    in *not_in_key*. Without *ttl* it is `CACHE_DEFAULT_TTL`.

    The result gains `.invalidate(*args)`, which makes this entry unreadable everywhere, and `.key(*args)`.
    Raises: ConfigurationError at decoration for what cannot work.
    """

    def decorate(function: F) -> F:
        if user_aware and "user_id" not in inspect.signature(function).parameters:
            raise ConfigurationError(
                f"cache_response: user_aware=True needs a parameter 'user_id'; {function.__qualname__} has none"
            )
        return _cached(function, key_prefix, ttl, (OF_USER, ()), tuple(not_in_key))

    return decorate


class QueryCache:
    """Results of database queries, by function and arguments."""

    def cache_query(self, ttl: Duration | None = None, *, not_in_key: Iterable[str] = ()) -> Callable[[F], F]:
        """Cache what a query returns under `query:[user_id:]module.function:arguments`.

        Rows and mapped objects come back as records that read like them (`records.Record`), from the first call on, and
        belong to no session. A user's trades, analytics or settings becoming old makes that user's queries old; any
        trade makes old what belongs to no user. Otherwise as `cache_response`.
        """
        return lambda function: _cached(function, "query", ttl, (OF_USERS_QUERIES, ("trades",)), tuple(not_in_key))


query_cache = QueryCache()


def _cached(
    function: F,
    prefix: str,
    ttl: Duration | None,
    tags: tuple[tuple[str, ...], tuple[str, ...]],
    not_in_key: tuple[str, ...],
) -> F:
    """Make a view of *function*; *tags* are those of a user's results, and of results that belong to nobody."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{function.__qualname__}: what it yields one after the other cannot be cached")
    signature, typed = _signature(function)
    user_aware = "user_id" in signature.parameters and "user_id" not in not_in_key
    words = [prefix, *(["{user_id}"] if user_aware else []), _name(function)]
    words += [f"{{{name}}}" for name in signature.parameters if name not in {*not_in_key, "user_id"}]
    template = ":".join(words)
    _make_room(template, function)
    stored = _storable(function, signature, typed)
    lifetime = _default_ttl if ttl is None else ttl
    decorated = facade.cache.view(template, ttl=lifetime, tags=tags[not user_aware], not_in_key=not_in_key)
    view, back = decorated(stored), _same if typed else from_plain
    call: Callable[..., Any]
    if inspect.iscoroutinefunction(function):
        awaited = partial(read, facade, view)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return back(await awaited(*args, **kwargs))

    else:
        plain = facade.decorator(lambda _: view)(stored)

        def call(*args: Any, **kwargs: Any) -> Any:
            return back(plain(*args, **kwargs))

    wrapper = wraps(function)(call)
    wrapper.invalidate = lambda *args, **kwargs: facade.run(view.invalidate(*args, **kwargs))  # type: ignore[attr-defined] # what a function may carry
    wrapper.key = view.key  # type: ignore[attr-defined]
    return cast("F", wrapper)


def _same(value: Any) -> Any:
    return value


def _name(function: Callable[..., Any]) -> str:
    """Return what tells *function* from all others, also from those of other programs, each of which is `__main__`."""
    module = function.__module__
    return f"{Path(function.__code__.co_filename).stem if module == '__main__' else module}.{function.__qualname__}"


def _default_ttl(_value: object) -> Duration:
    return facade.settings.default_ttl_ms / 1000


def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, bool]:
    """Return the signature, and whether values of its return type come back as that type by themselves."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that only a type checker can see
        signature = inspect.signature(function).replace(return_annotation=Any)
    declared = signature.return_annotation
    if _is_precise(declared):
        with suppress(TypeError):  # rows, for instance
            msgspec.json.schema(declared)
            return signature, True
    return signature.replace(return_annotation=Any), False


def _is_precise(declared: Any) -> bool:
    """Whether a type says what its values are made of: `list[Trade]` does, `list` and `list[Any]` do not."""
    if declared in (inspect.Signature.empty, Any, object, list, dict, tuple, set, frozenset):
        return False
    return all(
        _is_precise(part) for part in get_args(declared) if isinstance(part, type) or get_origin(part) or part is Any
    )


def _make_room(template: str, function: Callable[..., Any]) -> None:
    """Let a function be defined again, as a reload does; never let two that differ share their values."""
    if template in facade.cache.views:
        if function.__closure__:
            raise ConfigurationError(
                f"{function.__qualname__} is cached already and uses variables around it, which are not in the key: "
                "make them parameters"
            )
        del facade.cache.views[template]


def _storable(function: Callable[..., Any], signature: inspect.Signature, typed: bool) -> Callable[..., Any]:
    """Return *function* with results that can be stored."""
    stored: Callable[..., Any]
    if inspect.iscoroutinefunction(function):

        async def stored(*args: Any, **kwargs: Any) -> Any:
            value = await function(*args, **kwargs)
            return value if typed else to_plain(value)

    else:

        def stored(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            return value if typed else to_plain(value)

    stored = wraps(function)(stored)
    stored.__signature__ = signature  # type: ignore[attr-defined] # where inspect looks first
    return stored


# -- what makes entries old: one round trip each, whatever their number -----------------------------------------------


def invalidate_cache_pattern(pattern: str) -> Clock:
    """Make every entry whose key matches *pattern* unreadable everywhere: at once here, in milliseconds elsewhere.

    `market:*` is exact. With a wildcard further left it is widened to the words before it: more is loaded again than
    necessary, and nothing old is served. Returns the clock to pass on as `fresh_after`.
    """
    return facade.invalidate(pattern=pattern)


def invalidate_trades_cache(user_id: int | str) -> Clock:
    """After a change of the user's trades: everything that may be computed of them, and sums over all trades."""
    return facade.invalidate(tags=(f"user:{user_id}:trades", "trades"))


def invalidate_analytics_cache(user_id: int | str) -> Clock:
    """Make the user's analytics unreadable, and the user's queries."""
    return invalidate_user_cache(user_id, "analytics")


def invalidate_user_cache(user_id: int | str, cache_type: str | None = None) -> Clock:
    """Make the user's entries of one type unreadable, and the user's queries; without a type, all the user has.

    A type is what keys begin with: `cache_response(key_prefix="settings")`, or `settings:7`. It is also the tag
    `user:7:settings`, and the key of that name.
    """
    if cache_type is None:
        return facade.invalidate(tags=(f"user:{user_id}",), prefix=f"user:{escape(user_id)}:")
    key, name = f"{cache_type}:{escape(user_id)}", f"user:{user_id}:{cache_type}"
    return facade.invalidate(keys=(key, name), tags=(name, f"user:{user_id}:queries"), prefix=f"{key}:")


def close() -> None:
    """Close every connection; the next call connects again. For the end of a program, and for tests."""
    facade.close()
