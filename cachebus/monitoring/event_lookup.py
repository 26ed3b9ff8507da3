"""Where one event is, for who asks what became of it: delayed, waiting, handled, tried again, or dead-lettered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping

import msgspec

from cachebus.bus.dead_letters import DeadLetters, every_letter
from cachebus.bus.events import Event, EventRecord, order
from cachebus.bus.letters import DelayedItem, RetryItem
from cachebus.bus.retained import newest_first
from cachebus.freshness.cause import read_causes
from cachebus.redis.client import Client
from cachebus.redis.walk import stream_pages
from cachebus.templates import has_surrogate

TIMEOUT_S = 2.0
_POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
Place = tuple[str, str, str, str]
"""Position, channel, id and key: streams of two shards may have two events at one position."""


class PendingRetry(msgspec.Struct, frozen=True):
    """A handler that failed on the event and is run on it again."""

    handler: str
    due_in_ms: int


class EventEffect(msgspec.Struct, frozen=True):
    """What a handler made unreadable because of the event, as long as the journal keeps it."""

    handler: str
    clock: int
    """Of the ledger, microseconds."""
    scopes: list[str]


class FoundEvent(msgspec.Struct, frozen=True):
    """One event, and what became of it."""

    id: str
    """The publisher's, '' where it gave none."""
    position: str
    channel: str
    key: str
    payload: str
    published_ms: int
    shard: int
    state: str
    """`waiting` or `handled`; `delayed`: without position and shard (-1) yet; `trimmed`: only what failed is known."""
    retries: list[PendingRetry] = msgspec.field(default_factory=list)
    letters: list[str] = msgspec.field(default_factory=list)
    """Ids of its dead letters."""
    invalidated: list[EventEffect] = msgspec.field(default_factory=list)
    """In the last minutes: what is older has left the journal."""
    by: str = ""
    """Who says to have published it; '' where nobody does, or only what failed is known."""
    due_ms: int = 0
    """When a delayed event is published, milliseconds of the server's clock; 0 for others."""


async def find_events(client: Client, asked: str, shards: int) -> list[FoundEvent]:
    """Return the events with this position, or this id of a publisher; several where the id was given again.

    A position is one look at each shard, an id a walk over what is kept of them, newest first. Raises: ServerError.
    """
    found: dict[Place, FoundEvent] = {}
    for shard in range(shards):
        handled_to = await client.store.call("HGET", client.names.bus("shard", str(shard)), "position")
        async for record in _records(client, asked, shard):
            event = record.event
            if asked in {event.id, event.position}:
                done = handled_to is not None and order(record.position) <= order(handled_to)
                found[_place(event)] = _found(event, shard, "handled" if done else "waiting")
    for shard in range(shards):
        async for item, due_in_ms in _retries(client, shard):
            if asked in {item.id, item.position} or _place(item) in found:
                known = found.setdefault(_place(item), _found(item.event(1), shard, "trimmed"))
                known.retries.append(PendingRetry(item.handler, due_in_ms))
    async for letter in every_letter(DeadLetters(client, shards=shards)):
        item = RetryItem("", letter.position, letter.channel, letter.payload, letter.id, letter.key)
        if letter.position and (asked in {letter.id, letter.position} or _place(item) in found):
            found.setdefault(_place(item), _found(item.event(1), 0, "trimmed")).letters.append(letter.letter_id)
    await _add_effects(client, found)
    published = sorted(found.values(), key=lambda event: order(event.position.encode()))
    return [*published, *await _delayed(client, asked)]


async def _delayed(client: Client, asked: str) -> list[FoundEvent]:
    """Return the event that is published under this id later, if there is one."""
    if has_surrogate(asked):
        return []
    packed, due_us = await asyncio.gather(
        client.store.call("HGET", client.names.bus("delayed-items"), asked),
        client.store.call("ZSCORE", client.names.bus("delayed"), asked),
    )
    if packed is None or due_us is None:
        return []
    item = DelayedItem.unpack(packed) or DelayedItem("", packed)
    event = _found(Event("", item.channel, item.payload, asked, item.key, by=item.by), -1, "delayed")
    return [msgspec.structs.replace(event, due_ms=round(float(due_us) / 1000))]


async def _records(client: Client, asked: str, shard: int) -> AsyncIterator[EventRecord]:
    if _POSITION.fullmatch(asked):
        for entry in await client.store.call("XRANGE", client.names.bus("events", str(shard)), asked, asked):
            yield EventRecord(entry)
        return
    async for page in newest_first(client, shard):
        for record in page:
            yield record


async def _retries(client: Client, shard: int) -> AsyncIterator[tuple[RetryItem, int]]:
    names = client.names
    items, due = await asyncio.gather(
        client.store.call("HGETALL", names.bus("retry-items", str(shard)), timeout_s=TIMEOUT_S),
        client.store.call("ZRANGE", names.bus("retries", str(shard)), 0, -1, "WITHSCORES", timeout_s=TIMEOUT_S),
    )
    due_us = dict(zip(due[::2], map(float, due[1::2]), strict=True))
    now_us = client.now_us()
    for name, packed in zip(items[::2], items[1::2], strict=True):
        if name in due_us:
            yield RetryItem.unpack(packed.partition(b"\n")[2]), max(0, round((due_us[name] - now_us) / 1000))


async def _add_effects(client: Client, found: Mapping[Place, FoundEvent]) -> None:
    """Look for the events among the causes in the journal, which names each by its id, else by its position."""
    by_name = {event.id or event.position: event for event in found.values()}
    if not by_name:
        return
    async for page in stream_pages(client.store, client.names.journal):
        for identity, fields in page:
            scopes = fields.get("scopes", b"").decode(errors="replace").split("\n")
            for caused in read_causes(fields.get("cause", b""), scopes):
                event = by_name.get(caused.cause.what) if caused.cause.kind == "event" else None
                if event is not None:
                    clock = int(identity.partition(b"-")[0])
                    event.invalidated.append(EventEffect(caused.cause.who, clock, caused.scopes))


def _place(event: Event | RetryItem) -> Place:
    return event.position, event.channel, event.id, event.key


def _found(event: Event, shard: int, state: str) -> FoundEvent:
    payload = event.payload.decode(errors="backslashreplace")
    published_ms = event.published_ms if _POSITION.fullmatch(event.position) else 0
    place = event.id, event.position, event.channel, event.key, payload, published_ms, shard, state
    return FoundEvent(*place, by=event.by)
