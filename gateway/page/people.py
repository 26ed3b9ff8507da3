"""What belongs to one user: the names under which a purge reaches it. Pure, but for the cache that knows the views."""

from __future__ import annotations

from string import Formatter
from typing import Any, NamedTuple

from cachebus import Cache, View
from cachebus.keys import escape


class Names(NamedTuple):
    """What `Cache.invalidate` takes."""

    keys: list[str]
    tags: list[str]
    prefixes: list[str]


def of_user(cache: Cache, user: str) -> Names:
    """Return the keys, tags and prefixes of a user, by the views that say whose their values are.

    `portfolio:{user_id}:trades:{day}` is reached by the prefix `portfolio:7:`; where the user stands behind another
    parameter only a tag can reach it. The tag `user:<id>` is always among them.
    """
    found = Names([], [f"user:{user}"], [])
    for view in cache.views.values():
        if view.identity is not None:
            _add(found, view, view.identity, user)
    return Names(*(list(dict.fromkeys(names)) for names in found))


def _add(found: Names, view: View[Any, Any], identity: str, user: str) -> None:
    for tag in view.tag_templates:
        pieces = list(Formatter().parse(tag))
        if {name for _, name, _, _ in pieces if name is not None} == {identity}:
            found.tags.append("".join(literal + (user if name else "") for literal, name, _, _ in pieces))
    literal, name, _, _ = next(iter(Formatter().parse(view.name)))
    if name != identity:
        return
    begin = literal + escape(user)
    rest = view.name[len(literal) + len(identity) + 2 :]
    if not rest:
        found.keys.append(begin)
    elif rest.startswith(":"):
        found.prefixes.append(begin + ":")
