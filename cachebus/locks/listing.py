"""Every lock that somebody holds, for people who look."""

from __future__ import annotations

import asyncio

import msgspec

from cachebus.errors import CommandRefused
from cachebus.redis.client import Client
from cachebus.redis.replies import Reply
from cachebus.redis.walk import literal, names_like


class ListedLock(msgspec.Struct, frozen=True):
    """A lock that somebody holds."""

    name: str
    owner: str
    token: int
    """Its fencing number."""
    left_ms: int
    """Until its lease ends, unless it is renewed."""
    waiting: int
    held_ms: int
    """Since it was acquired."""


async def held_locks(client: Client) -> list[ListedLock]:
    """Return the locks that are held, by name: a walk over the whole keyspace, in steps. Raises: ServerError."""
    found: dict[str, ListedLock] = {}
    async for page in names_like(client.store, f"{literal(client.names.spread('lock', '')[:-1])}*"):
        names = [name[name.index("{") + 1 : name.rindex("}")] for name in page if name.endswith("}")]
        for name, reply in zip(names, await asyncio.gather(*[_look(client, name) for name in names]), strict=True):
            if reply is not None:
                owner, token, left_ms, waiting, held_ms = reply
                found[name] = ListedLock(name, owner.decode(errors="replace"), token, left_ms, waiting, held_ms)
    return [found[name] for name in sorted(found)]


async def _look(client: Client, name: str) -> Reply:
    keys = (client.names.spread("lock", name), client.names.spread("lock-line", name))
    try:
        return await client.store.run("locks/look", keys)
    except CommandRefused:  # something else has the name of a lock
        return None
