"""What a purge names: one name, of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec

from cachebus.cache.cache import Cache
from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import scopes_to_invalidate
from cachebus.monitoring.people import UserNames, names_of_user, owned_views


class Purge(msgspec.Struct, forbid_unknown_fields=True):
    """What is made unreadable: one name, of one kind."""

    kind: str
    """key, tag, prefix or user."""
    name: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """Read it from a query."""
        return cls(query.get("kind", ""), query.get("name", ""))

    async def names(self, cache: Cache) -> UserNames:
        """Return what is invalidated, checked. Raises: ConfigurationError, ServerError."""
        kinds = {
            "key": UserNames([self.name], [], []),
            "tag": UserNames([], [self.name], []),
            "prefix": UserNames([], [], [self.name]),
        }
        if self.kind not in (*kinds, "user") or not self.name:
            raise ConfigurationError(f"name what to purge: one of {', '.join(kinds)}, user")
        names = kinds.get(self.kind) or names_of_user(await owned_views(cache), self.name)
        scopes_to_invalidate(keys=names.keys, tags=names.tags, prefixes=names.prefixes)
        return names
