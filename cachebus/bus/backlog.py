"""What waits in Redis: events, retries, refreshes, dead letters; and how long the lists are that end by themselves."""

from __future__ import annotations

import asyncio

import msgspec

from cachebus.redis.client import Client


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
    debounced: int
    """Windows that are open: each is one run of a debounced handler."""


class Backlog(msgspec.Struct, frozen=True):
    """Everything that waits, and the lengths of what is kept."""

    shards: list[ShardBacklog]
    refreshes: int
    delayed: int
    """Events that are to be published later."""
    dead_letters: int
    feed: int
    journal: int
    ledger: int
    """Keys, prefixes and tags whose last invalidation is remembered."""


OF_ITSELF = ("@clock", "@floor", "@size", "@began", "@start")
"""What the ledger says of itself among the scopes, with a score that may be theirs (`freshness/lua/ledger.lua`)."""
MOST_SHARDS = 64
"""`BUS_SHARDS` is never more."""


async def known_shards(client: Client) -> int:
    """Return over how many shards events are spread, for whoever was not told: those that a worker has been at work on.

    One shared round trip. Raises: ServerError.
    """
    names = [client.names.bus("shard", str(number)) for number in range(MOST_SHARDS)]
    found = await asyncio.gather(*[client.store.call("EXISTS", name) for name in names])
    return max((number for number, there in enumerate(found) if there), default=0) + 1


async def backlog(client: Client, shards: int) -> Backlog:
    """Look; one shared round trip. Raises: ServerError."""
    names, call = client.names, client.store.call
    found, lengths = await asyncio.gather(
        asyncio.gather(*[_shard(client, number) for number in range(shards)]),
        asyncio.gather(
            call("ZCARD", names.bus("refreshes")),
            call("ZCARD", names.bus("delayed")),
            call("XLEN", names.bus("deadletters")),
            call("XLEN", names.feed),
            call("XLEN", names.journal),
            call("ZCOUNT", names.ledger, 0, "+inf"),
            call("ZMSCORE", names.ledger, *OF_ITSELF),
        ),
    )
    refreshes, delayed, letters, feed, journal, members, of_itself = lengths
    scopes = members - sum(score is not None for score in of_itself)
    return Backlog(list(found), refreshes, delayed, letters, feed, journal, scopes)


async def _shard(client: Client, number: int) -> ShardBacklog:
    names, call = client.names, client.store.call
    lease, stored, behind, retries, debounced = await asyncio.gather(
        call("GET", names.bus("lease", str(number))),
        call("XLEN", names.bus("events", str(number))),
        call("HGET", names.bus("shard", str(number)), "behind"),
        call("ZCARD", names.bus("retries", str(number))),
        call("ZCARD", names.bus("debounced", str(number))),
    )
    holder = lease.decode().partition("/")[0] if lease else ""  # what follows tells one holding from the next
    return ShardBacklog(number, holder, stored, stored - int(behind or 0), retries, debounced)
