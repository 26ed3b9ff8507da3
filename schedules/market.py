"""Market data: every symbol, from half an hour before the exchange opens to an hour after it closes, and once more.

Times are New York's, whatever the clocks do there. On holidays the same bars are loaded again: a few cheap queries.
"""

from __future__ import annotations

from cachebus.schedules import cron, daily
from cachebus.warming import Warm
from tradesense.market import INSTRUMENTS
from tradesense.views import market_data

NEW_YORK = "America/New_York"


@cron("* 9-16 * * mon-fri", zone=NEW_YORK, jitter="5s")
async def open_market(warm: Warm) -> None:
    """Each minute, as long as its TTL."""
    await warm(market_data, INSTRUMENTS, per_second=20)


@daily("18:30", zone=NEW_YORK)
async def closed_market(warm: Warm) -> None:
    """After the day's bars are in."""
    await warm(market_data, INSTRUMENTS, per_second=20)
