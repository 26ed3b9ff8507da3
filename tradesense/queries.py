"""What the views load: rows from the database, figures from the pure modules. Each opens its own connection."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, and_, func, select

from tradesense import performance, risk
from tradesense.database import database
from tradesense.indicators import indicators
from tradesense.results import (
    Bar,
    CostBasis,
    Grouping,
    Instrument,
    MarketData,
    PortfolioSummary,
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

MARKET_BARS = 120
"""Bars of market data: enough for the slowest indicator to settle."""


class NotFound(LookupError):
    """There is no such user or symbol."""


async def rows(query: Select[Any]) -> Sequence[Any]:
    """Run one query on the newest committed rows."""
    async with database.reading() as connection:
        result: Sequence[Any] = (await connection.execute(query)).all()
        return result


async def trades_of(user_id: int) -> list[Trade]:
    """Return a user's trades in order of time."""
    query = select(trades).where(trades.c.user_id == user_id).order_by(trades.c.at, trades.c.id)
    return [
        Trade(row.id, row.symbol, Side(row.side), row.quantity, row.price, row.fee, _aware(row.at))
        for row in await rows(query)
    ]


async def last_closes() -> dict[str, float]:
    """Return the last close of every symbol."""
    newest = select(bars.c.symbol, func.max(bars.c.day).label("day")).group_by(bars.c.symbol).subquery()
    query = select(bars.c.symbol, bars.c.close).join(
        newest, and_(bars.c.symbol == newest.c.symbol, bars.c.day == newest.c.day)
    )
    return {row.symbol: row.close for row in await rows(query)}


async def portfolio_summary(user_id: int, cost_basis: CostBasis) -> PortfolioSummary:
    """Compute what a user holds, at the last closes."""
    return performance.summarize(user_id, await trades_of(user_id), await last_closes(), cost_basis)


async def trade_analytics(user_id: int, cost_basis: CostBasis, time_zone: str, grouping: Grouping) -> TradeAnalytics:
    """Compute how a user's sales went, in periods of the user's own calendar."""
    return performance.analyze(user_id, await trades_of(user_id), cost_basis, time_zone, grouping)


async def risk_of(user_id: int, risk_free_rate: float) -> Risk:
    """Compute the risk figures of a user's portfolio over its whole life."""
    made = await trades_of(user_id)
    if not made:
        return risk.assess(user_id, [], risk_free_rate)
    symbols = {trade.symbol for trade in made}
    query = (
        select(bars.c.symbol, bars.c.day, bars.c.close)
        .where(bars.c.symbol.in_(symbols), bars.c.day >= made[0].at.date() - datetime.timedelta(days=7))
        .order_by(bars.c.day)
    )
    closes: dict[str, list[tuple[datetime.date, float]]] = {symbol: [] for symbol in symbols}
    for row in await rows(query):
        closes[row.symbol].append((row.day, row.close))
    return risk.assess(user_id, risk.curve(made, closes), risk_free_rate)


async def market_data(symbol: str) -> MarketData:
    """Return the last bars of a symbol with its indicators. Raises: NotFound."""
    query = select(bars).where(bars.c.symbol == symbol).order_by(bars.c.day.desc()).limit(MARKET_BARS)
    series = tuple(
        Bar(row.day, row.open, row.high, row.low, row.close, row.volume) for row in reversed(await rows(query))
    )
    if not series:
        raise NotFound(f"symbol: {symbol!r} is not traded here")
    change = series[-1].close / series[-2].close - 1 if len(series) > 1 else 0.0
    return MarketData(symbol, series[-30:], change, indicators(series))


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
            func.sum(trades.c.quantity * trades.c.price).label("turnover"),
        )
        .group_by(trades.c.symbol)
        .order_by(trades.c.symbol)
    )
    by_symbol = tuple(
        SymbolStatistics(row.symbol, row.trades, row.traders, int(row.volume), row.turnover)
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


def _aware(at: datetime.datetime) -> datetime.datetime:
    """SQLite keeps no zone: what lies there is UTC."""
    return at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC)
