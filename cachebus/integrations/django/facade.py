"""The caches of a Django project: one in a process for each place in `CACHES`, whichever threads and aliases ask."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar, get_type_hints

import msgspec
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections, connections
from django.utils.safestring import SafeString

from cachebus.cache.cache import Cache as AsyncCache
from cachebus.cache.settings import CacheSettings
from cachebus.cache.values.extensions import Codecs
from cachebus.cache.view import View as AsyncView
from cachebus.cache.view import demanded
from cachebus.errors import ConfigurationError
from cachebus.sync.cache import Cache as SyncCache
from cachebus.sync.portal import Portal
from cachebus.sync.view import View

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CODECS: Codecs = {SafeString: (str.__str__, SafeString)}
"""What a template rendered is still safe when it comes back."""
_made: dict[str, DjangoCache] = {}
_making = threading.Lock()


class _TransactionPortal(Portal):
    """Has reads inside a transaction serve what there is and store nothing: their loads see what is not committed."""

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run *coroutine* in the loop thread. See `Portal.submit`."""
        if not _in_transaction():
            return super().submit(coroutine)
        token = demanded.set(demanded.get()._replace(serve_only=True))
        try:
            return super().submit(coroutine)
        finally:
            demanded.reset(token)


def _in_transaction() -> bool:
    """Return whether any database of this thread has a transaction open; one that was never used has none."""
    return any(
        each.connection is not None and (each.in_atomic_block or not each.autocommit)
        for each in connections.all(initialized_only=True)
    )


class DjangoCache(SyncCache):
    """A `cachebus.sync.Cache` whose loads in a worker's threads keep no database connection that has ended.

    Inside a transaction its views serve what is cached, and store nothing of what they load.
    """

    def __init__(self, cache: AsyncCache) -> None:
        super().__init__(cache, portal=_TransactionPortal())

    async def awaited(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in the cache's loop for a caller in an event loop, which goes on meanwhile."""
        return await self.portal.awaited(coroutine)

    def decorator(
        self, decorate: Callable[[Callable[P, Awaitable[R]]], AsyncView[P, R]]
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Return the decorator of a plain function."""
        return super().decorator(lambda function: decorate(_with_connections_of_its_own(function)))


def _with_connections_of_its_own(function: Callable[P, R]) -> Callable[P, R]:
    """Return *function* as a thread outside of a request runs it: Django looks after connections at requests only.

    What the view's caller runs itself is the function as it is.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return run


def cache_at(location: str | None, options: dict[str, Any]) -> DjangoCache:
    """Return this process' cache for a place in `CACHES`. Raises: ImproperlyConfigured."""
    if not isinstance(location, str | None):
        raise ImproperlyConfigured(f"CACHES: LOCATION: {location!r} must be one URL, such as redis://localhost:6379")
    place = repr((location, sorted(options.items())))
    with _making:
        if place not in _made:
            _made[place] = _make(location, options)
        return _made[place]


def _make(location: str | None, options: dict[str, Any]) -> DjangoCache:
    given = dict(options)
    if "url" in given:
        raise ImproperlyConfigured("CACHES: OPTIONS url: LOCATION says it")
    types = {**get_type_hints(CacheSettings), "never": str | list[str]}
    if unknown := ", ".join(sorted(str(name) for name in given if name not in types)):
        raise ImproperlyConfigured(f"CACHES: OPTIONS {unknown}: not known here; there are {', '.join(types)}")
    for name in given.keys() - {"credentials"}:  # which is a function, or two words
        try:
            msgspec.convert(given[name], types[name])
        except msgspec.ValidationError as wrong:
            raise ImproperlyConfigured(f"CACHES: OPTIONS {name}: {given[name]!r}: {wrong}") from None
    never = given.pop("never", ())
    try:
        if not given:
            return DjangoCache(AsyncCache(location or None, never=never, codecs=_CODECS))
        settings = CacheSettings(url=location or None, **given)
        return DjangoCache(AsyncCache(settings=settings, never=never, codecs=_CODECS))
    except ConfigurationError as wrong:
        raise ImproperlyConfigured(f"CACHES: {wrong}") from None


def cache_of(alias: str) -> DjangoCache:
    """Return the cache behind `CACHES[alias]`. Raises: ImproperlyConfigured where that is another backend."""
    backend = caches[alias]
    found = getattr(backend, "facade", None)
    if not isinstance(found, DjangoCache):
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] is {type(backend).__module__}.{type(backend).__qualname__}; "
            "its BACKEND must be cachebus.integrations.django.Cache"
        )
    return found
