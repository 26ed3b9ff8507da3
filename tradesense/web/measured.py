"""How long each answer took in this process, and the same answer without the cache."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Annotated, Any

from fastapi import Depends, Query

from tradesense.views import cache


class ServerTiming:
    """Says in each response how long it took (`Server-Timing: app;dur=0.4`, milliseconds), which browsers can show.

    Source: W3C, Server Timing.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        began = perf_counter()

        async def send_timed(message: Any) -> None:
            if message["type"] == "http.response.start":
                took = f"app;dur={(perf_counter() - began) * 1000:.2f}"
                message["headers"] = [*message.get("headers", ()), (b"server-timing", took.encode())]
            await send(message)

        await self._app(scope, receive, send_timed)


async def without_cache(bare: Annotated[bool, Query()] = False) -> AsyncIterator[None]:
    """With `?bare=true` every view of this request loads from the database, and stores nothing."""
    if not bare:
        yield
        return
    with cache.loading_only():
        yield


WithoutCache = Depends(without_cache)
