"""What waits in Redis: events, retries, refreshes, dead letters; and how long the lists are that end by themselves."""

from __future__ import annotations

import asyncio

import msgspec

from cachebus.link import Link


class ShardBacklog(msgspec.Struct, frozen=True):
    """One stream of events."""

    shard: int
    holder: str
    """The worker that handles it; '' while nobody does."""
    stored: int
    """Events in the stream, handled ones included."""
    waiting: int
    """Events not handled yet."""
    retries: int
    """Events that failed and are tried again later."""


class Backlog(msgspec.Struct, frozen=True):
    """Everything that waits, and the lengths of what is kept."""

    shards: list[ShardBacklog]
    refreshes: int
    dead_letters: int
    feed: int
    journal: int
    ledger: int


async def backlog(link: Link, shards: int) -> Backlog:
    """Look; one shared round trip. Raises: ServerError."""
    names, call = link.names, link.store.call
    lengths = asyncio.gather(
        call("ZCARD", names.bus("refreshes")),
        call("XLEN", names.bus("deadletters")),
        call("XLEN", names.feed),
        call("XLEN", names.journal),
        call("ZCARD", names.ledger),
    )
    found = await asyncio.gather(*[_shard(link, number) for number in range(shards)])
    return Backlog(list(found), *await lengths)


async def _shard(link: Link, number: int) -> ShardBacklog:
    names, call = link.names, link.store.call
    lease, stored, behind, retries = await asyncio.gather(
        call("GET", names.bus("lease", str(number))),
        call("XLEN", names.bus("events", str(number))),
        call("HGET", names.bus("shard", str(number)), "behind"),
        call("ZCARD", names.bus("retries", str(number))),
    )
    holder = lease.decode().partition("/")[0] if lease else ""  # what follows tells one holding from the next
    return ShardBacklog(number, holder, stored, stored - int(behind or 0), retries)
