"""Waiting for a fact, with a deadline that no working machine meets."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def until(fact: Callable[[], bool | Awaitable[bool]], deadline_s: float = 20) -> None:
    """Return when *fact* holds. Raises: TimeoutError."""
    async with asyncio.timeout(deadline_s):
        while True:
            answer = fact()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.005)
