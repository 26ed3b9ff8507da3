"""A gateway without browsers: follows the feed and counts what it would pass on.

`python -m examples.listener` prints a line of JSON each second. The feed names, in each record, the one before it: a
record whose predecessor was not seen would be a hole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal

from cachebus import Client
from cachebus.bus.feed import Feed
from cachebus.worker.settings import WorkerSettings


class Listener:
    """What came, and whether something was missing."""

    def __init__(self) -> None:
        self.broadcasts = self.holes = 0

    async def follow(self, feed: Feed) -> None:
        """Pass on whatever comes, until cancelled."""
        async for page in feed.follow():
            self.broadcasts += len(page.records)
            self.holes += not page.recovered

    def line(self) -> str:
        """Return it as JSON."""
        return json.dumps({"listener": True, "broadcasts": self.broadcasts, "holes": self.holes})


async def main() -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    settings = WorkerSettings.from_environment(os.environ).cache
    if settings.url is None:
        raise SystemExit("REDIS_URL: set it to the server whose feed is to be followed")
    listener = Listener()
    async with Client(
        settings.url,
        store_url=settings.store_url,
        namespace=settings.namespace,
        credentials=settings.credentials_source(),
    ) as client:
        following = asyncio.create_task(listener.follow(Feed(client)))
        while not stop.is_set():
            print(listener.line(), flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    print(listener.line(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
