"""What the views return: frozen all through, so that one object in memory may serve every caller.

Money is whole cents as `int`, in fields that end in `_cents`: sums are exact in Python and in SQL on both databases
(SQLite has no decimals), and JSON carries them as numbers. Prices of bars are dollars as quoted, `float`: they are
measured, and quoted to fractions of a cent. Rates and returns are fractions: 0.25 is 25 %.
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
    price_cents: int
    fee_cents: int
    at: datetime.datetime


class Position(msgspec.Struct, frozen=True):
    """What is held of one symbol, at the last close. A short position has a negative quantity, cost and value."""

    symbol: str
    quantity: int
    cost_cents: int
    """What was paid for it, fees included; of a short position, minus what was received."""
    close: float
    value_cents: int
    unrealized_cents: int


class PortfolioSummary(msgspec.Struct, frozen=True):
    """Everything a user holds. Realized plus unrealized is what the positions are worth minus all cash paid in."""

    user_id: int
    trades: int
    positions: tuple[Position, ...]
    cost_cents: int
    value_cents: int
    unrealized_cents: int
    realized_cents: int


class Period(msgspec.Struct, frozen=True):
    """Realized profit of one day, week or month; `begins` in the user's time zone, weeks on Monday."""

    begins: datetime.date
    realized_cents: int
    trades: int


class TradeAnalytics(msgspec.Struct, frozen=True):
    """How a user's closed trades went: every trade that made a position smaller is one."""

    user_id: int
    trades: int
    closed: int
    realized_cents: int
    fees_cents: int
    win_rate: float
    """Closed trades with a profit, of all closed trades; 0 where none is closed."""
    profit_factor: float | None
    """All profits over all losses; None where nothing was lost."""
    average_win_cents: int
    average_loss_cents: int
    best_cents: int
    worst_cents: int
    periods: tuple[Period, ...]


class EquityPoint(msgspec.Struct, frozen=True):
    """The equity curve at one close: what the positions are worth, and the profit since the first trade."""

    day: datetime.date
    value_cents: int
    profit_cents: int


class Risk(msgspec.Struct, frozen=True):
    """Risk of a user's equity curve, one point a close. None where there are too few days to say."""

    user_id: int
    days: int
    max_drawdown: float
    """Largest fall from a peak of the compounded daily returns, 0 to 1."""
    max_drawdown_cents: int
    """Largest fall from a peak of the profit."""
    volatility: float | None
    """Standard deviation of daily returns, annualized (252 days)."""
    sharpe: float | None
    """Mean daily return above the risk-free rate over its standard deviation, annualized."""
    equity: tuple[EquityPoint, ...]
    """The last close of each month, oldest first."""


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


class IndicatorSeries(msgspec.Struct, frozen=True):
    """Technical indicators at each bar of a chart; None where there were too few bars before it."""

    sma_20: tuple[float | None, ...]
    sma_50: tuple[float | None, ...]
    bollinger_upper: tuple[float | None, ...]
    bollinger_lower: tuple[float | None, ...]
    rsi_14: tuple[float | None, ...]
    macd: tuple[float | None, ...]
    macd_signal: tuple[float | None, ...]


class PriceHistory(msgspec.Struct, frozen=True):
    """Two years of a symbol as a chart shows them: a row a day in `bars`, the same days in `indicators`."""

    symbol: str
    bars: tuple[Bar, ...]
    indicators: IndicatorSeries


class Profile(msgspec.Struct, frozen=True):
    """What others may see of a user."""

    user_id: int
    name: str
    joined: datetime.date
    trades: int


class Person(msgspec.Struct, frozen=True):
    """A user as the list of those who may sign in shows it."""

    user_id: int
    name: str
    joined: datetime.date


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
    turnover_cents: int


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
