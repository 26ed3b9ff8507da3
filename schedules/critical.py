"""Critical views: renewed before they expire as long as somebody reads them, so that no reader ever waits."""

from __future__ import annotations

from cachebus.schedules import every
from cachebus.warming import Warm
from tradesense.views import cache


@every("15s")
async def critical_views(warm: Warm) -> None:
    """A quarter of a minute's TTL, the shortest a critical view may have."""
    for view in cache.views.values():
        if view.critical:
            await warm.ahead(view)
