"""The feed, told again in other programs' forms: each broadcast at least once, by one worker at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from cachebus.adapters import Form
from cachebus.errors import LockError, ServerError
from cachebus.feed import Feed
from cachebus.link import Link
from cachebus.locks import Locks

log = logging.getLogger("cachebus")

LEASE = "5s"
"""A dead worker's place is taken this long after its last sign of life."""
PAUSE_S = 1.0
KEPT_MS = 8 * 86_400_000
"""How long the place in the feed outlives the last broadcast."""


class Rebroadcast:
    """Publishes each record of the feed in every one of *forms*. `run` in a task of its own, in every worker.

    One of them works, under a lock; the place in the feed is kept in Redis, so the next one goes on there. What was
    published just before a death is published again.
    """

    def __init__(self, link: Link, forms: Sequence[Form], *, lease: str = LEASE) -> None:
        self._link = link
        self._forms = forms
        self._lease = lease
        self._locks = Locks(link)
        self._place = link.names.bus("rebroadcast")
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()
        self.told = 0
        """Broadcasts this worker has told again."""

    async def run(self) -> None:
        """Take turns until cancelled; outages are waited out."""
        self._ended.clear()
        telling, draining = asyncio.create_task(self._take_turns()), asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait((telling, draining), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, draining):
                task.cancel()
            await asyncio.gather(telling, draining, return_exceptions=True)
            await self._locks.close()
            self._ended.set()
        if not telling.cancelled():
            telling.result()
        await asyncio.get_running_loop().create_future()  # drained: nothing to do until cancelled

    async def drain(self) -> None:
        """Give the lock back and tell nothing more."""
        self._draining.set()
        await self._ended.wait()

    async def _take_turns(self) -> None:
        while True:
            try:
                async with self._locks.lock("rebroadcast", self._lease):
                    await self._tell()
            except (LockError, ServerError) as away:
                log.debug("rebroadcast: %s", away)
                await asyncio.sleep(PAUSE_S)

    async def _tell(self) -> None:
        call, feed = self._link.store.call, Feed(self._link)
        place = await call("GET", self._place)
        last = place.decode() if place is not None else await feed.newest()
        await call("SET", self._place, last, "PX", KEPT_MS)
        async for page in feed.follow(last):
            if not page.recovered:
                log.warning("rebroadcast: the feed was cut shorter than our place in it; broadcasts are missing")
            for record in page.records:
                await asyncio.gather(*[call("PUBLISH", *form(record)) for form in self._forms])
                self.told += 1
            await call("SET", self._place, page.last, "PX", KEPT_MS)
