"""Portfolios and analytics: whoever looked lately finds them warm."""

from __future__ import annotations

from cachebus.schedules import every
from cachebus.warming import Warm
from tradesense.views import portfolio_summary, risk, trade_analytics, user_settings


@every("60s", jitter="10s")
async def active_portfolios(warm: Warm) -> None:
    """The users most looked at: their settings, then what they hold."""
    await warm(user_settings, await warm.popular(user_settings, 300), per_second=100)
    await warm(portfolio_summary, await warm.popular(portfolio_summary, 300), per_second=50)


@every("2m", jitter="20s")
async def active_analytics(warm: Warm) -> None:
    """The same users' analytics and risk: the dearest figures, so the slowest pace."""
    await warm(trade_analytics, await warm.popular(trade_analytics, 200), per_second=25)
    await warm(risk, await warm.popular(risk, 200), per_second=10, concurrency=2)
