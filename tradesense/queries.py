"""What the views load: rows from the database, figures from the pure modules. Each opens its own connection."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select

from tradesense import performance, risk
from tradesense.database import database
from tradesense.indicators import indicator_series, indicators
from tradesense.market import trading_day
from tradesense.results import (
    Bar,
    CostBasis,
    Grouping,
    Instrument,
    MarketData,
    Person,
    PortfolioSummary,
    PriceHistory,
    Profile,
    ReferenceData,
    Risk,
    Side,
    Statistics,
    SymbolStatistics,
    Trade,
    TradeAnalytics,
    UserSettings,
)
from tradesense.tables import bars, instruments, settings, trades, users

INDICATOR_BARS = 260
"""Bars that indicators are computed from: a year, after which what a moving average began with has faded."""
SHOWN_BARS = 30
"""Bars that market data carry."""
CHART_BARS = 504
"""Bars of a chart: two years."""
LARGEST_ID = 2**63 - 1
NEWEST_TRADES = 12
"""Trades that a page lists."""


class NotFound(LookupError):
    """There is no such user or symbol; the message names the field."""


async def rows(query: Select[Any]) -> Sequence[Any]:
    """Run one query on the newest committed rows."""
    async with database.reading() as connection:
        result: Sequence[Any] = (await connection.execute(query)).all()
        return result


async def trades_of(user_id: int) -> list[Trade]:
    """Return a user's trades in order of time."""
    return await _trades(_of_user(user_id).order_by(trades.c.at, trades.c.id))


async def newest_trades(user_id: int, limit: int = NEWEST_TRADES) -> list[Trade]:
    """Return what a user recorded last, newest first. For pages that list executions, which are never cached."""
    return await _trades(_of_user(user_id).order_by(trades.c.id.desc()).limit(limit))


def _of_user(user_id: int) -> Select[Any]:
    t = trades.c
    columns = (t.id, t.symbol, t.side, t.quantity, t.price_cents, t.fee_cents, t.at)
    return select(*columns).where(t.user_id == user_id)


async def _trades(query: Select[Any]) -> list[Trade]:
    return [
        Trade(id_, symbol, Side(side), quantity, price_cents, fee_cents, at)
        for id_, symbol, side, quantity, price_cents, fee_cents, at in await rows(query)
    ]


async def people(named: str, limit: int) -> list[Person]:
    """Return who has this number, and whose name contains this text; without one the first of all."""
    u = users.c
    query = select(u.id, u.name, u.joined).order_by(u.id).limit(limit)
    if named.isdecimal():
        query = query.where(u.id == min(int(named), LARGEST_ID))
    elif named:
        query = query.where(u.name.icontains(named, autoescape=True))
    return [Person(*row) for row in await rows(query)]


async def last_closes() -> dict[str, float]:
    """Return the last close of every symbol."""
    newest = select(bars.c.close).where(bars.c.symbol == instruments.c.symbol).order_by(bars.c.day.desc()).limit(1)
    query = select(instruments.c.symbol, newest.scalar_subquery())
    return {symbol: close for symbol, close in await rows(query) if close is not None}


async def closes_since(day: datetime.date, symbols: set[str]) -> dict[datetime.date, dict[str, float]]:
    """Return the closes of some symbols from *day* on, by day."""
    query = select(bars.c.day, bars.c.symbol, bars.c.close).where(bars.c.symbol.in_(symbols), bars.c.day >= day)
    closes: dict[datetime.date, dict[str, float]] = {}
    for on, symbol, close in await rows(query):
        closes.setdefault(on, {})[symbol] = close
    return closes


async def portfolio_summary(user_id: int, cost_basis: CostBasis) -> PortfolioSummary:
    """Compute what a user holds, at the last closes."""
    return performance.summarize(user_id, await trades_of(user_id), await last_closes(), cost_basis)


async def trade_analytics(user_id: int, cost_basis: CostBasis, time_zone: str, grouping: Grouping) -> TradeAnalytics:
    """Compute how a user's closed trades went, in periods of the user's own calendar."""
    return performance.analyze(user_id, await trades_of(user_id), cost_basis, time_zone, grouping)


async def risk_of(user_id: int, risk_free_rate: float) -> Risk:
    """Compute the risk figures of a user's portfolio over its whole life."""
    made = await trades_of(user_id)
    closes = await closes_since(trading_day(made[0].at), {trade.symbol for trade in made}) if made else {}
    return risk.assess(user_id, risk.curve(made, closes), risk_free_rate)


async def market_data(symbol: str) -> MarketData:
    """Return the last bars of a symbol with its indicators. Raises: NotFound."""
    series = await bars_of(symbol, INDICATOR_BARS)
    change = series[-1].close / series[-2].close - 1 if len(series) > 1 else 0.0
    return MarketData(symbol, series[-SHOWN_BARS:], change, indicators(series))


async def price_history(symbol: str) -> PriceHistory:
    """Return what a chart of a symbol shows. Raises: NotFound."""
    series = await bars_of(symbol, CHART_BARS + INDICATOR_BARS)
    return PriceHistory(symbol, series[-CHART_BARS:], indicator_series(series, CHART_BARS))


async def bars_of(symbol: str, last: int) -> tuple[Bar, ...]:
    """Return the *last* so many bars of a symbol, in order. Raises: NotFound."""
    b = bars.c
    query = (
        select(b.day, b.open, b.high, b.low, b.close, b.volume)
        .where(b.symbol == symbol)
        .order_by(b.day.desc())
        .limit(last)
    )
    series = tuple(Bar(*row) for row in reversed(await rows(query)))
    if not series:
        raise NotFound(f"symbol: {symbol!r} is not traded here")
    return series


async def user_profile(user_id: int) -> Profile:
    """Return what others may see of a user. Raises: NotFound."""
    count = select(func.count()).select_from(trades).where(trades.c.user_id == user_id).scalar_subquery()
    found = await rows(select(users.c.name, users.c.joined, count.label("trades")).where(users.c.id == user_id))
    if not found:
        raise NotFound(f"user_id: {user_id} does not exist")
    return Profile(user_id, found[0].name, found[0].joined, found[0].trades)


async def user_settings(user_id: int) -> UserSettings:
    """Return how a user wants figures computed. Raises: NotFound."""
    found = await rows(select(settings).where(settings.c.user_id == user_id))
    if not found:
        raise NotFound(f"user_id: {user_id} does not exist")
    row = found[0]
    return UserSettings(
        user_id, row.time_zone, Grouping(row.grouping), CostBasis(row.cost_basis), row.risk_free_rate, row.theme
    )


async def statistics() -> Statistics:
    """Return sums over all users' trades."""
    query = (
        select(
            trades.c.symbol,
            func.count().label("trades"),
            func.count(trades.c.user_id.distinct()).label("traders"),
            func.sum(trades.c.quantity).label("volume"),
            func.sum(trades.c.quantity * trades.c.price_cents).label("turnover_cents"),
        )
        .group_by(trades.c.symbol)
        .order_by(trades.c.symbol)
    )
    by_symbol = tuple(
        SymbolStatistics(row.symbol, row.trades, row.traders, int(row.volume), int(row.turnover_cents))
        for row in await rows(query)
    )
    people = (await rows(select(func.count()).select_from(users)))[0][0]
    return Statistics(people, sum(symbol.trades for symbol in by_symbol), by_symbol)


async def reference_data() -> ReferenceData:
    """Return everything that can be traded."""
    query = (
        select(
            instruments,
            func.min(bars.c.day).label("first"),
            func.max(bars.c.day).label("last"),
            func.count(bars.c.day).label("bars"),
        )
        .join(bars, bars.c.symbol == instruments.c.symbol)
        .group_by(*instruments.c)
        .order_by(instruments.c.symbol)
    )
    return ReferenceData(
        tuple(
            Instrument(row.symbol, row.name, row.exchange, row.currency, row.first, row.last, row.bars)
            for row in await rows(query)
        )
    )
