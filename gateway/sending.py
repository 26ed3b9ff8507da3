"""Moves what waits for a client to its connection, until the client is to be closed. The same for every transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic

from gateway.hub import Client
from gateway.message import Message, Notice

Send = Callable[[Message | Notice], Awaitable[None]]


async def serve(client: Client, send: Send, until: Awaitable[None]) -> None:
    """Send what waits; return when *until* ends or the client is to be closed, also while it takes nothing."""
    wake, closing = asyncio.Event(), asyncio.Event()

    def woken() -> None:
        wake.set()
        if client.closing is not None:
            closing.set()

    client.outbox.wake = woken
    woken()
    tasks = [
        asyncio.ensure_future(_send_all(client, send, wake)),
        asyncio.ensure_future(until),
        asyncio.ensure_future(closing.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        client.outbox.wake = lambda: None
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _send_all(client: Client, send: Send, wake: asyncio.Event) -> None:
    outbox = client.outbox
    while True:
        await wake.wait()
        wake.clear()
        while taken := outbox.take(monotonic()):
            for item in taken:
                await send(item)
                outbox.progress(monotonic(), done=False)
            outbox.progress(monotonic(), done=True)
