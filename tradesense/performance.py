"""Positions and profit from trades. Pure: rows in, figures out."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tradesense.results import CostBasis, Grouping, Period, PortfolioSummary, Position, Side, Trade, TradeAnalytics


class Closed(NamedTuple):
    """One sale, matched with what was bought before. Fees of both sides are in `profit`."""

    at: datetime.datetime
    symbol: str
    quantity: int
    profit: float


class Lots:
    """What is held of one symbol, and which shares a sale sells."""

    def __init__(self, basis: CostBasis) -> None:
        self._basis = basis
        self._lots: deque[tuple[int, float]] = deque()
        self.quantity = 0
        self.cost = 0.0

    def buy(self, quantity: int, cost: float) -> None:
        """Add shares that cost this much altogether."""
        self._lots.append((quantity, cost / quantity))
        self.quantity += quantity
        self.cost += cost

    def sell(self, quantity: int) -> float:
        """Take shares out; returns what they had cost. More than is held: only what is held."""
        quantity = min(quantity, self.quantity)
        if self._basis is CostBasis.AVERAGE:
            cost = self.cost * quantity / self.quantity if self.quantity else 0.0
        else:
            cost = self._take_oldest(quantity)
        self.quantity -= quantity
        self.cost = self.cost - cost if self.quantity else 0.0
        return cost

    def _take_oldest(self, quantity: int) -> float:
        cost = 0.0
        while quantity:
            held, each = self._lots.popleft()
            taken = min(held, quantity)
            cost += taken * each
            quantity -= taken
            if held > taken:
                self._lots.appendleft((held - taken, each))
        return cost


def replay(trades: Iterable[Trade], basis: CostBasis) -> tuple[dict[str, Lots], list[Closed]]:
    """Go through *trades* in order of time; return what is held now, and every sale with its profit."""
    lots: dict[str, Lots] = {}
    closed: list[Closed] = []
    for trade in trades:
        held = lots.setdefault(trade.symbol, Lots(basis))
        if trade.side is Side.BUY:
            held.buy(trade.quantity, trade.quantity * trade.price + trade.fee)
            continue
        sold = min(trade.quantity, held.quantity)
        if sold:
            proceeds = sold * trade.price - trade.fee
            closed.append(Closed(trade.at, trade.symbol, sold, proceeds - held.sell(sold)))
    return lots, closed


def summarize(user_id: int, trades: list[Trade], closes: Mapping[str, float], basis: CostBasis) -> PortfolioSummary:
    """Return what a user holds, valued at *closes*."""
    lots, closed = replay(trades, basis)
    positions = []
    for symbol, held in sorted(lots.items()):
        if held.quantity:
            value = held.quantity * closes[symbol]
            positions.append(Position(symbol, held.quantity, held.cost, value, value - held.cost))
    cost, value = sum(p.cost for p in positions), sum(p.value for p in positions)
    realized = sum(sale.profit for sale in closed)
    return PortfolioSummary(user_id, len(trades), tuple(positions), cost, value, value - cost, realized)


def analyze(user_id: int, trades: list[Trade], basis: CostBasis, zone: str, grouping: Grouping) -> TradeAnalytics:
    """Return how a user's sales went, grouped by periods of the user's own calendar."""
    _, closed = replay(trades, basis)
    profits = [sale.profit for sale in closed]
    wins, losses = [p for p in profits if p > 0], [p for p in profits if p < 0]
    return TradeAnalytics(
        user_id=user_id,
        trades=len(trades),
        closed=len(closed),
        realized=sum(profits),
        fees=sum(trade.fee for trade in trades),
        win_rate=len(wins) / len(profits) if profits else 0.0,
        profit_factor=sum(wins) / -sum(losses) if losses else None,
        average_win=sum(wins) / len(wins) if wins else 0.0,
        average_loss=sum(losses) / len(losses) if losses else 0.0,
        best=max(profits, default=0.0),
        worst=min(profits, default=0.0),
        periods=periods(closed, zone, grouping),
    )


def periods(closed: Iterable[Closed], zone: str, grouping: Grouping) -> tuple[Period, ...]:
    """Group sales by day, week (from Monday) or month of *zone*."""
    sums: dict[datetime.date, tuple[float, int]] = {}
    clock = ZoneInfo(zone)
    for sale in closed:
        begins = _begins(sale.at.astimezone(clock).date(), grouping)
        profit, count = sums.get(begins, (0.0, 0))
        sums[begins] = (profit + sale.profit, count + 1)
    return tuple(Period(begins, profit, count) for begins, (profit, count) in sorted(sums.items()))


def _begins(day: datetime.date, grouping: Grouping) -> datetime.date:
    if grouping is Grouping.WEEK:
        return day - datetime.timedelta(days=day.weekday())
    return day.replace(day=1) if grouping is Grouping.MONTH else day
