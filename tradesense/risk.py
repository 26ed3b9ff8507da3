"""Risk figures of an equity curve. Pure."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tradesense.results import Risk, Side, Trade

TRADING_DAYS = 252
"""Trading days of a year, by which daily figures are annualized."""
FEWEST_DAYS = 20
"""With fewer returns a standard deviation says nothing."""


class Day(NamedTuple):
    """One close of the portfolio: what it is worth, and what was paid in (bought) or out (sold) that day."""

    day: datetime.date
    value: float
    flow: float


def curve(trades: Sequence[Trade], closes: dict[str, list[tuple[datetime.date, float]]]) -> list[Day]:
    """Return the portfolio at each close from the first trade on. *closes* by symbol, each in order of days."""
    if not trades:
        return []
    first = trades[0].at.date()
    days = sorted({day for series in closes.values() for day, _ in series if day >= first})
    prices = {symbol: dict(series) for symbol, series in closes.items()}
    held: dict[str, int] = {}
    last: dict[str, float] = {}
    result: list[Day] = []
    upcoming = 0
    for day in days:
        flow = 0.0
        while upcoming < len(trades) and trades[upcoming].at.date() <= day:
            trade = trades[upcoming]
            upcoming += 1
            owned = held.get(trade.symbol, 0)
            if trade.side is Side.BUY:
                held[trade.symbol] = owned + trade.quantity
                flow += trade.quantity * trade.price + trade.fee
            elif sold := min(owned, trade.quantity):
                held[trade.symbol] = owned - sold
                flow -= sold * trade.price - trade.fee
        for symbol in held:
            last[symbol] = prices[symbol].get(day, last.get(symbol, 0.0))
        result.append(Day(day, sum(quantity * last[symbol] for symbol, quantity in held.items()), flow))
    return result


def daily_returns(days: Sequence[Day]) -> list[float]:
    """Return each day's return on what was held and paid in: (value - before - flow) / (before + paid in)."""
    returns: list[float] = []
    before = 0.0
    for day in days:
        base = before + max(0.0, day.flow)
        if base > 0:
            returns.append((day.value - before - day.flow) / base)
        before = day.value
    return returns


def max_drawdown(days: Sequence[Day]) -> float:
    """Return the largest fall of cumulated profit from an earlier peak, in dollars."""
    peak = profit = before = fall = 0.0
    for day in days:
        profit += day.value - before - day.flow
        before = day.value
        peak = max(peak, profit)
        fall = max(fall, peak - profit)
    return fall


def assess(user_id: int, days: Sequence[Day], risk_free_rate: float) -> Risk:
    """Return the risk figures of a curve.

    Sharpe: mean daily return above the risk-free rate over its standard deviation, annualized. Source: Sharpe (1994).
    """
    returns = daily_returns(days)
    if len(returns) < FEWEST_DAYS:
        return Risk(user_id, len(days), max_drawdown(days), None, None)
    deviation = statistics.stdev(returns)
    excess = statistics.fmean(returns) - risk_free_rate / TRADING_DAYS
    sharpe = excess / deviation * math.sqrt(TRADING_DAYS) if deviation else None
    return Risk(user_id, len(days), max_drawdown(days), deviation * math.sqrt(TRADING_DAYS), sharpe)
