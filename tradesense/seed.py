"""Sets the database up: real prices, and users who traded at them. The same every time; whole, or not at all."""

from __future__ import annotations

import asyncio
import datetime
import math
import random
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, func, insert, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tradesense import tables
from tradesense.database import Database, database
from tradesense.market import EXCHANGE, bar_rows, instrument_rows
from tradesense.results import CostBasis, Grouping

USERS = 1_000
TRADES = 50_000
SEED = 2013
ROWS_AT_ONCE = 2_000
FIRST_YEAR = 2008
"""Seeded trades begin before the crash of that year, so that drawdowns are worth looking at."""
BUSY_FEW = 1.7
"""Exponent by which trades crowd on the first users: user 1 has some 850 of 50,000, the median user about 40."""
FEE_CENTS = 100
OPENS = datetime.time(9, 30)
OPEN_SECONDS = 390 * 60
YOUNGER = (tables.outbox.table, tables.imports)
SEEDING = 7353
"""PostgreSQL's advisory lock of whoever seeds; the number means nothing else."""

ZONES = ("America/New_York", "Europe/Berlin", "Asia/Tokyo", "Australia/Sydney", "UTC", "America/Los_Angeles")
FIRST_NAMES = ("Ada", "Ben", "Chen", "Dana", "Emil", "Fay", "Gus", "Hana", "Ivan", "Jo", "Kim", "Lea", "Max", "Noor")
LAST_NAMES = ("Adler", "Bauer", "Cruz", "Dunn", "Endo", "Faber", "Gray", "Haas", "Ito", "Jung", "Kaya", "Lund")

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done, 0.0 to 1.0; last with `("ready", 1.0)`."""


class Seeded(NamedTuple):
    """What seeding put into the database, and whether this call did it."""

    users: int
    trades: int
    bars: int
    fresh: bool


async def seed(
    db: Database = database, *, users: int = USERS, trades: int = TRADES, progress: Progress | None = None
) -> Seeded:
    """Create the tables and fill them, in one transaction; returns at once where that is done, whatever the numbers.

    Safe to repeat, to interrupt (nothing is left of it) and to run twice at once (the second waits for the first).
    Raises: ModuleNotFoundError without the price data; ValueError for numbers that make no sense, and for a database
    that another version of this program has set up.
    """
    if users < 1 or trades < 0:
        raise ValueError(f"users, trades: {users} and {trades} must be at least 1 and 0")
    async with db.reading() as connection:
        if done := await _done(connection):
            return done
    bars = list(bar_rows())
    async with db.writing() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SEEDING})
        await connection.run_sync(_add_younger_tables)
        if done := await _done(connection):
            return done
        return await _fill(connection, users, trades, bars, progress or (lambda _what, _share: None))


async def _done(connection: AsyncConnection) -> Seeded | None:
    if not await connection.run_sync(_has_our_tables):
        return None
    rows = {row.what: row.rows for row in await connection.execute(select(tables.seeded))}
    return Seeded(rows["users"], rows["trades"], rows["bars"], fresh=False) if rows else None


def _add_younger_tables(connection: Connection) -> None:
    """Add the tables that some databases which were set up are older than."""
    if inspect(connection).has_table(tables.seeded.name):
        for table in YOUNGER:
            table.create(connection, checkfirst=True)


def _has_our_tables(connection: Connection) -> bool:
    """Return whether the tables are there. Raises: ValueError where they are not as we know them."""
    there = inspect(connection)
    if not all(there.has_table(needed.name) for needed in (tables.seeded, *YOUNGER)):
        return False
    for table in tables.metadata.sorted_tables:
        columns = {column["name"] for column in there.get_columns(table.name)} if there.has_table(table.name) else set()
        if missing := sorted({column.name for column in table.columns} - columns):
            raise ValueError(
                f"DATABASE_URL: this database was set up by another version ({table.name}.{missing[0]} is missing); "
                "remove it, or name another one"
            )
    return True


async def _fill(
    connection: AsyncConnection, users: int, trades: int, bars: list[dict[str, Any]], say: Progress
) -> Seeded:
    await connection.run_sync(tables.metadata.create_all)
    await connection.execute(insert(tables.instruments), instrument_rows())
    people = random.Random(SEED)  # noqa: S311 - the same users every time is the point
    counts = {"prices": len(bars), "users": users, "settings": users, "trades": trades}
    for what, table, rows in (
        ("prices", tables.bars, iter(bars)),
        ("users", tables.users, _users(people, users)),
        ("settings", tables.settings, _settings(people, users)),
        ("trades", tables.trades, _trades(users, trades, bars)),
    ):
        await _insert(connection, table, rows, counts[what], what, say)
    await _align_ids(connection)
    written = Seeded(users, trades, len(bars), fresh=True)
    kept = {"users": users, "trades": trades, "bars": len(bars)}
    await connection.execute(insert(tables.seeded), [{"what": what, "rows": rows} for what, rows in kept.items()])
    say("ready", 1.0)
    return written


async def _insert(
    connection: AsyncConnection, table: Table, rows: Iterator[dict[str, Any]], total: int, what: str, say: Progress
) -> None:
    done = 0
    while part := list(islice(rows, ROWS_AT_ONCE)):
        await connection.execute(insert(table), part)
        done += len(part)
        say(what, done / total)


async def _align_ids(connection: AsyncConnection) -> None:
    """PostgreSQL's sequences do not notice rows that bring their own id."""
    if connection.dialect.name == "postgresql":
        for table in (tables.users, tables.trades):
            top = await connection.scalar(select(func.max(table.c.id)))
            sequence = func.pg_get_serial_sequence(table.name, "id")
            await connection.execute(select(func.setval(sequence, top or 1, top is not None)))


def _users(draw: random.Random, users: int) -> Iterator[dict[str, Any]]:
    first = datetime.date(2005, 1, 1)
    for user in range(1, users + 1):
        name = f"{draw.choice(FIRST_NAMES)} {draw.choice(LAST_NAMES)}"
        yield {"id": user, "name": name, "joined": first + datetime.timedelta(days=draw.randrange(1000))}


def _settings(draw: random.Random, users: int) -> Iterator[dict[str, Any]]:
    for user in range(1, users + 1):
        yield {
            "user_id": user,
            "time_zone": draw.choice(ZONES),
            "grouping": draw.choice(list(Grouping)).value,
            "cost_basis": draw.choice(list(CostBasis)).value,
            "risk_free_rate": draw.choice((0.0, 0.01, 0.02, 0.03)),
            "theme": draw.choice(("light", "dark")),
        }


def _trades(users: int, trades: int, bars: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield trades in order of time, within opening hours, at prices of their day; sales sell only what is held."""
    draw = random.Random(SEED + 1)  # noqa: S311 - the same trades every time is the point
    traded = [bar for bar in bars if bar["day"].year >= FIRST_YEAR]
    moments = [(bar["day"], draw.randrange(OPEN_SECONDS), bar) for bar in draw.choices(traded, k=trades)]
    moments.sort(key=lambda moment: moment[:2])
    held: dict[tuple[int, str], int] = {}
    for number, (day, second, bar) in enumerate(moments, start=1):
        symbol: str = bar["symbol"]
        user = int(users * draw.random() ** BUSY_FEW) + 1
        owned = held.get((user, symbol), 0)
        selling = owned > 0 and draw.random() < 0.45
        quantity = draw.randint(1, owned) if selling else draw.randint(1, 40) * 5
        held[user, symbol] = owned - quantity if selling else owned + quantity
        yield {
            "id": number,
            "user_id": user,
            "symbol": symbol,
            "side": "sell" if selling else "buy",
            "quantity": quantity,
            "price_cents": _price_cents(draw, bar["low"], bar["high"]),
            "fee_cents": FEE_CENTS,
            "at": _instant(day, second),
        }


def _price_cents(draw: random.Random, low: float, high: float) -> int:
    """Return a price within the day's range, in whole cents; the nearest cent where the range holds none."""
    least, most = math.ceil(low * 100 - 1e-6), math.floor(high * 100 + 1e-6)
    return draw.randint(least, most) if least <= most else round(low * 100)


def _instant(day: datetime.date, second: int) -> datetime.datetime:
    opening = datetime.datetime.combine(day, OPENS, EXCHANGE)
    return opening.astimezone(datetime.UTC) + datetime.timedelta(seconds=second)


def _on_terminal(what: str, share: float) -> None:
    sys.stderr.write(f"\r{what:<10} {share:4.0%}" + ("\n" if what == "ready" else ""))
    sys.stderr.flush()


def main() -> int:
    """Seed the database that `DATABASE_URL` names; progress on a terminal, the outcome on standard output."""

    async def work() -> Seeded:
        try:
            return await seed(progress=_on_terminal if sys.stderr.isatty() else None)
        finally:
            await database.close()

    try:
        done = asyncio.run(work())
    except (SQLAlchemyError, OSError, ValueError, ModuleNotFoundError) as failed:
        sys.stderr.write(f"the database could not be set up: {failed}\n")
        return 1
    how = "seeded" if done.fresh else "seeded already"
    sys.stdout.write(f"{how}: {done.users:,} users, {done.trades:,} trades, {done.bars:,} real bars\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
