"""The feed, told again in other programs' forms: each broadcast at least once, by one worker at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from cachebus.adapters import Form
from cachebus.errors import LockError, ServerError
from cachebus.feed import Feed, Page
from cachebus.link import Link
from cachebus.locks import Locks

log = logging.getLogger("cachebus")

LEASE = "5s"
"""A dead worker's place is taken this long after its last sign of life."""
PAUSE_S = 1.0
KEPT_MS = 8 * 86_400_000
"""How long the place in the feed outlives the last worker that followed it."""
RENEWED_S = 86_400.0
"""Silence must not end it: a place that is gone is the newest record's, and what came meanwhile would not be told."""


class Rebroadcast:
    """Publishes each record of the feed in every one of *forms*. `run` in a task of its own, in every worker.

    One of them works, under a lock; the place in the feed is kept in Redis, so the next one goes on there. What was
    published just before a death is published again; one that drains leaves nothing to be repeated.
    """

    def __init__(self, link: Link, forms: Sequence[Form], *, lease: str = LEASE) -> None:
        self._link = link
        self._forms = forms
        self._lease = lease
        self._locks = Locks(link)
        self._place = link.names.bus("rebroadcast")
        self._page = asyncio.Lock()
        """Held from a page's first broadcast until its place is noted."""
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
            async with self._page:
                telling.cancel()
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
        """Tell the rest of the page under way, note it, and give the lock back."""
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
        keeping = asyncio.create_task(self._keep_place())
        try:
            async for page in feed.follow(last):
                async with self._page:
                    await self._tell_page(page)
        finally:
            keeping.cancel()

    async def _tell_page(self, page: Page) -> None:
        call = self._link.store.call
        if not page.recovered:
            log.warning("rebroadcast: the feed was cut shorter than our place in it; broadcasts are missing")
        for record in page.records:
            await asyncio.gather(*[call("PUBLISH", *form(record)) for form in self._forms])
            self.told += 1
        await call("SET", self._place, page.last, "PX", KEPT_MS)

    async def _keep_place(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_S)
            with suppress(ServerError):  # there are seven more days to do it
                await self._link.store.call("PEXPIRE", self._place, KEPT_MS)
