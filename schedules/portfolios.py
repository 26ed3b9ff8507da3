"""Portfolios: whoever looked in the last hour finds them warm."""

from __future__ import annotations

from cachebus.schedules import every
from cachebus.warming import Warm
from tradesense.views import portfolio_summary, user_settings


@every("60s", jitter="10s")
async def active_portfolios(warm: Warm) -> None:
    """Settings first: a page looks them up before it reads the portfolio."""
    await warm(user_settings, await warm.recently_active(user_settings, "1h", 300), per_second=100)
    await warm(portfolio_summary, await warm.recently_active(portfolio_summary, "1h", 300), per_second=50)
