"""Analytics and risk: the dearest figures, so the slowest pace, and only those that are read often."""

from __future__ import annotations

from cachebus import Warm, every
from schedules import OFTEN
from tradesense.views import risk, trade_analytics


@every("2m", jitter="20s")
async def popular_analytics(warm: Warm) -> None:
    """How trades went."""
    await warm(trade_analytics, await warm.popular(trade_analytics, 200, least=OFTEN), per_second=25)


@every("2m", jitter="40s")
async def popular_risk(warm: Warm) -> None:
    """Drawdown, volatility, Sharpe ratio."""
    await warm(risk, await warm.popular(risk, 200, least=OFTEN), per_second=10, concurrency=2)
