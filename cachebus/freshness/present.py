"""What the ledger says at present, for whoever follows no journal."""

from __future__ import annotations

import asyncio

from cachebus.freshness.clock import Born, clock_of, parse_score
from cachebus.freshness.era import Era
from cachebus.redis.client import Client


async def newest_clock(client: Client) -> str:
    """Return the ledger's clock as text, '' where there is none: what is read after it lacks nothing. One round trip.

    Raises: ServerError.
    """
    ledger = client.names.ledger
    era, clock = await asyncio.gather(
        client.store.call("ZRANGEBYSCORE", ledger, -1, -1), client.store.call("ZSCORE", ledger, "@clock")
    )
    if not era or clock is None:
        return ""
    return clock_of(Born(parse_score(clock), era[0].decode(errors="replace").removeprefix("@era:")))


async def present_era(client: Client) -> Era | None:
    """Return the era, None where there is no ledger yet. Two round trips. Raises: ServerError."""
    ledger = client.names.ledger
    members = [member.decode(errors="replace") for member in await client.store.call("ZRANGEBYSCORE", ledger, -3, -1)]
    names = dict(member[1:].split(":", 1) for member in members if member.startswith("@") and ":" in member)
    began = await client.store.call("ZSCORE", ledger, "@began")
    if "era" not in names or began is None:
        return None
    return Era(names["era"], names.get("why", ""), parse_score(began))
