"""Market data: what is read often, from half an hour before the exchange opens to an hour after it closes; then all.

Times are New York's, whatever the clocks do there. On holidays the same bars are loaded again: a few cheap queries.
"""

from __future__ import annotations

from cachebus import Warm, cron, daily
from schedules import OFTEN
from tradesense.market import INSTRUMENTS
from tradesense.views import market_data, price_history

NEW_YORK = "America/New_York"


@cron("* 9-16 * * mon-fri", zone=NEW_YORK, jitter="5s")
async def open_market(warm: Warm) -> None:
    """Each minute, as long as its TTL."""
    for view in (market_data, price_history):
        await warm(view, await warm.popular(view, 200, least=OFTEN), per_second=20)


@daily("18:30", zone=NEW_YORK)
async def closed_market(warm: Warm) -> None:
    """After the day's bars are in."""
    for view in (market_data, price_history):
        await warm(view, INSTRUMENTS, per_second=20)
