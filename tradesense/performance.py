"""Positions and profit from trades. Pure: rows in, figures out. All money is whole cents, and adds up exactly."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tradesense.results import CostBasis, Grouping, Period, PortfolioSummary, Position, Side, Trade, TradeAnalytics


class Closed(NamedTuple):
    """A trade that made a position smaller. The fees of both its ends are in the profit."""

    at: datetime.datetime
    symbol: str
    quantity: int
    profit_cents: int


@dataclass(slots=True)
class Lot:
    """Shares bought at once and what was paid for them; of shares sold short both are negative."""

    quantity: int
    cost_cents: int


class Holding:
    """The open lots of one symbol: all long or all short.

    A fee makes a purchase dearer and a sale cheaper. FIFO closes the oldest lot first; at average cost there is one
    lot, into which each further one is merged. Source: IRS Publication 550, "Cost basis" and "Average basis".
    """

    def __init__(self, basis: CostBasis) -> None:
        self._basis = basis
        self._lots: deque[Lot] = deque()

    @property
    def quantity(self) -> int:
        """Shares held; below zero when short."""
        return sum(lot.quantity for lot in self._lots)

    @property
    def cost_cents(self) -> int:
        """What was paid for them; below zero when short."""
        return sum(lot.cost_cents for lot in self._lots)

    def apply(self, trade: Trade) -> Closed | None:
        """Close what the trade closes, open the rest; returns what was closed."""
        quantity, paid = signed_quantity(trade), paid_cents(trade)
        closed = profit = 0
        while quantity and self._lots and (self._lots[0].quantity > 0) != (quantity > 0):
            lot = self._lots[0]
            count = min(abs(quantity), abs(lot.quantity))
            had_cost, costs_now = part(lot.cost_cents, count, lot.quantity), part(paid, count, quantity)
            profit -= had_cost + costs_now
            closed += count
            step = count if quantity > 0 else -count
            lot.quantity, lot.cost_cents = lot.quantity + step, lot.cost_cents - had_cost
            quantity, paid = quantity - step, paid - costs_now
            if not lot.quantity:
                self._lots.popleft()
        if quantity:
            self._open(Lot(quantity, paid))
        return Closed(trade.at, trade.symbol, closed, profit) if closed else None

    def _open(self, lot: Lot) -> None:
        if self._basis is CostBasis.AVERAGE and self._lots:
            self._lots[0].quantity += lot.quantity
            self._lots[0].cost_cents += lot.cost_cents
        else:
            self._lots.append(lot)


def signed_quantity(trade: Trade) -> int:
    """Return how many shares a trade adds; below zero for a sale."""
    return trade.quantity if trade.side is Side.BUY else -trade.quantity


def paid_cents(trade: Trade) -> int:
    """Return the cash a trade costs, its fee included; below zero for a sale."""
    return signed_quantity(trade) * trade.price_cents + trade.fee_cents


def part(cents: int, count: int, of: int) -> int:
    """Return the share of *cents* that *count* of so many pieces have, to the nearest cent, halves to even."""
    whole, rest = divmod(abs(cents) * count, abs(of))
    if 2 * rest > abs(of) or (2 * rest == abs(of) and whole % 2):
        whole += 1
    return whole if cents >= 0 else -whole


def replay(trades: Iterable[Trade], basis: CostBasis) -> tuple[dict[str, Holding], list[Closed]]:
    """Go through *trades* in order of time; return what is held now, and every closed trade."""
    holdings: dict[str, Holding] = {}
    outcomes = [holdings.setdefault(trade.symbol, Holding(basis)).apply(trade) for trade in trades]
    return holdings, [closed for closed in outcomes if closed is not None]


def summarize(user_id: int, trades: list[Trade], closes: Mapping[str, float], basis: CostBasis) -> PortfolioSummary:
    """Return what a user holds, valued at *closes*."""
    holdings, closed = replay(trades, basis)
    positions = []
    for symbol, held in sorted(holdings.items()):
        if held.quantity:
            close, cost = closes[symbol], held.cost_cents
            value = round(held.quantity * close * 100)
            positions.append(Position(symbol, held.quantity, cost, close, value, value - cost))
    return PortfolioSummary(
        user_id=user_id,
        trades=len(trades),
        positions=tuple(positions),
        cost_cents=sum(position.cost_cents for position in positions),
        value_cents=sum(position.value_cents for position in positions),
        unrealized_cents=sum(position.unrealized_cents for position in positions),
        realized_cents=sum(done.profit_cents for done in closed),
    )


def analyze(user_id: int, trades: list[Trade], basis: CostBasis, zone: str, grouping: Grouping) -> TradeAnalytics:
    """Return how a user's closed trades went, grouped by periods of the user's own calendar.

    Source: Kaufman, Trading Systems and Methods (2013), for win rate and profit factor.
    """
    _, closed = replay(trades, basis)
    profits = [done.profit_cents for done in closed]
    wins, losses = [profit for profit in profits if profit > 0], [profit for profit in profits if profit < 0]
    return TradeAnalytics(
        user_id=user_id,
        trades=len(trades),
        closed=len(closed),
        realized_cents=sum(profits),
        fees_cents=sum(trade.fee_cents for trade in trades),
        win_rate=len(wins) / len(profits) if profits else 0.0,
        profit_factor=sum(wins) / -sum(losses) if losses else None,
        average_win_cents=part(sum(wins), 1, len(wins)) if wins else 0,
        average_loss_cents=part(sum(losses), 1, len(losses)) if losses else 0,
        best_cents=max(profits, default=0),
        worst_cents=min(profits, default=0),
        periods=periods(closed, zone, grouping),
    )


def periods(closed: Iterable[Closed], zone: str, grouping: Grouping) -> tuple[Period, ...]:
    """Group closed trades by day, week (from Monday) or month of *zone*."""
    sums: dict[datetime.date, tuple[int, int]] = {}
    clock = ZoneInfo(zone)
    for done in closed:
        begins = _begins(done.at.astimezone(clock).date(), grouping)
        profit, count = sums.get(begins, (0, 0))
        sums[begins] = (profit + done.profit_cents, count + 1)
    return tuple(Period(begins, profit, count) for begins, (profit, count) in sorted(sums.items()))


def _begins(day: datetime.date, grouping: Grouping) -> datetime.date:
    if grouping is Grouping.WEEK:
        return day - datetime.timedelta(days=day.weekday())
    return day.replace(day=1) if grouping is Grouping.MONTH else day
