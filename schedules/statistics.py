"""Statistics: one dear query for everyone."""

from __future__ import annotations

from cachebus import Warm, every
from tradesense.views import statistics


@every("2m", jitter="10s")
async def overall_statistics(warm: Warm) -> None:
    """The sums over all trades."""
    await warm(statistics, [()])
