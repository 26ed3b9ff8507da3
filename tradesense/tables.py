"""The tables. Times are UTC; prices of bars are dollars as quoted; money that changed hands is whole cents."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
)

from cachebus.integrations.sqlalchemy.outbox import Outbox
from tradesense.database import database

metadata = MetaData()

Id = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both: SQLite's INTEGER has them, and only under that name does it number rows by itself."""


class UtcDateTime(TypeDecorator[datetime.datetime]):
    """An instant: aware when written, aware and UTC when read. SQLite keeps no zone, so what lies there is UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Any) -> datetime.datetime | None:
        """Return what is stored. Raises: ValueError for a time without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; give it one")
        return None if value is None else value.astimezone(datetime.UTC)

    def process_result_value(self, value: datetime.datetime | None, dialect: Any) -> datetime.datetime | None:
        """Return what was stored."""
        if value is None or value.tzinfo is not None:
            return None if value is None else value.astimezone(datetime.UTC)
        return value.replace(tzinfo=datetime.UTC)


instruments = Table(
    "instruments",
    metadata,
    Column("symbol", String(12), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("exchange", String(20), nullable=False),
    Column("currency", String(3), nullable=False),
)

bars = Table(
    "bars",
    metadata,
    Column("symbol", ForeignKey("instruments.symbol"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("open", Float, nullable=False),
    Column("high", Float, nullable=False),
    Column("low", Float, nullable=False),
    Column("close", Float, nullable=False),
    Column("volume", BigInteger, nullable=False),
    CheckConstraint("0 < low AND low <= open AND low <= close AND open <= high AND close <= high", name="bar_prices"),
    sqlite_with_rowid=False,  # the rows of a symbol lie together, in order of days
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("joined", Date, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("time_zone", String(40), nullable=False),
    Column("grouping", String(8), nullable=False),
    Column("cost_basis", String(8), nullable=False),
    Column("risk_free_rate", Float, nullable=False),
    Column("theme", String(8), nullable=False),
)

trades = Table(
    "trades",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("symbol", ForeignKey("instruments.symbol"), nullable=False),
    Column("side", String(4), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("price_cents", BigInteger, nullable=False),
    Column("fee_cents", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    CheckConstraint("quantity > 0 AND price_cents > 0 AND fee_cents >= 0", name="trade_amounts"),
    CheckConstraint("side IN ('buy', 'sell')", name="trade_side"),
    Index("trades_of_user", "user_id", "at", "id"),
    # All that the statistics over everybody read: they never touch the table.
    Index("trades_of_symbol", "symbol", "user_id", "quantity", "price_cents"),
)

imports = Table(
    "imports",
    metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("trades", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
"""Files of trades that were imported, each in the transaction of its trades: the same file is never imported twice."""

seeded = Table(
    "seeded",
    metadata,
    Column("what", String(40), primary_key=True),
    Column("rows", Integer, nullable=False),
)
"""Written last in the seeding transaction: its rows are there if and only if everything else is."""

outbox = Outbox(metadata, lambda: database.engine)
"""Events that are committed with the data they tell of. A worker publishes them: `OUTBOX=tradesense.tables:outbox`."""
