"""*Keys*: entries by key, prefix, tag or user, and one entry with what made it old. Values are shown as they are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from cachebus.cache.cache import Cache
from cachebus.cache.tiers.entry import FIRST_BYTES, stub
from cachebus.cache.upkeep.answers import FromProcess, MemoryCopy, ask
from cachebus.cache.upkeep.reach import pattern_of
from cachebus.cache.view import View
from cachebus.errors import ConfigurationError
from cachebus.freshness.cause import read_causes
from cachebus.freshness.scopes import scopes_of
from cachebus.monitoring.inspection import LONGEST_BEGINNING, Copy, copies, stored
from cachebus.monitoring.page.purge import Purge
from cachebus.redis.walk import stream_pages
from cachebus.templates import unmarked

SHOWN = 100
MOST_LOOKED_AT = 20_000
LONGEST_VALUE = 20_000
_FIELD = re.compile(r"\{[^{}]*\}")


class ListedEntry(msgspec.Struct, frozen=True):
    """One stored entry."""

    key: str
    tags: list[str]
    born_ms_ago: float
    valid: bool
    stored_bytes: int


class KeysShown(msgspec.Struct, frozen=True):
    """The answer of `api/keys`."""

    entries: list[ListedEntry]
    matching: int
    looked_at: int
    complete: bool
    """False: the walk ended after 20,000 entries."""


class MadeOldBy(msgspec.Struct, frozen=True):
    """A name that was invalidated after an entry was born."""

    scope: str
    ms_ago: float
    causes: list[str]
    """Who did it, as long as the journal keeps it; [] afterwards."""
    events: list[str]
    """Ids of the events among them."""


class EntryShown(msgspec.Struct, frozen=True, kw_only=True):
    """One copy of what is stored under a key."""

    views: list[str]
    valid: bool
    made_old_by: list[MadeOldBy]
    age_ms: float
    fresh_ms: float
    """Left of its TTL; negative: it is stale."""
    left_ms: float
    tags: list[str]
    load_ms: float
    stored_bytes: int
    raw_bytes: int
    value: str
    cut: bool
    loaded_for: str
    """Whom it was loaded for, in words; '' for a value that was set."""
    loaded_ahead: str
    """Why the read was expected, and whether that was of use; '' where it was not."""


class KeyShown(msgspec.Struct, frozen=True):
    """The answer of `api/key`."""

    key: str
    copies: list[EntryShown]
    refreshable: bool
    """Whether this process has the view, and so can load it."""
    views: list[str]
    """Those that would read it."""
    memory: list[FromProcess[MemoryCopy]] = []
    """What each process holds of it, as far as they have answered: they do within ten seconds."""


async def show_keys(cache: Cache, purge: Purge) -> KeysShown:
    """Walk over stored entries. Raises: ConfigurationError, ServerError."""
    names = await purge.names(cache)
    begin = purge.name[:LONGEST_BEGINNING] if purge.kind in ("prefix", "key") else ""
    found: list[ListedEntry] = []
    matching, looked_at = 0, 0
    server, entries, now_us = cache.client.entries, cache.names.entries, cache.client.now_us()
    async for page in stored(cache, begin):
        heads = await asyncio.gather(*[server.call("GETRANGE", each, 0, FIRST_BYTES - 1, key=each) for each in page])
        for name, head in zip(page, heads, strict=True):
            entry = stub(head) if head else None
            if entry is None:
                continue
            key, tags = name[len(entries) + 1 : name.rindex("}")], entry.header.tags
            plain = unmarked(key)
            if plain in names.keys or plain.startswith(tuple(names.prefixes)) or not set(names.tags).isdisjoint(tags):
                matching += 1
                if len(found) < SHOWN:
                    size = await server.call("STRLEN", name, key=name)
                    age_ms = (now_us - entry.born.number) / 1000
                    valid = await _is_valid(cache, key, tags, entry.born.era, entry.born.number)
                    found.append(ListedEntry(key, list(tags), age_ms, valid, size))
        looked_at += len(page)
        if looked_at >= MOST_LOOKED_AT:
            return KeysShown(found, matching, looked_at, complete=False)
    return KeysShown(found, matching, looked_at, complete=True)


async def _is_valid(cache: Cache, key: str, tags: tuple[str, ...], era: str, born: int) -> bool:
    reply = await cache.client.store.call(
        "ZMSCORE", cache.names.ledger, f"@era:{era}", "@floor", *scopes_of(unmarked(key), tags)
    )
    return reply[0] is not None and all(clock is None or float(clock) <= born for clock in reply[1:])


async def show_key(cache: Cache, key: str) -> KeyShown:
    """Return what is stored under a key. Raises: ServerError."""
    if not key:
        return KeyShown(key, [], refreshable=False, views=[])
    found, memory = await asyncio.gather(copies(cache, key), ask(cache.client, f"memory {key}", MemoryCopy))
    causes = await _causes(cache, {clock for copy in found for clock in copy.invalidated_by.values()})
    now_us = cache.client.now_us()
    views = [name for name in cache.views if pattern_of(name).fullmatch(key)]
    return KeyShown(
        key,
        [_entry(copy, causes, now_us) for copy in found],
        refreshable=call_of(cache, key) is not None,
        views=views,
        memory=memory,
    )


def call_of(cache: Cache, key: str) -> tuple[View[Any, Any], tuple[Any, ...]] | None:
    """Return the view and the arguments whose key this is, None where this process cannot tell. Pure."""
    for name, view in cache.views.items():
        if view.is_method or not pattern_of(name).fullmatch(key):
            continue
        pieces = _FIELD.split(name)
        pattern = "([^:]*)".join(map(re.escape, pieces))
        words = re.fullmatch(pattern, key, re.DOTALL)
        if words is None:
            continue
        texts = words.groups()
        numbers = [int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text for text in texts]
        for arguments in (numbers, list(texts)):
            try:
                call = view.decode_arguments(msgspec.json.encode(arguments))
                if unmarked(view.key(*call)) == key:
                    return view, call
            except (ValueError, TypeError):
                continue
    return None


async def _causes(cache: Cache, clocks: set[int]) -> dict[int, tuple[list[str], list[str]]]:
    """Return who caused these steps of the ledger, and the ids of events, as far as the journal goes back."""
    found: dict[int, tuple[list[str], list[str]]] = {}
    if not clocks:
        return found
    async for page in stream_pages(cache.client.store, cache.client.names.journal):
        for identity, fields in page:
            clock = int(identity.partition(b"-")[0])
            if clock in clocks:
                scopes = fields.get("scopes", b"").decode(errors="replace").split("\n")
                causes = [each.cause for each in read_causes(fields.get("cause", b""), scopes)]
                said = [f"{cause.kind} {cause.who} {cause.what}".strip() for cause in causes]
                found[clock] = said, [cause.what for cause in causes if cause.kind == "event"]
    return found


def _entry(copy: Copy, causes: Mapping[int, tuple[list[str], list[str]]], now_us: int) -> EntryShown:
    header = copy.entry.header
    value = msgspec.json.format(msgspec.json.encode(copy.value), indent=2).decode()
    return EntryShown(
        views=copy.views,
        valid=not copy.invalidated_by,
        made_old_by=[
            MadeOldBy(scope, (now_us - clock) / 1000, *causes.get(clock, ([], [])))
            for scope, clock in copy.invalidated_by.items()
        ],
        age_ms=(now_us - copy.entry.born.number) / 1000,
        fresh_ms=copy.left_ms - header.grace_ms,
        left_ms=copy.left_ms,
        tags=list(header.tags),
        load_ms=header.load_ms,
        stored_bytes=copy.stored_bytes,
        raw_bytes=len(copy.entry.payload),
        value=value[:LONGEST_VALUE],
        cut=len(value) > LONGEST_VALUE,
        loaded_for=copy.loaded_for if copy.views or header.load_ms else "",
        loaded_ahead=str(copy.ahead or ""),
    )


async def refresh(cache: Cache, key: str) -> str:
    """Load the value of a key now; where this process cannot, its next reader does. Raises: what the loader raises."""
    call = call_of(cache, key)
    if call is None:
        if not key:
            raise ConfigurationError("key: name one")
        await cache.invalidate(keys=[key])
        return "made old: this process does not have its view, so its next reader loads it"
    view, arguments = call
    await view.refresh(*arguments)
    return "loaded anew, in every process from now on"
