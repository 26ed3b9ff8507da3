"""Waiting for a fact instead of for a time: a test is as fast as what it waits for, and fails when it never comes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from cachebus import Cache
from cachebus.freshness.clock import parse_clock

DEADLINE_S = 20.0
"""Generous: it is only ever waited out by a test that fails."""
LOOK_S = 0.005


async def until(
    fact: Callable[[], Any], what: str = "it did not happen in time", *, deadline_s: float = DEADLINE_S
) -> Any:
    """Return what *fact*, a function or coroutine function, answers once it is true; fail saying *what* never came."""
    clock = asyncio.get_running_loop().time
    end = clock() + deadline_s
    while True:
        found = fact()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert clock() < end, f"never happened: {what}"
        await asyncio.sleep(LOOK_S)


async def caught_up(cache: Cache, clock: str) -> None:
    """Wait until *cache* has applied the journal up to *clock*."""
    assert cache.reader is not None
    freshness, reached = cache.reader.freshness, parse_clock(clock)
    assert reached is not None
    await until(
        lambda: freshness.era == reached.era and freshness.position >= reached.number, f"the journal at {clock}"
    )
