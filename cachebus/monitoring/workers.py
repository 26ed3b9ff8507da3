"""Which workers are at work: each says so in one hash, and strikes itself off when it leaves."""

from __future__ import annotations

import msgspec

from cachebus.redis.client import Client

SILENT_S = 20.0
"""A worker that has said nothing for this long is gone, or stuck. Four of its beats."""


class WorkerEntry(msgspec.Struct, frozen=True):
    """What a worker says of itself. `at_us` is the server's time."""

    name: str
    at_us: int
    state: str
    why: str


async def workers(client: Client) -> list[WorkerEntry]:
    """Return what every living worker of this deployment last said; the silent are struck off. Raises: ServerError."""
    roster = client.names.bus("workers")
    reply = await client.store.call("HGETALL", roster)
    entries = [msgspec.json.decode(entry, type=WorkerEntry) for entry in reply[1::2]]
    silent = [entry for entry in entries if client.now_us() - entry.at_us > SILENT_S * 1_000_000]
    if silent:
        await client.store.call("HDEL", roster, *(entry.name for entry in silent))
    return sorted((entry for entry in entries if entry not in silent), key=lambda entry: entry.name)
