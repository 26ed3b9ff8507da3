"""Portfolios: whoever looks again and again finds them warm; `critical.py` sees to those that are about to expire."""

from __future__ import annotations

from cachebus import Warm, every
from schedules import OFTEN
from tradesense.views import portfolio_summary, user_settings


@every("60s", jitter="10s")
async def active_portfolios(warm: Warm) -> None:
    """Settings first: a page looks them up before it reads the portfolio."""
    await warm(user_settings, await warm.popular(user_settings, 300, least=OFTEN), per_second=100)
    await warm(portfolio_summary, await warm.popular(portfolio_summary, 300, least=OFTEN), per_second=50)
