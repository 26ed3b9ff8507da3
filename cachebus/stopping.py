"""Work that only waits, and is given up when its part is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def unless(stopped: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run *work* to its end, or give it up as soon as *stopped* is set. Raises: what *work* raises."""
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
