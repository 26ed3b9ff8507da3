"""Sets the database up: real prices, and users who traded at them. The same every time; whole, or not at all."""

from __future__ import annotations

import asyncio
import datetime
import random
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tradesense import tables
from tradesense.database import Database, database
from tradesense.market import bar_rows, instrument_rows

USERS = 1_000
TRADES = 50_000
SEED = 2013
ROWS_AT_ONCE = 2_000
EXCHANGE = ZoneInfo("America/New_York")
ZONES = ("America/New_York", "Europe/Berlin", "Asia/Tokyo", "Australia/Sydney", "UTC", "America/Los_Angeles")
FIRST_NAMES = ("Ada", "Ben", "Chen", "Dana", "Emil", "Fay", "Gus", "Hana", "Ivan", "Jo", "Kim", "Lea", "Max", "Noor")
LAST_NAMES = ("Adler", "Bauer", "Cruz", "Dunn", "Endo", "Faber", "Gray", "Haas", "Ito", "Jung", "Kaya", "Lund")

Progress = Callable[[str, float], None]
"""Called with what is being done and the share that is done, 0.0 to 1.0."""


class Seeded(NamedTuple):
    """What the database holds, and whether this call put it there."""

    users: int
    trades: int
    bars: int
    fresh: bool


async def seed(
    db: Database = database, *, users: int = USERS, trades: int = TRADES, progress: Progress | None = None
) -> Seeded:
    """Create the tables and fill them in one transaction; returns at once where that is done already.

    Safe to repeat and to interrupt: an interrupted seeding leaves nothing.
    """
    say = progress or (lambda _what, _share: None)
    async with db.writing() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(7353)"))  # two at once: the second waits
        else:
            await connection.execute(text("PRAGMA busy_timeout=60000"))
            await connection.execute(text("BEGIN IMMEDIATE")) if not connection.in_transaction() else None
        await connection.run_sync(tables.metadata.create_all)
        if done := await _done(connection):
            return done
        say("prices", 0.0)
        bars = list(bar_rows())
        await connection.execute(insert(tables.instruments), instrument_rows())
        await _insert(connection, tables.bars, iter(bars), len(bars), "prices", say)
        people = random.Random(SEED)  # noqa: S311 - the same users every time is the point
        await _insert(connection, tables.users, _users(people, users), users, "users", say)
        await _insert(connection, tables.settings, _settings(people, users), users, "settings", say)
        await _insert(connection, tables.trades, _trades(users, trades, bars), trades, "trades", say)
        await _align_ids(connection)
        counts = {"users": users, "trades": trades, "bars": len(bars)}
        await connection.execute(insert(tables.seeded), [{"what": what, "rows": rows} for what, rows in counts.items()])
    say("ready", 1.0)
    return Seeded(users, trades, len(bars), fresh=True)


async def _done(connection: AsyncConnection) -> Seeded | None:
    rows = {row.what: row.rows for row in await connection.execute(select(tables.seeded))}
    return Seeded(rows["users"], rows["trades"], rows["bars"], fresh=False) if rows else None


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
            await connection.execute(
                text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), :top)"), {"top": top or 1}
            )


def _users(draw: random.Random, users: int) -> Iterator[dict[str, Any]]:
    first = datetime.date(2005, 1, 1)
    for user in range(1, users + 1):
        name = f"{draw.choice(FIRST_NAMES)} {draw.choice(LAST_NAMES)}"
        yield {"id": user, "name": name, "joined": first + datetime.timedelta(days=draw.randrange(2500))}


def _settings(draw: random.Random, users: int) -> Iterator[dict[str, Any]]:
    for user in range(1, users + 1):
        yield {
            "user_id": user,
            "time_zone": draw.choice(ZONES),
            "grouping": draw.choice(("day", "week", "month")),
            "cost_basis": draw.choice(("fifo", "average")),
            "risk_free_rate": draw.choice((0.0, 0.01, 0.02, 0.03)),
            "theme": draw.choice(("light", "dark")),
        }


def _trades(users: int, trades: int, bars: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield trades in order of time: a few users trade much, sales sell only what is held, prices are the day's."""
    draw = random.Random(SEED + 1)  # noqa: S311 - the same trades every time is the point
    days = sorted(bars, key=lambda bar: (bar["day"], bar["symbol"]))
    days = [bar for bar in days if bar["day"].year >= 2008]
    held: dict[tuple[int, str], int] = {}
    for number, index in enumerate(sorted(draw.choices(range(len(days)), k=trades)), start=1):
        bar = days[index]
        user = min(users, int(users * draw.random() ** 1.7) + 1)
        owned = held.get((user, bar["symbol"]), 0)
        selling = owned > 0 and draw.random() < 0.45
        quantity = draw.randint(1, owned) if selling else draw.randint(1, 40) * 5
        held[user, bar["symbol"]] = owned - quantity if selling else owned + quantity
        minute = draw.randrange(390)
        local = datetime.datetime.combine(bar["day"], datetime.time(9, 30), EXCHANGE) + datetime.timedelta(
            minutes=minute
        )
        yield {
            "id": number,
            "user_id": user,
            "symbol": bar["symbol"],
            "side": "sell" if selling else "buy",
            "quantity": quantity,
            "price": round(draw.uniform(bar["low"], bar["high"]), 4),
            "fee": 1.0,
            "at": local.astimezone(datetime.UTC),
        }


def main() -> int:
    """Seed the database that `DATABASE_URL` names."""
    try:
        done = asyncio.run(seed(progress=lambda what, share: print(f"\r{what:<10} {share:4.0%}", end="", flush=True)))  # noqa: T201 - a command line
    except (SQLAlchemyError, OSError, ValueError, ModuleNotFoundError) as failed:
        print(f"\nthe database could not be set up: {failed}", file=sys.stderr)  # noqa: T201 - a command line
        return 1
    print(f"\n{done.users:,} users, {done.trades:,} trades, {done.bars:,} real bars")  # noqa: T201 - a command line
    return 0


if __name__ == "__main__":
    sys.exit(main())
