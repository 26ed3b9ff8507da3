"""What the views return: frozen all through, so that one object in memory may serve every caller.

Money is dollars as floats: these are statistics of adjusted prices, not books. Balances and executions, which must be
exact, must not be cached either. Shares, rates and returns are fractions: 0.25 is 25 %.
"""

from __future__ import annotations

import datetime
from enum import StrEnum

import msgspec


class Grouping(StrEnum):
    """How profit and loss is grouped."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class CostBasis(StrEnum):
    """Which shares a sale sells."""

    FIFO = "fifo"
    AVERAGE = "average"


class Side(StrEnum):
    """Of a trade."""

    BUY = "buy"
    SELL = "sell"


class Trade(msgspec.Struct, frozen=True):
    """A row of `trades`; `at` is aware, UTC."""

    id: int
    symbol: str
    side: Side
    quantity: int
    price: float
    fee: float
    at: datetime.datetime


class Position(msgspec.Struct, frozen=True):
    """What is held of one symbol, at the last close."""

    symbol: str
    quantity: int
    cost: float
    value: float
    unrealized: float


class PortfolioSummary(msgspec.Struct, frozen=True):
    """Everything a user holds."""

    user_id: int
    trades: int
    positions: tuple[Position, ...]
    cost: float
    value: float
    unrealized: float
    realized: float


class Period(msgspec.Struct, frozen=True):
    """Realized profit of one day, week or month; `begins` in the user's time zone."""

    begins: datetime.date
    realized: float
    trades: int


class TradeAnalytics(msgspec.Struct, frozen=True):
    """How a user's closed trades went. `profit_factor` None: nothing was lost yet."""

    user_id: int
    trades: int
    closed: int
    realized: float
    fees: float
    win_rate: float
    profit_factor: float | None
    average_win: float
    average_loss: float
    best: float
    worst: float
    periods: tuple[Period, ...]


class Risk(msgspec.Struct, frozen=True):
    """Risk of a user's equity curve, daily closes. None where there are too few days."""

    user_id: int
    days: int
    max_drawdown: float
    """Largest fall from a peak of cumulated profit, dollars, ≥ 0."""
    volatility: float | None
    """Standard deviation of daily returns, annualized (252 days)."""
    sharpe: float | None


class Bar(msgspec.Struct, frozen=True):
    """One day of one symbol."""

    day: datetime.date
    open: float
    high: float
    low: float
    close: float
    volume: int


class Indicators(msgspec.Struct, frozen=True):
    """Technical indicators at the last close; None where there are too few bars."""

    sma_20: float | None
    sma_50: float | None
    ema_12: float | None
    ema_26: float | None
    macd: float | None
    macd_signal: float | None
    rsi_14: float | None
    bollinger_upper: float | None
    bollinger_lower: float | None
    atr_14: float | None


class MarketData(msgspec.Struct, frozen=True):
    """The last bars of a symbol and what they say."""

    symbol: str
    bars: tuple[Bar, ...]
    change: float
    indicators: Indicators


class Profile(msgspec.Struct, frozen=True):
    """What others may see of a user."""

    user_id: int
    name: str
    joined: datetime.date
    trades: int


class UserSettings(msgspec.Struct, frozen=True):
    """How a user wants figures computed and grouped."""

    user_id: int
    time_zone: str
    grouping: Grouping
    cost_basis: CostBasis
    risk_free_rate: float
    theme: str


class SymbolStatistics(msgspec.Struct, frozen=True):
    """All users' trades of one symbol."""

    symbol: str
    trades: int
    traders: int
    volume: int
    turnover: float


class Statistics(msgspec.Struct, frozen=True):
    """All users' trades."""

    users: int
    trades: int
    symbols: tuple[SymbolStatistics, ...]


class Instrument(msgspec.Struct, frozen=True):
    """Reference data of one symbol."""

    symbol: str
    name: str
    exchange: str
    currency: str
    first_day: datetime.date
    last_day: datetime.date
    bars: int


class ReferenceData(msgspec.Struct, frozen=True):
    """Everything that can be traded."""

    instruments: tuple[Instrument, ...]
