"""Changes to the database: what an application writes before it publishes an event. Each is one transaction."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from tradesense.database import database
from tradesense.events import SETTINGS
from tradesense.results import CostBasis, Grouping, Side
from tradesense.tables import bars, settings, trades


async def record_trade(  # noqa: PLR0913 - the columns of a trade
    user_id: int,
    symbol: str,
    side: str,
    quantity: int,
    price: float,
    *,
    fee: float = 1.0,
    at: datetime.datetime | None = None,
) -> int:
    """Insert a trade; returns its id. Raises: ValueError naming the field."""
    if side not in set(Side):
        raise ValueError(f"side: {side!r} is neither 'buy' nor 'sell'")
    if quantity < 1:
        raise ValueError(f"quantity: {quantity} must be 1 or more")
    if not 0 < price < 1e9:
        raise ValueError(f"price: {price} must be above 0")
    moment = at or datetime.datetime.now(datetime.UTC)
    if moment.tzinfo is None:
        raise ValueError("at: a time without a zone; give it one")
    row = {"user_id": user_id, "symbol": symbol, "side": side, "quantity": quantity, "price": price, "fee": fee}
    async with database.writing() as connection:
        result = await connection.execute(insert(trades).values(**row, at=moment.astimezone(datetime.UTC)))
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101 - an insert of one row has one
        return int(key[0])


async def delete_trade(trade_id: int) -> bool:
    """Delete a trade; False where there was none."""
    async with database.writing() as connection:
        return bool((await connection.execute(delete(trades).where(trades.c.id == trade_id))).rowcount)


async def count_trades(user_id: int) -> int:
    """Return how many trades a user has, straight from the database."""
    async with database.reading() as connection:
        query = select(func.count()).select_from(trades).where(trades.c.user_id == user_id)
        return int(await connection.scalar(query) or 0)


async def change_settings(user_id: int, **changes: Any) -> None:
    """Change some of a user's settings. Raises: ValueError naming the setting and what it may be."""
    for name, value in changes.items():
        if name not in SETTINGS:
            raise ValueError(f"{name}: not a setting; there are {', '.join(SETTINGS)}")
        _check_setting(name, value)
    async with database.writing() as connection:
        done = await connection.execute(update(settings).where(settings.c.user_id == user_id).values(**changes))
        if not done.rowcount:
            raise ValueError(f"user_id: {user_id} does not exist")


def _check_setting(name: str, value: Any) -> None:
    if name == "time_zone" and value not in zoneinfo.available_timezones():
        raise ValueError(f"time_zone: {value!r} is not a zone of the IANA list, such as 'Europe/Berlin'")
    for setting, known in (("grouping", Grouping), ("cost_basis", CostBasis)):
        if name == setting and value not in set(known):
            raise ValueError(f"{setting}: {value!r} is not one of {', '.join(known)}")
    if name == "risk_free_rate" and not -0.1 <= value <= 1:
        raise ValueError(f"risk_free_rate: {value} is a fraction: 0.02 is 2 %")


async def append_bar(symbol: str, day: datetime.date, close: float, *, volume: int = 0) -> None:
    """Add or correct a day's bar at one price. Raises: ValueError naming the field."""
    if close <= 0:
        raise ValueError(f"close: {close} must be above 0")
    row = {"open": close, "high": close, "low": close, "close": close, "volume": volume}
    this = (bars.c.symbol == symbol) & (bars.c.day == day)
    async with database.writing() as connection:
        if not (await connection.execute(update(bars).where(this).values(**row))).rowcount:
            await connection.execute(insert(bars).values(symbol=symbol, day=day, **row))
