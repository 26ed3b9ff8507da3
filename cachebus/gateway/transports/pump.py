"""Moves what waits for a client to its connection, until the client is to be closed. The same for every transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic

from cachebus.gateway.delivery.hub import Follower
from cachebus.gateway.protocol import EncodedMessage, Notice

Send = Callable[[EncodedMessage | Notice], Awaitable[None]]


async def serve(client: Follower, send: Send, until: Awaitable[None]) -> None:
    """Send what waits; return when *until* ends or the client is to be closed, also while it takes nothing."""
    wake, closing = asyncio.Event(), asyncio.Event()

    def woken() -> None:
        wake.set()
        if client.closing is not None:
            closing.set()

    client.queue.wake = woken
    woken()
    tasks = [
        asyncio.ensure_future(_send_all(client, send, wake)),
        asyncio.ensure_future(until),
        asyncio.ensure_future(closing.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        client.queue.wake = lambda: None
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _send_all(client: Follower, send: Send, wake: asyncio.Event) -> None:
    queue = client.queue
    while True:
        await wake.wait()
        wake.clear()
        while taken := queue.take(monotonic()):
            for item in taken:
                await send(item)
                queue.progress(monotonic(), done=False)
            queue.progress(monotonic(), done=True)
