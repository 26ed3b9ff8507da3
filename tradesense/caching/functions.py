"""`cache_response` and `query_cache.cache_query`: decorators for plain and async functions alike.

One cached function is one `View`. A plain function is loaded in the caller's thread, an async one in the caller's
event loop and context, where its database session is; memory answers there too, and only the rest crosses to the
cache's own thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

import msgspec

from cachebus import Clock, ConfigurationError
from cachebus.durations import Duration
from cachebus.sync import SyncView
from cachebus.view import View
from tradesense.caching.manager import forget_misses
from tradesense.caching.plain import from_plain, to_plain
from tradesense.caching.shared import facade, portal

F = TypeVar("F", bound=Callable[..., Any])

OF_USER = ("user:{user_id}", "user:{user_id}:trades")
"""Whatever belongs to a user may be computed of trades: too wide costs a load, too narrow would be stale."""
OF_USERS_QUERIES = (*OF_USER, "user:{user_id}:queries")


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
        return _cached(function, key_prefix, ttl, OF_USER, (), tuple(not_in_key))

    return decorate


class QueryCache:
    """Results of database queries, by function and arguments."""

    def cache_query(self, ttl: Duration | None = None, *, not_in_key: Iterable[str] = ()) -> Callable[[F], F]:
        """Cache what a query returns under `query:[user_id:]module.function:arguments`.

        Rows and mapped objects come back as records that read like them (`plain.Record`), from the first call on, and
        belong to no session. A user's trades, analytics or settings becoming old makes that user's queries old; any
        trade makes old what belongs to no user. Otherwise as `cache_response`.
        """
        return lambda function: _cached(function, "query", ttl, OF_USERS_QUERIES, ("trades",), tuple(not_in_key))


query_cache = QueryCache()


def _cached(
    function: F,
    prefix: str,
    ttl: Duration | None,
    of_user: tuple[str, ...],
    of_nobody: tuple[str, ...],
    not_in_key: tuple[str, ...],
) -> F:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{function.__qualname__}: what it yields one after the other cannot be cached")
    signature, typed = _signature(function)
    user_aware = "user_id" in signature.parameters and "user_id" not in not_in_key
    words = [prefix, *(["{user_id}"] if user_aware else []), _name(function)]
    words += [f"{{{name}}}" for name in signature.parameters if name not in {*not_in_key, "user_id"}]
    template = ":".join(words)
    _make_room(template, function)
    stored = _storable(function, signature, typed)
    tags = of_user if user_aware else of_nobody
    lifetime = _default_ttl if ttl is None else ttl
    view = facade.cache.view(template, ttl=lifetime, tags=tags, not_in_key=not_in_key)(stored)
    back = _same if typed else from_plain
    read = _read_async if inspect.iscoroutinefunction(function) else _read_sync
    wrapper = wraps(function)(read(view, stored, back))
    wrapper.invalidate = _invalidating(view)  # type: ignore[attr-defined] # what a function may carry
    wrapper.key = view.key  # type: ignore[attr-defined]
    return cast("F", wrapper)


def _same(value: Any) -> Any:
    return value


def _invalidating(view: View[..., Any]) -> Callable[..., Clock]:
    def invalidate(*args: Any, **kwargs: Any) -> Clock:
        """Make this entry unreadable everywhere. Blocks for one round trip."""
        forget_misses()
        return facade.run(view.invalidate(*args, **kwargs))

    return invalidate


def _read_sync(view: View[..., Any], stored: Callable[..., Any], back: Callable[[Any], Any]) -> Callable[..., Any]:
    sync_view = SyncView(facade, view, stored)

    def read(*args: Any, **kwargs: Any) -> Any:
        return back(sync_view(*args, **kwargs))

    return read


def _read_async(view: View[..., Any], stored: Callable[..., Any], back: Callable[[Any], Any]) -> Callable[..., Any]:
    async def read(*args: Any, **kwargs: Any) -> Any:
        held = view.held(*args) if not kwargs else None
        if held is not None:
            return back(view.take(held))
        if portal.is_here():
            return back(await view.read_with(None, args, kwargs))
        errand = _Errand(lambda: stored(*args, **kwargs))
        return back(await asyncio.wrap_future(portal.submit(view.read_with(errand.load, args, kwargs))))

    return read


class _Errand:
    """A read from an event loop: if the load falls to it, it runs there.

    In its caller's context too: each step from loop to loop takes the context along.
    """

    def __init__(self, function: Callable[[], Awaitable[Any]]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> Any:
        """Have the caller's loop run the load. Runs in the cache's loop.

        Raises: what the function raises; RuntimeError when the loop is closed, TimeoutError when it no longer runs.
        """
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._begin, done)
        return await asyncio.wait_for(asyncio.wrap_future(done), facade.timeout_s)

    def _begin(self, done: concurrent.futures.Future[Any]) -> None:
        self._task = self._loop.create_task(self._run(done))

    async def _run(self, done: concurrent.futures.Future[Any]) -> None:
        try:
            value = await self._function()
        except BaseException as failed:  # whoever else waits for it must not be cancelled with it
            if not done.cancelled():
                done.set_exception(
                    failed if isinstance(failed, Exception) else RuntimeError(f"the load was ended by {failed!r}")
                )
            if not isinstance(failed, Exception):
                raise
        else:
            if not done.cancelled():
                done.set_result(value)


def _name(function: Callable[..., Any]) -> str:
    """Return what tells *function* from all others, also from those of other programs, each of which is `__main__`."""
    module = function.__module__
    return f"{Path(function.__code__.co_filename).stem if module == '__main__' else module}.{function.__qualname__}"


def _default_ttl(_value: object) -> Duration:
    return facade.cache.settings.default_ttl_ms / 1000


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
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def stored(*args: Any, **kwargs: Any) -> Any:
            value = await function(*args, **kwargs)
            return value if typed else to_plain(value)

    else:

        @wraps(function)
        def stored(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            return value if typed else to_plain(value)

    stored.__signature__ = signature  # type: ignore[attr-defined] # where inspect looks first
    return stored
