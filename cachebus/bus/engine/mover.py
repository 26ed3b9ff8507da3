"""The mover publishes delayed events when they are due. Every worker has one; each event is published once.

There is no leader. All movers look at the same first events, and the script that publishes them takes them away in the
same step: what another mover was faster with is passed over, and the order of due times holds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from cachebus.bus.batches import BYTES_A_CALL
from cachebus.bus.engine.draining import PAUSE_S, Sleeper, until_due
from cachebus.bus.events import shard_of
from cachebus.bus.letters import DelayedItem
from cachebus.bus.publisher import MOST_EVENTS
from cachebus.bus.signatures import Signatures
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument

log = logging.getLogger("cachebus")

AT_ONCE = 100
ANSWER_S = 2.0


@dataclass(slots=True)
class MoverStats:
    """What a mover has done: plain counters."""

    moved: int = 0
    """Delayed events that were published here."""
    full: int = 0
    """Times a stream had no room for them."""
    faults: int = 0


class Mover(Sleeper):
    """Publishes delayed events that are due. `run` in a task of its own."""

    def __init__(
        self, client: Client, *, shards: int = 1, max_events: int = MOST_EVENTS, signatures: Signatures | None = None
    ) -> None:
        names = client.names
        super().__init__(client, names.bus("delay"), "delayed events")
        self._keys = (names.bus("delayed"), names.bus("delayed-items"))
        self._streams = [names.bus("events", str(shard)) for shard in range(shards)]
        self._skips = names.bus("skip")
        self._max_events = max_events
        self._signatures = signatures
        self.stats: MoverStats = MoverStats()

    async def _look(self) -> float:
        """Publish what is due; return how long until the next is."""
        look = "bus/engine/look_at_delayed"
        due_ms, *found = await self._client.store.run(look, self._keys, (AT_ONCE, BYTES_A_CALL), timeout_s=ANSWER_S)
        if found:
            return 0 if await self._move(found) else PAUSE_S
        return until_due(due_ms)

    async def _move(self, found: list[bytes]) -> bool:
        """Publish events; False where a stream had no room for all of them."""
        args: list[Argument] = [self._max_events, self._skips]
        for name, packed in zip(found[::2], found[1::2], strict=True):
            args += self._event(name, packed)
        moved, full = await self._client.store.run(
            "bus/engine/move_delayed", (*self._keys, *self._streams), args, timeout_s=ANSWER_S
        )
        self.stats.moved += moved
        if full and not self.stats.full:
            log.warning("delayed events: %s events wait, those that are due are held back", f"{self._max_events:,}")
        self.stats.full += full
        return not full

    def _event(self, name: bytes, packed: bytes) -> Iterator[Argument]:
        """Yield an event as the script takes it. What is no event goes to no channel."""
        item = DelayedItem.unpack(packed)
        if item is None:
            log.error("delayed events: what waits under %r is no event; it is dropped", name)
            item = DelayedItem("", packed)
        further: list[Argument] = ["key", item.key] if item.key else []
        further += ["traceparent", item.traceparent] if item.traceparent else []
        further += ["by", item.by] if item.by else []
        if self._signatures is not None:
            now_s = self._client.now_us() // 1_000_000
            further += self._signatures.sign(item.channel, name.decode(errors="replace"), item.payload, now_s)
        yield from (name, shard_of(item.key or item.channel, len(self._streams)), item.channel, item.payload)
        yield from (len(further), *further)
