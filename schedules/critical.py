"""Critical views: renewed before they expire as long as somebody reads them, so that no reader ever waits."""

from __future__ import annotations

from cachebus import Warm, every
from tradesense.views import cache


@every("30s")
async def critical_views(warm: Warm) -> None:
    """A quarter of the shortest TTL among them, two minutes: each is looked at in the last quarter of its own."""
    for view in cache.views.values():
        if view.critical:
            await warm.ahead(view)
