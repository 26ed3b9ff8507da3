"""What changes rarely and everybody needs."""

from __future__ import annotations

from cachebus.schedules import daily, every
from cachebus.warming import Warm
from tradesense.views import reference_data, statistics


@daily("05:00", misfire="once")
async def reference(warm: Warm) -> None:
    """Before the first user comes."""
    await warm(reference_data, [()])


@every("45m", jitter="1m")
async def reference_ahead(warm: Warm) -> None:
    """Within its hour, so that nobody waits for it."""
    await warm(reference_data, [()])


@every("2m", jitter="10s")
async def overall_statistics(warm: Warm) -> None:
    """The sums over all trades: one dear query for everyone."""
    await warm(statistics, [()])
