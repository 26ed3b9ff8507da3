"""What lies in the cache under a key, for people who look: every copy, and whether it may still be served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from cachebus.cache.cache import Cache
from cachebus.cache.foresight.prediction.follows import LoadedAhead, reason_of
from cachebus.cache.tiers.entry import FIRST_BYTES, Entry, stub, unpack
from cachebus.cache.upkeep.reach import pattern_of
from cachebus.cache.values.plain_codec import PlainCodec
from cachebus.freshness.clock import parse_score
from cachebus.freshness.scopes import EVERYTHING, key_scope, names, prefix_scope, scopes_of, tag_scope
from cachebus.redis.walk import literal, names_like
from cachebus.templates import stored_name

LONGEST_BEGINNING = 60
"""Of a long key, no more of it stands in the name it is stored under."""

LOADED_FOR = {
    "": "for a caller who waited",
    "refresh": "to renew it; no reader waited",
    "warm": "to warm it, before anybody asked",
}
"""By what the header of an entry says."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One stored entry. Several lie under one key while deploys with different return types run."""

    views: list[str]
    """The views of this application that would read it; empty for a plain key, and where it has none."""
    plain: bool
    """Whether it was stored by `set()`."""
    entry: Entry
    left_ms: int
    stored_bytes: int
    invalidated_by: dict[str, int]
    """Scopes invalidated after it was born, and when; empty: it is valid."""
    ahead: LoadedAhead | None = None
    """Why it was loaded before anybody asked; None where it was not."""

    @property
    def loaded_for(self) -> str:
        """Whom it was loaded for, in words."""
        if self.ahead is not None:
            return "for a read that was expected"
        return LOADED_FOR.get(self.entry.header.purpose, "")

    @property
    def value(self) -> Any:
        """The value as plain data."""
        return msgspec.msgpack.decode(self.entry.payload)


async def copies(cache: Cache, key: str, *, walk: bool = False) -> list[Copy]:
    """Return what is stored under *key* for the views of *cache*, and for plain `set()`. Raises: ServerError.

    walk: look through the whole keyspace for what others stored under it: applications, deploys with another type.
    """
    readers: dict[str, list[str]] = {PlainCodec.fingerprint: []}
    for view in cache.views.values():
        readers.setdefault(view.fingerprint, []).append(view.name)
    server, found = cache.client.entries, list[Copy]()
    if walk:
        begin = cache.names.entry(stored_name(key), "")
        async for page in names_like(server, f"{literal(begin)}*"):
            for name in page:
                readers.setdefault(name.removeprefix(begin), [])
    for fingerprint, views in readers.items():
        name = cache.names.entry(stored_name(key), fingerprint)
        data = await server.call("GET", name, key=name)
        entry = unpack(data) if data else None
        if entry is not None:
            left_ms = await server.call("PTTL", name, key=name)
            later = await invalidated_by(cache, key, entry)
            readable = [view for view in views if pattern_of(view).fullmatch(key)]
            ahead, plain = await reason_of(cache.client, name), fingerprint == PlainCodec.fingerprint
            found.append(Copy(readable, plain, entry, left_ms, len(data), later, ahead))
    return found


async def invalidated_by(cache: Cache, key: str, entry: Entry) -> dict[str, int]:
    """Return the scopes of an entry that were invalidated after it was born, with their clocks. One round trip."""
    scopes = scopes_of(key, entry.header.tags)
    era, began = f"@era:{entry.born.era}", "a new era began"
    reply = await cache.client.store.call("ZMSCORE", cache.names.ledger, era, "@began", "@floor", *scopes)
    if reply[0] is None:
        return {began: parse_score(reply[1])}
    clocks = dict(zip(("the ledger was pruned", *scopes), map(parse_score, reply[2:]), strict=True))
    return {name: clock for name, clock in clocks.items() if entry.born.number < clock}


async def stored(cache: Cache, begin: str = "") -> AsyncIterator[list[str]]:
    """Yield the names of stored entries whose key begins with *begin*: a walk over the whole keyspace, in steps.

    Raises: ServerError.
    """
    async for page in names_like(cache.client.entries, f"{literal(cache.names.entries)}{{{literal(begin)}*"):
        yield page


class Reached(NamedTuple):
    """How many stored entries that may be read now an invalidation makes unreadable."""

    by_name: dict[str, int]
    entries: int
    """All together; an entry under several of the names is one."""


async def reached(
    cache: Cache,
    *,
    keys: str | Iterable[str] = (),
    tags: str | Iterable[str] = (),
    prefixes: str | Iterable[str] = (),
    everything: bool = False,
    step: Callable[[int], None] = lambda _: None,
) -> Reached:
    """Count the readable entries under each name, and all together, before somebody invalidates them.

    Walks the keyspace, for keys alone once for each; *step* is called with how many more names were
    looked at. Raises: ServerError.
    """
    named = {f"key {key!r}": key_scope(key) for key in names(keys)}
    named |= {f"prefix {prefix!r}": prefix_scope(prefix) for prefix in names(prefixes)}
    named |= {f"tag {tag!r}": tag_scope(tag) for tag in names(tags)}
    if everything:
        named["everything"] = EVERYTHING
    if not (prefixes or tags or everything):
        stored_under = {name: await copies(cache, scope[2:], walk=True) for name, scope in named.items()}
        valid = {name: sum(not copy.invalidated_by for copy in each) for name, each in stored_under.items()}
        return Reached(valid, sum(valid.values()))
    wanted, counted, entries = frozenset(named.values()), Counter[str](), 0
    alone = next(iter(wanted)) if len(wanted) == 1 else ""
    async for scopes in _readable(cache, alone[2:] if alone.startswith("p:") else "", step):
        found = wanted.intersection(scopes)
        counted.update(found)
        entries += bool(found)
    return Reached({name: counted[scope] for name, scope in named.items()}, entries)


async def _readable(cache: Cache, begin: str, step: Callable[[int], None]) -> AsyncIterator[tuple[str, ...]]:
    """Yield the scopes of each stored entry that may be read now, of those whose key begins with *begin*."""
    server, names = cache.client.entries, cache.names
    async for page in stored(cache, begin[:LONGEST_BEGINNING]):
        step(len(page))
        heads = await asyncio.gather(*[server.call("GETRANGE", each, 0, FIRST_BYTES - 1, key=each) for each in page])
        found = [
            (head.born, scopes_of(each[len(names.entries) + 1 : each.rindex("}")], head.header.tags))
            for each, first in zip(page, heads, strict=True)
            if (head := stub(first)) is not None
        ]
        asked = dict.fromkeys(
            [f"@era:{born.era}" for born, _ in found] + [scope for _, each in found for scope in each]
        )
        if not asked:
            continue
        reply = await cache.client.store.call("ZMSCORE", names.ledger, "@floor", *asked)
        clocks = dict(zip(asked, reply[1:], strict=True))
        floor = parse_score(reply[0])
        for born, scopes in found:
            current = clocks[f"@era:{born.era}"] is not None
            if current and born.number >= max(floor, *(parse_score(clocks[scope]) for scope in scopes)):
                yield scopes
