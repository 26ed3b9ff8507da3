"""Django's cache interface over a cache that is never stale: what is set, deleted or cleared is so in every process.

Values are stored without pickle: Python's own types come back as they were, anything else is refused with a message.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.exceptions import ImproperlyConfigured

from cachebus.cache.cache import Cache as AsyncCache
from cachebus.errors import NotCacheable
from cachebus.freshness.clock import Clock
from cachebus.integrations.django.atomic import NEVER_S, Change, Stored, change
from cachebus.integrations.django.facade import DjangoCache, cache_at
from cachebus.locks.locks import Locks
from cachebus.sync.view import View
from cachebus.templates import as_name

T = TypeVar("T")

PREFIX = "django:"
"""First word of the keys, so that `clear` reaches them and nothing else."""
_UNWANTED = {"MAX_ENTRIES": "max_memory_entries", "CULL_FREQUENCY": "max_memory_entries", "CLIENT_CLASS": "nothing"}
"""Options of other backends, and what says the same here."""


class DjangoBackend(BaseCache):  # type: ignore[misc] # Django has no types
    """`CACHES["default"]["BACKEND"]`. LOCATION is the server's URL; without it the environment says (`REDIS_URL`).

    OPTIONS are the fields of `CacheSettings`, and `never`. Beside Django's methods there are `view`, `invalidate`, and
    `facade`: the whole cache. Every method has its asynchronous twin (`aget`), which does not block the event loop.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = params.get("OPTIONS", {})
        for name, instead in _UNWANTED.items():
            if name in options:
                raise ImproperlyConfigured(f"CACHES: OPTIONS {name}: use {instead} instead")
        self.facade: DjangoCache = cache_at(location, options)
        """The cache behind it; one in a process for each place."""
        self._locks = Locks(self.facade.cache)

    # -- what Django does not have ----------------------------------------------------------------------------------

    def view(self, template: str, **options: Any) -> Callable[[Callable[..., T]], View[..., T]]:
        """Cache a function's results. See `cachebus.Cache.view`."""
        return self.facade.view(template, **options)

    def invalidate(self, **scopes: Any) -> Clock:
        """Make everything under *keys*, *tags* or *prefix* unreadable, everywhere. See `cachebus.Cache.invalidate`."""
        return self.facade.invalidate(**scopes)

    # -- reading ----------------------------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return what is stored, or *default*."""
        return self.facade.run(self._cache.get(self._name(key, version), default))

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return what is stored, or *default*."""
        return await self.facade.awaited(self._cache.get(self._name(key, version), default))

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return what is stored, by key. One round trip."""
        names = {self._name(key, version): key for key in keys}
        return _by_key(names, self.facade.run(self._cache.get_many(names)))

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return what is stored, by key. One round trip."""
        names = {self._name(key, version): key for key in keys}
        return _by_key(names, await self.facade.awaited(self._cache.get_many(names)))

    # -- writing ----------------------------------------------------------------------------------------------------

    def set(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] = (),
    ) -> None:
        """Store a value; after a miss of the key an invalidation since then wins. tags: what else invalidates it."""
        self.facade.run(self._set(self._name(key, version), value, timeout, tags))

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] = (),
    ) -> None:
        """Store a value. See `set`."""
        await self.facade.awaited(self._set(self._name(key, version), value, timeout, tags))

    def set_many(
        self, data: Mapping[Any, Any], timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """Store several; returns the keys that failed: none, as what cannot be stored raises."""
        self.facade.run(self._set_many({self._name(key, version): value for key, value in data.items()}, timeout))
        return []

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """Store several. See `set_many`."""
        named = {self._name(key, version): value for key, value in data.items()}
        await self.facade.awaited(self._set_many(named, timeout))
        return []

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Make it unreadable everywhere; returns whether it was there."""
        return self.facade.run(self._delete([self._name(key, version)]))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        """Make it unreadable everywhere; returns whether it was there."""
        return await self.facade.awaited(self._delete([self._name(key, version)]))

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Make several unreadable everywhere, in one round trip."""
        self.facade.run(self._delete_many([self._name(key, version) for key in keys]))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Make several unreadable everywhere, in one round trip."""
        await self.facade.awaited(self._delete_many([self._name(key, version) for key in keys]))

    def clear(self) -> None:
        """Make everything set through Django's interface unreadable. Views keep theirs: `facade.clear()` is for all."""
        self.facade.run(self._cache.invalidate(prefix=PREFIX))

    async def aclear(self) -> None:
        """Make everything set through Django's interface unreadable."""
        await self.facade.awaited(self._cache.invalidate(prefix=PREFIX))

    # -- in one step ------------------------------------------------------------------------------------------------

    def add(self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store a value unless there is one; returns whether it was stored. One caller in the cluster gets True."""
        return self.facade.run(self._add(self._name(key, version), value, timeout))

    async def aadd(
        self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Store a value unless there is one. See `add`."""
        return await self.facade.awaited(self._add(self._name(key, version), value, timeout))

    def touch(self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Let what is stored live *timeout* from now; returns whether it is there."""
        return self.facade.run(self._touch(self._name(key, version), timeout))

    async def atouch(self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Let what is stored live *timeout* from now. See `touch`."""
        return await self.facade.awaited(self._touch(self._name(key, version), timeout))

    def incr(self, key: Any, delta: float = 1, version: int | None = None) -> float:
        """Add to a number and return it; its end stays. Raises: ValueError where there is none."""
        return self.facade.run(self._incr(self._name(key, version), delta))

    async def aincr(self, key: Any, delta: float = 1, version: int | None = None) -> float:
        """Add to a number. See `incr`."""
        return await self.facade.awaited(self._incr(self._name(key, version), delta))

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _cache(self) -> AsyncCache:
        return self.facade.cache

    def _name(self, key: Any, version: int | None) -> str:
        return PREFIX + as_name(str(self.make_and_validate_key(key, version=version)))

    def _ttl_s(self, timeout: float | None) -> float:
        """Return how long a value lives; not above 0: not at all."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        seconds = NEVER_S if timeout is None else float(timeout)
        return seconds if seconds >= 0.001 else 0.0

    async def _set(self, name: str, value: Any, timeout: float | None, tags: Iterable[str] = ()) -> None:
        ttl_s = self._ttl_s(timeout)
        if not ttl_s:
            await self._cache.delete(name)
            return
        await _explained(name, self._cache.set(name, value, ttl_s, tags=tags))

    async def _set_many(self, named: Mapping[str, Any], timeout: float | None) -> None:
        for name, value in named.items():
            await self._set(name, value, timeout)

    async def _delete(self, names: list[str]) -> bool:
        found = await self._cache.get_many(names)
        await self._delete_many(names)
        return bool(found)

    async def _delete_many(self, names: list[str]) -> None:
        if names:
            await self._cache.invalidate(keys=names)

    async def _add(self, name: str, value: Any, timeout: float | None) -> bool:
        new = Change(value, self._ttl_s(timeout))

        def unless_there(stored: Stored | None) -> Change | None:
            return new if stored is None else None

        return await _explained(name, change(self._cache, self._locks, name, unless_there)) is not None

    async def _touch(self, name: str, timeout: float | None) -> bool:
        ttl_s = self._ttl_s(timeout)

        def with_time(stored: Stored | None) -> Change | None:
            return None if stored is None else Change(stored.value, ttl_s)

        return await change(self._cache, self._locks, name, with_time) is not None

    async def _incr(self, name: str, delta: float) -> float:
        def more(stored: Stored | None) -> Change:
            if stored is None:
                raise ValueError(f"Key {name.removeprefix(PREFIX)!r} not found")
            left_s = stored.left_s if stored.left_s is not None else self._ttl_s(DEFAULT_TIMEOUT)
            return Change(stored.value + delta, max(left_s, 0.001))

        changed = await change(self._cache, self._locks, name, more)
        assert changed is not None  # noqa: S101 - `more` never leaves it
        number: float = changed.value
        return number


def _by_key(names: Mapping[str, Any], found: Mapping[str, Any]) -> dict[Any, Any]:
    return {names[name]: value for name, value in found.items()}


async def _explained(name: str, work: Coroutine[Any, Any, T]) -> T:
    """Say of what cannot be stored what its author can do. Raises: NotCacheable."""
    try:
        return await work
    except NotCacheable as refused:
        why = str(refused).removeprefix("plain values: ")
        if "cannot be stored" in why:
            why += ". Nothing is pickled here: store `.values()`, a dict or text, or return it from a typed @cache.view"
        raise NotCacheable(f"{name.removeprefix(PREFIX)}: {why}") from None
