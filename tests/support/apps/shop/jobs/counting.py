"""Two jobs that leave a trace in a file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from cachebus.cache.upkeep.warming import Warm
from cachebus.schedules.decorators import cron, every


def _trace(name: str, text: str) -> None:
    with (Path(os.environ["SHOP_FOLDER"]) / name).open("a", encoding="utf-8") as trace:
        trace.write(text)


@cron("0 0 1 1 *")
async def yearly() -> None:
    """Not in a test, unless somebody asks for it."""
    _trace("counted", "once\n")


@cron("0 0 1 1 *")
async def slowly(warm: Warm) -> None:
    """Says how far it is."""
    warm.say("half")
    await asyncio.sleep(0.3)
    warm.say("whole")


@every("1s")
async def ticking() -> None:
    """All the time."""
    _trace("ticked", ".")
