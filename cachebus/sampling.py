"""The consistency sampler: asks the source again, now and then, whether what was served is still true.

The freshness rule guarantees that nothing invalidated is served. It cannot know of a change that nobody announced: a
write path that forgot its event, a cron job, a hand in the database. The sampler finds those.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from cachebus.codec import Codec
from cachebus.errors import ServerError
from cachebus.ledger import Ledger
from cachebus.memory import Held, Memory
from cachebus.stats import ViewStats

log = logging.getLogger("cachebus")

SETTLE_S = 1.0
"""How long an invalidation may trail the change it announces before the difference counts as stale."""
AT_ONCE = 2
"""Checks under way at the same time; more are skipped, they are only samples."""


class ConsistencySampler:
    """Compares one in *every* memory hits with a fresh load, in the background."""

    def __init__(self, every: int, memory: Memory, ledger: Ledger | None) -> None:
        self._every = every
        self._memory = memory
        self._ledger = ledger
        self._checks: set[asyncio.Task[None]] = set()

    def wants(self, hits: int) -> bool:
        """Return whether hit number *hits* is a sample."""
        return self._every > 0 and hits % self._every == 0 and len(self._checks) < AT_ONCE

    def check(self, key: str, held: Held, codec: Codec, stats: ViewStats, load: Callable[[], Awaitable[Any]]) -> None:
        """Compare *held* with what *load* returns now; a difference that nobody announced is counted and told."""
        task = asyncio.ensure_future(self._check(key, held, codec, stats, load))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def close(self) -> None:
        """Give up the checks under way."""
        for task in self._checks:
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)

    async def _check(
        self, key: str, held: Held, codec: Codec, stats: ViewStats, load: Callable[[], Awaitable[Any]]
    ) -> None:
        served = held.payload if held.payload is not None else codec.encode(held.value)
        try:
            truth = codec.encode(await load())
        except Exception as failed:  # noqa: BLE001 - a sample that cannot be taken is no sample
            log.debug("%s: no consistency sample: %r", key, failed)
            return
        stats.samples += 1
        if truth == served:
            return
        await asyncio.sleep(SETTLE_S)
        if self._memory.held.get(key) is held and await self._still_valid(held):
            stats.stale_detected += 1
            log.warning("%s: the source has changed and nothing invalidated it; does every write path say so?", key)

    async def _still_valid(self, held: Held) -> bool:
        if self._ledger is None:
            return True
        try:
            answer = await self._ledger.ask(held.scopes)
        except ServerError:
            return False
        return answer.allows(held.as_of, held.scopes)
