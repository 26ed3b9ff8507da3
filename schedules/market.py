"""Market data: every symbol, while the exchange is open and once after it closed."""

from __future__ import annotations

from cachebus.schedules import cron, daily
from cachebus.warming import Warm
from tradesense.market import INSTRUMENTS
from tradesense.views import market_data

NEW_YORK = "America/New_York"


@cron("* 9-16 * * mon-fri", zone=NEW_YORK, jitter="5s")
async def open_market(warm: Warm) -> None:
    """Each minute of the trading day."""
    await warm(market_data, INSTRUMENTS, per_second=20)


@daily("18:30", zone=NEW_YORK)
async def closed_market(warm: Warm) -> None:
    """After the day's bars are in."""
    await warm(market_data, INSTRUMENTS, per_second=20)
