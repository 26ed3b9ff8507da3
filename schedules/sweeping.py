"""Sweeping: entries that were invalidated and are not asked for again give their memory back."""

from __future__ import annotations

import logging

from cachebus import Warm, every
from cachebus.cache.upkeep.sweeper import Sweeper
from tradesense.views import cache

log = logging.getLogger(__name__)


@every("1h", jitter="5m", max_run="50m")
async def dead_entries(warm: Warm) -> None:
    """Slowly: a thousand commands a second, of which the server notices nothing."""
    swept = await Sweeper(cache.client).sweep(budget="45m", said=warm.say)
    log.info("swept: %s entries looked at, %s removed, %s bytes", swept.looked, swept.removed, swept.bytes)
