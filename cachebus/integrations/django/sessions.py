"""Django's sessions in `cachebus.SessionStore`: `SESSION_ENGINE = "cachebus.integrations.django.sessions"`.

A visitor's session is one of a user of its own until they log in, and one of the user's afterwards: so ending all
sessions of a user (`cachebus.sync.SessionStore(…).invalidate_user(user.pk)`) logs them out everywhere. The id in the
cookie is known to the browser alone; what is stored is its digest.
"""

from __future__ import annotations

import secrets
from functools import cache as once
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from cachebus.integrations.django.facade import DjangoCache, cache_of
from cachebus.sessions.session import address_of, new_id, place_of
from cachebus.sessions.store import SessionStore as AsyncSessionStore

_FIELD = "django"
"""The field of a session's data that holds what Django's serializer makes of them."""


@once
def _store_of(cache: DjangoCache) -> AsyncSessionStore:
    return AsyncSessionStore(cache.cache)


class DjangoSession(SessionBase):  # type: ignore[misc] # Django has no types
    """One session of a request. Lives SESSION_COOKIE_AGE, or what `set_expiry` says, from when it was last saved."""

    _session_key: str | None

    def __init__(self, session_key: str | None = None) -> None:
        self._cache = cache_of(settings.SESSION_CACHE_ALIAS)
        self._store = _store_of(self._cache)
        super().__init__(session_key)

    def load(self) -> dict[str, Any]:
        """Return the data; an id without a session is forgotten. One round trip."""
        return self._cache.run(self._load())

    async def aload(self) -> dict[str, Any]:
        """Return the data. See `load`."""
        return await self._cache.awaited(self._load())

    def exists(self, session_key: str | None) -> bool:
        """Return whether there is a session of this id."""
        return self._cache.run(self._exists(session_key))

    async def aexists(self, session_key: str | None) -> bool:
        """Return whether there is a session of this id."""
        return await self._cache.awaited(self._exists(session_key))

    def create(self) -> None:
        """Begin an empty session under a new id."""
        self._cache.run(self._begin({}))
        self.modified = True

    async def acreate(self) -> None:
        """Begin an empty session under a new id."""
        await self._cache.awaited(self._begin({}))
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Store the data. One round trip; two where a visitor has become a user, whose session gets a new id.

        Raises: UpdateError where the session has ended meanwhile: it is not brought back.
        """
        self._cache.run(self._save(self._get_session(no_load=must_create), must_create))

    async def asave(self, must_create: bool = False) -> None:
        """Store the data. See `save`."""
        await self._cache.awaited(self._save(await self._aget_session(no_load=must_create), must_create))

    def delete(self, session_key: str | None = None) -> None:
        """End the session of this id, or this one. Safe to repeat."""
        self._cache.run(self._store.invalidate(session_key or self.session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """End the session of this id, or this one. Safe to repeat."""
        await self._cache.awaited(self._store.invalidate(session_key or self.session_key))

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: what has expired is gone."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """Do nothing: what has expired is gone."""

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _load(self) -> dict[str, Any]:
        found = await self._store.get(self.session_key)
        if found is None or _FIELD not in found.data:
            self._session_key = None
            return {}
        data: dict[str, Any] = self.serializer().loads(found.data[_FIELD].encode("latin-1"))
        return data

    async def _exists(self, session_key: str | None) -> bool:
        return await self._store.get(session_key) is not None

    async def _save(self, data: dict[str, Any], must_create: bool) -> None:
        key = self.session_key
        if key is None:
            await self._begin(data)
        elif must_create:
            if await self._exists(key):
                raise CreateError
            await self._begin(data)
        elif (user := data.get(SESSION_KEY)) is not None and not _is_of(key, user):
            await self._begin(data)
            if not await self._store.invalidate(key):
                await self._store.invalidate(self.session_key)
                raise UpdateError
        elif (age_s := self._age_s(data)) > 0:
            if await self._store.update(key, self._fields(data), idle=age_s, absolute=age_s) is None:
                raise UpdateError
        elif not await self._store.invalidate(key):
            raise UpdateError

    async def _begin(self, data: dict[str, Any]) -> None:
        """Store *data* under a new id; what has expired already gets the id alone."""
        user, age_s = data.get(SESSION_KEY), self._age_s(data)
        owner = str(user) if user is not None else f"visitor:{secrets.token_hex(16)}"
        if age_s > 0:
            self._session_key = await self._store.create(owner, self._fields(data), idle=age_s, absolute=age_s)
        else:
            self._session_key, _ = new_id(address_of(owner))

    def _fields(self, data: dict[str, Any]) -> dict[str, str]:
        return {_FIELD: self.serializer().dumps(data).decode("latin-1")}

    def _age_s(self, data: dict[str, Any]) -> int:
        return int(self.get_expiry_age(expiry=data.get("_session_expiry")))


def _is_of(session_key: str, user: object) -> bool:
    place = place_of(session_key)
    return place is not None and place.address == address_of(str(user))


SessionStore = DjangoSession
