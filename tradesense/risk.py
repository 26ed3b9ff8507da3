"""Risk figures of an equity curve. Pure."""

from __future__ import annotations

import datetime
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tradesense.market import trading_day
from tradesense.performance import paid_cents, signed_quantity
from tradesense.results import EquityPoint, Risk, Trade

TRADING_DAYS = 252
"""Trading days of a year, by which daily figures are annualized."""
FEWEST_DAYS = 20
"""With fewer returns a standard deviation says nothing."""


class Day(NamedTuple):
    """One close of the portfolio, in cents."""

    day: datetime.date
    value: float
    """What the positions are worth; short ones count below zero."""
    profit: float
    """Value minus all cash paid in so far: realized and unrealized together."""
    capital: float
    """What was at work that day: positions at the close before, long or short, and what was opened since."""


class _Book:
    """What is held, and at which price each symbol was last seen."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.marks: dict[str, float] = {}
        self.paid = 0
        self.opened = 0

    def apply(self, trade: Trade) -> None:
        before = self.held.get(trade.symbol, 0)
        after = self.held[trade.symbol] = before + signed_quantity(trade)
        same_side = before * after > 0
        self.opened += max(0, abs(after) - (abs(before) if same_side else 0)) * trade.price_cents
        self.paid += paid_cents(trade)
        self.marks.setdefault(trade.symbol, trade.price_cents)  # worth what it cost until there is a close

    def close(self, day: datetime.date, closes: Mapping[str, float], capital: float) -> Day:
        for symbol in self.held.keys() & closes.keys():
            self.marks[symbol] = closes[symbol] * 100
        value = sum(quantity * self.marks[symbol] for symbol, quantity in self.held.items())
        capital, self.opened = capital + self.opened, 0
        return Day(day, value, value - self.paid, capital)

    def exposure(self) -> float:
        return sum(abs(quantity) * self.marks[symbol] for symbol, quantity in self.held.items())


def curve(trades: Sequence[Trade], closes: Mapping[datetime.date, Mapping[str, float]]) -> list[Day]:
    """Return the portfolio at each close from the first trade on.

    *trades* in order of time; *closes* by day and symbol. A trade belongs to the first close of its day or later; what
    was traded after the last close makes one more day, valued at the closes there are.
    """
    book, result, upcoming, exposure = _Book(), [], 0, 0.0
    traded = [trading_day(trade.at) for trade in trades]
    days = sorted(day for day in closes if traded and day >= traded[0])
    if traded and (not days or traded[-1] > days[-1]):
        days.append(traded[-1])
    for day in days:
        while upcoming < len(trades) and traded[upcoming] <= day:
            book.apply(trades[upcoming])
            upcoming += 1
        result.append(book.close(day, closes.get(day, {}), exposure))
        exposure = book.exposure()
    return result


def daily_returns(days: Sequence[Day]) -> list[float]:
    """Return each day's change of profit over the capital at work that day; days without capital have no return.

    Time-weighted, flows at the start of the day: what is paid in changes the capital, not the return.
    Source: Bacon, Practical Portfolio Performance Measurement and Attribution (2008), chapter 2.
    """
    profits = [0.0, *(day.profit for day in days)]
    steps = zip(days, itertools.pairwise(profits), strict=True)
    return [(after - before) / day.capital for day, (before, after) in steps if day.capital > 0]


def max_drawdown(levels: Sequence[float]) -> float:
    """Return the largest fall from an earlier peak, in the unit of *levels*.

    Source: Magdon-Ismail and Atiya, "Maximum drawdown", Risk 17(10), 2004.
    """
    peaks = itertools.accumulate(levels, max)
    return max((peak - level for peak, level in zip(peaks, levels, strict=True)), default=0.0)


def relative_drawdown(returns: Sequence[float]) -> float:
    """Return the largest fall of the compounded returns as a share of the peak; 1 where everything was lost."""
    fall = 0.0
    peak = wealth = 1.0
    for rate in returns:
        wealth *= 1 + rate
        if wealth <= 0:
            return 1.0
        peak = max(peak, wealth)
        fall = max(fall, 1 - wealth / peak)
    return fall


def assess(user_id: int, days: Sequence[Day], risk_free_rate: float) -> Risk:
    """Return the risk figures of a curve; *risk_free_rate* is a yearly fraction.

    Source: Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994.
    """
    returns = daily_returns(days)
    volatility = sharpe = None
    if len(returns) >= FEWEST_DAYS:
        deviation = statistics.stdev(returns)
        excess = statistics.fmean(returns) - risk_free_rate / TRADING_DAYS
        volatility = deviation * math.sqrt(TRADING_DAYS)
        sharpe = excess / deviation * math.sqrt(TRADING_DAYS) if deviation else None
    return Risk(
        user_id=user_id,
        days=len(days),
        max_drawdown=relative_drawdown(returns),
        max_drawdown_cents=round(max_drawdown([0.0, *(day.profit for day in days)])),
        volatility=volatility,
        sharpe=sharpe,
        equity=month_ends(days),
    )


def month_ends(days: Sequence[Day]) -> tuple[EquityPoint, ...]:
    """Return the last close of each month."""
    last = {(day.day.year, day.day.month): day for day in days}
    return tuple(EquityPoint(day.day, round(day.value), round(day.profit)) for day in last.values())
