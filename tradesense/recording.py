"""Changes to the database, and the events that tell of them.

Each is one transaction: it has happened, whole, when it returns, and nothing has when it raises. What cannot be
recorded is a `ValueError` that names the field and says what it may be.

With `announce=True` the event is written in the same transaction, and a worker with `OUTBOX=tradesense.tables:outbox`
publishes it: a trade without its event, or an event without its trade, cannot be. Without it the caller publishes.
A caller may do both, to be quicker than a relay that polls: `announce` is then the id under which it publishes as well,
and the bus takes an id once.
"""

from __future__ import annotations

import datetime
import decimal
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Column, Delete, Update, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tradesense.database import database
from tradesense.events import SETTINGS, SettingName, SettingsEvent, TradeAction, TradeEvent
from tradesense.market import EXCHANGE, TRADABLE_FROM
from tradesense.results import Bar, CostBasis, Grouping, Side
from tradesense.tables import bars, imports, instruments, outbox, settings, trades, users

Announce = bool | str
"""Whether the transaction holds the event; a text is the event's id."""

Dollars = decimal.Decimal | float | str
"""An amount as people write it: `"430.25"`, `Decimal("430.25")`, `430.25`. At most two decimals."""

MOST_SHARES = 1_000_000
MOST_CENTS = 100_000_000
"""One million dollars: no share costs more, and sums stay far below what JSON numbers hold exactly."""
ROWS_AT_ONCE = 500
"""Trades of an import that are written between two reports of its progress."""
TOLERATED_AHEAD = datetime.timedelta(minutes=5)
"""How far another machine's clock may be ahead of ours."""


class Order(msgspec.Struct, frozen=True):
    """A trade to be recorded. Without `at`, it was made now."""

    symbol: str
    side: str
    quantity: int
    price: Dollars
    fee: Dollars = "1.00"
    at: datetime.datetime | None = None


class AlreadyImported(ValueError):
    """An import of this name was recorded before: `trades` of them, at `at`. Nothing was changed."""

    def __init__(self, trades: int, at: datetime.datetime) -> None:
        self.trades = trades
        self.at = at
        super().__init__(f"imported before, at {at:%Y-%m-%d %H:%M} UTC: {trades:,} trades; nothing was changed")


async def record_trade(  # noqa: PLR0913 - the columns of a trade, as one says them
    user_id: int,
    symbol: str,
    side: str,
    quantity: int,
    price: Dollars,
    *,
    fee: Dollars = "1.00",
    at: datetime.datetime | None = None,
    announce: Announce = False,
) -> int:
    """Record a trade; returns its id. A sale of more than is held is a short sale. Raises: ValueError."""
    rows = [trade_row(user_id, Order(symbol, side, quantity, price, fee, at))]
    async with database.writing() as connection:
        (trade_id,) = await _add(connection, user_id, rows)
        await _announce(connection, "trade:updates", TradeEvent(user_id, "new_trade", trade_id, symbol), announce)
    return trade_id


async def import_trades(
    user_id: int,
    orders: Iterable[Order],
    *,
    once: str | None = None,
    announce: Announce = False,
    progress: Callable[[int], None] = lambda _written: None,
) -> list[int]:
    """Record many trades of a user, all or none; returns their ids, in order.

    *once* names the import, 64 characters at most: a second one of that name is refused. *progress* is called with how
    many are written so far; they are there when this returns. Raises: AlreadyImported, ValueError.
    """
    rows = [trade_row(user_id, order) for order in orders]
    if not rows:
        raise ValueError("orders: nothing to import; give at least one")
    added: list[int] = []
    async with database.writing() as connection:
        if once is not None:
            await _import_once(connection, user_id, once, len(rows))
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            added += await _add(connection, user_id, rows[begin : begin + ROWS_AT_ONCE])
            progress(len(added))
        await _announce(connection, "trade:updates", TradeEvent(user_id, "import_completed"), announce)
    return added


async def correct_trade(
    trade_id: int, *, quantity: int | None = None, price: Dollars | None = None, announce: Announce = False
) -> bool:
    """Change what was recorded of a trade; False where there is none. Raises: ValueError."""
    changes: dict[str, int] = {}
    if quantity is not None:
        changes["quantity"] = _shares(quantity)
    if price is not None:
        changes["price_cents"] = _cents("price", price, least=1)
    if not changes:
        raise ValueError("quantity, price: nothing to correct; give one of them")
    async with database.writing() as connection:
        corrected = update(trades).where(trades.c.id == trade_id).values(**changes)
        return await _change(connection, corrected, "updated_trade", announce)


async def delete_trade(trade_id: int, *, announce: Announce = False) -> bool:
    """Delete a trade; False where there was none."""
    async with database.writing() as connection:
        deleted = delete(trades).where(trades.c.id == trade_id)
        return await _change(connection, deleted, "deleted_trade", announce)


async def count_trades(user_id: int) -> int:
    """Return how many trades a user has, straight from the database."""
    async with database.reading() as connection:
        query = select(func.count()).select_from(trades).where(trades.c.user_id == user_id)
        return int(await connection.scalar(query) or 0)


async def change_settings(user_id: int, *, announce: Announce = False, **changes: Any) -> None:
    """Change some of a user's settings (`SettingName`). Raises: ValueError naming the setting and what it may be."""
    if not changes:
        raise ValueError(f"changes: name a setting; there are {', '.join(SETTINGS)}")
    for name, value in changes.items():
        if name not in _SETTINGS:
            raise ValueError(f"{name}: not a setting; there are {', '.join(SETTINGS)}")
        allowed, what = _SETTINGS[name]
        if not allowed(value):
            raise ValueError(f"{name}: {value!r} is not {what}")
    async with database.writing() as connection:
        done = await connection.execute(update(settings).where(settings.c.user_id == user_id).values(**changes))
        if not done.rowcount:
            raise ValueError(f"user_id: {user_id} does not exist")
        changed = tuple(name for name in SETTINGS if name in changes)
        await _announce(connection, "settings:updates", SettingsEvent(user_id, changed), announce)


async def append_bar(symbol: str, bar: Bar) -> None:
    """Add a day's bar, or correct the one there is. Raises: ValueError."""
    if not all(0 < bar.low <= price <= bar.high < MOST_CENTS / 100 for price in (bar.open, bar.close)):
        raise ValueError(
            f"low, high: {bar.low} to {bar.high} must be above 0 and enclose open {bar.open} and close {bar.close}"
        )
    if bar.volume < 0:
        raise ValueError(f"volume: {bar.volume} must be 0 or more")
    prices = msgspec.structs.asdict(bar)
    this = (bars.c.symbol == symbol) & (bars.c.day == bar.day)
    async with database.writing() as connection:
        await _require(connection, "symbol", symbol, instruments.c.symbol)
        if not (await connection.execute(update(bars).where(this).values(**prices))).rowcount:
            await connection.execute(insert(bars).values(symbol=symbol, **prices))


def _one_of(*known: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in known, f"one of {', '.join(known)}"


_SETTINGS: Mapping[SettingName | str, tuple[Callable[[Any], bool], str]] = {
    "time_zone": (lambda value: value in zoneinfo.available_timezones(), "an IANA time zone such as 'Europe/Berlin'"),
    "grouping": _one_of(*Grouping),
    "cost_basis": _one_of(*CostBasis),
    "risk_free_rate": (
        lambda value: isinstance(value, int | float) and -0.1 <= value <= 1,
        "a yearly fraction from -0.1 to 1: 0.02 is 2 %",
    ),
    "theme": _one_of("light", "dark"),
}
"""Each setting: what it may be, as a test and in words."""


async def _require(connection: AsyncConnection, field: str, value: object, column: Column[Any]) -> None:
    """Raise ValueError where no row has this value."""
    if await connection.scalar(select(column).where(column == value).limit(1)) is None:
        raise ValueError(f"{field}: {value!r} does not exist")


async def _add(connection: AsyncConnection, user_id: int, rows: list[dict[str, Any]]) -> list[int]:
    """Insert trades of a user; returns their ids, in order. Raises: ValueError."""
    await _require(connection, "user_id", user_id, users.c.id)
    for symbol in sorted({row["symbol"] for row in rows}):
        await _require(connection, "symbol", symbol, bars.c.symbol)  # what has no price cannot be valued
    added = insert(trades).returning(trades.c.id, sort_by_parameter_order=True)
    return list(await connection.scalars(added, rows))


async def _import_once(connection: AsyncConnection, user_id: int, name: str, count: int) -> None:
    """Note an import. Raises: AlreadyImported."""
    this = (imports.c.user_id == user_id) & (imports.c.digest == name)
    before = (await connection.execute(select(imports.c.trades, imports.c.at).where(this))).one_or_none()
    if before is not None:
        raise AlreadyImported(before.trades, before.at)
    await _require(connection, "user_id", user_id, users.c.id)
    now = datetime.datetime.now(datetime.UTC)
    await connection.execute(insert(imports).values(user_id=user_id, digest=name, trades=count, at=now))


async def _change(
    connection: AsyncConnection, change: Update | Delete, action: TradeAction, announce: Announce
) -> bool:
    """Execute the change of one trade, and announce it as *action*; False where there is no such trade."""
    row = (await connection.execute(change.returning(trades.c.user_id, trades.c.id, trades.c.symbol))).one_or_none()
    if row is not None:
        event = TradeEvent(row.user_id, action, row.id, row.symbol)
        await _announce(connection, "trade:updates", event, announce)
    return row is not None


async def _announce(
    connection: AsyncConnection, channel: str, event: TradeEvent | SettingsEvent, announce: Announce
) -> None:
    """Write the event, if wanted, in the transaction of *connection*; those of one user are published in order."""
    if announce:
        name = announce if isinstance(announce, str) else None
        await connection.execute(outbox.insert(channel, event, key=f"user:{event.user_id}", id=name))


def trade_row(user_id: int, order: Order) -> dict[str, Any]:
    """Return the row of an order, checked: what cannot be recorded is a ValueError that names the field."""
    if order.side not in set(Side):
        raise ValueError(f"side: {order.side!r} is neither 'buy' nor 'sell'")
    return {
        "user_id": user_id,
        "symbol": order.symbol,
        "side": str(order.side),
        "quantity": _shares(order.quantity),
        "price_cents": _cents("price", order.price, least=1),
        "fee_cents": _cents("fee", order.fee, least=0),
        "at": _instant(order.at),
    }


def _shares(quantity: object) -> int:
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not 1 <= quantity <= MOST_SHARES:
        raise ValueError(f"quantity: {quantity!r} is not a whole number from 1 to {MOST_SHARES:,}")
    return quantity


def _cents(field: str, amount: Dollars, *, least: int) -> int:
    """Return dollars as whole cents. Raises: ValueError."""
    try:
        cents = decimal.Decimal(str(amount)) * 100
        whole = int(cents)
    except (decimal.InvalidOperation, ValueError, OverflowError):
        raise ValueError(f"{field}: {amount!r} is not an amount; write dollars such as '430.25'") from None
    if whole != cents:
        raise ValueError(f"{field}: {amount} has fractions of a cent; give two decimals")
    if not least <= whole <= MOST_CENTS:
        raise ValueError(f"{field}: {amount} must be from {least / 100:.2f} to {MOST_CENTS // 100:,}")
    return whole


def _instant(at: datetime.datetime | None) -> datetime.datetime:
    """Return when a trade was made, UTC. Raises: ValueError."""
    now = datetime.datetime.now(datetime.UTC)
    if at is None:
        return now
    if at.tzinfo is None:
        raise ValueError(f"at: {at} has no time zone; give it one")
    if at > now + TOLERATED_AHEAD:
        raise ValueError(f"at: {at} lies in the future")
    if at < datetime.datetime.combine(TRADABLE_FROM, datetime.time.min, EXCHANGE):
        raise ValueError(f"at: {at} lies before {TRADABLE_FROM}; shares were split until then, and nothing is adjusted")
    return at.astimezone(datetime.UTC)
