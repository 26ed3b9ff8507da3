"""The tables. Times are UTC; prices are split- and dividend-adjusted dollars, so positions hold across splits."""

from __future__ import annotations

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
)

metadata = MetaData()

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
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
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
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("symbol", ForeignKey("instruments.symbol"), nullable=False),
    Column("side", String(4), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("price", Float, nullable=False),
    Column("fee", Float, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    CheckConstraint("quantity > 0 AND price > 0 AND fee >= 0", name="trade_amounts"),
    CheckConstraint("side IN ('buy', 'sell')", name="trade_side"),
    Index("trades_of_user", "user_id", "at", "id"),
    Index("trades_of_symbol", "symbol"),
)

seeded = Table(
    "seeded",
    metadata,
    Column("what", String(40), primary_key=True),
    Column("rows", Integer, nullable=False),
)
"""Written last in the seeding transaction: its row is there if and only if everything else is."""
