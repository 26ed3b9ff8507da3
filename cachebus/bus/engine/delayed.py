"""Delayed events: kept until they are due, or cancelled before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cachebus.bus.batches import ATTEMPT_S, BYTES_A_CALL, EVENTS_A_CALL, PASSING, PAUSE_S, REMEMBER_CALL_MS, Outgoing
from cachebus.bus.letters import DelayedItem
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument


class DelayedEvents:
    """Delayed events on a server."""

    def __init__(self, client: Client, most: int) -> None:
        self._client = client
        self._most = most
        names = client.names
        self._keys = (names.bus("delayed"), names.bus("delayed-items"))
        self._wakes = names.bus("delay")

    async def put(self, events: Sequence[Outgoing], delay_ms: int, timeout_s: float) -> bool:
        """Keep events until they are due, published in this order then; False where there was no room for all.

        One script for each hundred. Raises: ServerError when time is up.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        kept = [await self._put(part, delay_ms, deadline) for part in _parts(events)]
        return all(kept)

    async def _put(self, events: Sequence[Outgoing], delay_ms: int, deadline: float) -> bool:
        args: list[Argument] = [delay_ms, self._most, self._wakes]
        for event in events:
            item = DelayedItem(event.channel, event.payload, event.key or "", event.traceparent, self._client.process)
            args += (event.id, msgspec.msgpack.encode(item), event.remember_ms or REMEMBER_CALL_MS)
        while True:
            try:
                results: list[int] = await self._run("bus/delay", [event.id for event in events], args)
                return min(results) >= 0
            except PASSING:
                if asyncio.get_running_loop().time() + PAUSE_S >= deadline:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def cancel(self, event_id: str) -> bool:
        """Take an event back; False where none waits under this id. Raises: ServerError."""
        event_id = str(event_id)
        return bool(await self._run("bus/cancel", [event_id], [event_id]))

    async def _run(self, verb: str, ids: Sequence[str], args: Sequence[Argument]) -> Any:
        keys = (*self._keys, *[self._client.names.bus("id", each) for each in ids])
        return await self._client.store.run(verb, keys, args, timeout_s=ATTEMPT_S)


def _parts(events: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    """Yield events as many at a time as one script takes."""
    part: list[Outgoing] = []
    size = 0
    for event in events:
        part.append(event)
        size += len(event.payload)
        if len(part) >= EVENTS_A_CALL or size >= BYTES_A_CALL:
            yield part
            part, size = [], 0
    if part:
        yield part
