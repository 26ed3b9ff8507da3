"""What belongs to one user: the names under which a purge reaches it."""

from __future__ import annotations

from collections.abc import Iterable
from string import Formatter
from typing import NamedTuple

from cachebus.cache.cache import Cache
from cachebus.cache.upkeep.declarations import known_views
from cachebus.templates import escape

USUAL_IDENTITY = "user_id"
"""Whose a value is, where a view does not say so: the parameter of this name, if it has one."""


class UserNames(NamedTuple):
    """What `Cache.invalidate` takes."""

    keys: list[str]
    tags: list[str]
    prefixes: list[str]


class Owned(NamedTuple):
    """A view whose values belong to somebody."""

    template: str
    tags: tuple[str, ...]
    identity: str


async def owned_views(cache: Cache) -> list[Owned]:
    """Return the views of a deployment whose values belong to somebody. One round trip. Raises: ServerError.

    Of those that only other processes declare it is known how they name their values, but not an `identity=`.
    """
    own = [
        Owned(view.name, tuple(view.tag_templates), view.identity)
        for view in cache.views.values()
        if view.identity is not None
    ]
    others = [each for each in await known_views(cache.client) if each.view not in cache.views]
    return own + [Owned(*each, USUAL_IDENTITY) for each in others if USUAL_IDENTITY in _fields(each.view)]


def names_of_user(views: Iterable[Owned], user: str) -> UserNames:
    """Return the keys, tags and prefixes of a user, by the views that say whose their values are. Pure.

    `orders:{user_id}:day:{day}` is reached by the prefix `orders:7:`; where the user stands behind another
    parameter only a tag can reach it. The tag `user:<id>` is always among them.
    """
    found = UserNames([], [f"user:{user}"], [])
    for view in views:
        _add(found, view, user)
    return UserNames(*(list(dict.fromkeys(names)) for names in found))


def _add(found: UserNames, view: Owned, user: str) -> None:
    for tag in view.tags:
        if set(_fields(tag)) == {view.identity}:
            pieces = Formatter().parse(tag)
            found.tags.append("".join(literal + (user if name else "") for literal, name, _, _ in pieces))
    literal, name, _, _ = next(iter(Formatter().parse(view.template)))
    if name != view.identity:
        return
    begin = literal + escape(user)
    rest = view.template[len(literal) + len(view.identity) + 2 :]
    if not rest:
        found.keys.append(begin)
    elif rest.startswith(":"):
        found.prefixes.append(begin + ":")


def _fields(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]
