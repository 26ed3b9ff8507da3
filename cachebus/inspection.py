"""What lies in the cache under a key, for people who look: every copy, and whether it may still be served."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any

import msgspec

from cachebus.cache import Cache
from cachebus.codec import Codec
from cachebus.dictionaries import Dictionaries
from cachebus.entry import Entry, stub, unpack
from cachebus.keys import scopes_of, stored_name

SCAN_COUNT = 500


@dataclass(frozen=True, slots=True)
class Copy:
    """One stored entry. Several lie under one key while deploys with different return types run."""

    views: list[str]
    """The views that would read it; empty for a plain key."""
    entry: Entry
    left_ms: int
    stored_bytes: int
    invalidated_by: dict[str, int]
    """Scopes invalidated after it was born, and when; empty: it is valid."""

    @property
    def value(self) -> Any:
        """The value as plain data."""
        return msgspec.msgpack.decode(self.entry.payload)


async def copies(cache: Cache, key: str) -> list[Copy]:
    """Return what is stored under *key* for the views of *cache*, and for plain `set()`. Raises: ServerError."""
    readers: dict[str, list[str]] = {Codec(Any, "plain").fingerprint: []}
    for view in cache.views.values():
        readers.setdefault(view.codec.fingerprint, []).append(view.name)
    server, found = cache.link.entries, []
    for fingerprint, views in readers.items():
        name = cache.names.entry(stored_name(key), fingerprint)
        data = await server.call("GET", name, key=name)
        entry = unpack(data, await _inflate(cache, views, key)) if data else None
        if entry is not None:
            left_ms = await server.call("PTTL", name, key=name)
            later = await invalidated_by(cache, key, entry)
            readable = [view for view in views if _makes(view, key)]
            found.append(Copy(readable, entry, left_ms, len(data), later))
    return found


async def _inflate(cache: Cache, views: Iterable[str], key: str) -> Callable[[bytes], bytes] | None:
    """Return what inflates entries of a view that has a dictionary."""
    named = [cache.views[view].dictionary for view in views if cache.views[view].dictionary and _makes(view, key)]
    if not named:
        return None
    dictionary = Dictionaries(cache.link).of(named[0])
    await dictionary.look()
    return dictionary.inflate


async def invalidated_by(cache: Cache, key: str, entry: Entry) -> dict[str, int]:
    """Return the scopes of an entry that were invalidated after it was born, with their clocks. One round trip."""
    scopes = scopes_of(key, entry.header.tags)
    reply = await cache.link.store.call("ZMSCORE", cache.names.ledger, "@start", "@floor", *scopes)
    names = ("the ledger began", "the ledger was pruned", *scopes)
    clocks = {name: int(float(clock)) for name, clock in zip(names, reply, strict=True) if clock is not None}
    return {name: clock for name, clock in clocks.items() if entry.born < clock}


async def stored(cache: Cache, begin: str = "") -> AsyncIterator[list[str]]:
    """Yield the names of stored entries whose key begins with *begin*: a walk over the whole keyspace, in steps.

    On a cluster only the node of the bus is walked. Raises: ServerError.
    """
    pattern = f"{cache.names.namespace}:e:{{{_literal(begin)}*"
    cursor = b"0"
    while True:
        cursor, names = await cache.link.entries.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
        yield [name.decode() for name in names]
        if cursor == b"0":
            return


async def tags_of(cache: Cache, names: list[str]) -> AsyncIterator[tuple[str, ...]]:
    """Yield the tags of each entry that is still there. One shared round trip. Raises: ServerError."""
    for data in await asyncio.gather(*[cache.link.entries.call("GET", name, key=name) for name in names]):
        if data and (head := stub(data)):
            yield head.header.tags


async def reached(
    cache: Cache,
    *,
    keys: Iterable[str] = (),
    tags: Iterable[str] = (),
    prefixes: Iterable[str] = (),
    everything: bool = False,
) -> dict[str, int]:
    """Count the stored entries under each name, before somebody invalidates them.

    Walks the keyspace where tags, prefixes or everything are named. Raises: ServerError.
    """
    found = {f"key {key!r}": len(await copies(cache, key)) for key in keys}
    for prefix in prefixes:
        found[f"prefix {prefix!r}"] = sum([len(page) async for page in stored(cache, prefix)])
    if everything:
        found["everything"] = sum([len(page) async for page in stored(cache)])
    if named := tuple(tags):
        carried = Counter[str]()
        async for page in stored(cache):
            async for carries in tags_of(cache, page):
                carried.update(carries)
        found |= {f"tag {tag!r}": carried[tag] for tag in named}
    return found


def _makes(template: str, key: str) -> bool:
    """Whether a view of this template may have made *key*: a parameter's value never contains a ':'."""
    pieces = (
        re.escape(literal) + ("" if name is None else "[^:]*") for literal, name, _, _ in Formatter().parse(template)
    )
    return re.fullmatch("".join(pieces), key) is not None


def _literal(text: str) -> str:
    """Escape what a glob would take for a wildcard."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
