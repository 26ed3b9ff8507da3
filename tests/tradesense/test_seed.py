"""Seeding: the same every time, whole or not at all, at real prices."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import inspect, select, text

from tests.support import independent
from tests.tradesense.conftest import BOTH, TRADES, USERS, World
from tradesense import tables
from tradesense.database import Database
from tradesense.recording import record_trade
from tradesense.seed import Seeded, seed

SMALL = Seeded(users=5, trades=200, bars=12_154, fresh=True)


async def contents(db: Database) -> str:
    """Return a digest of every row of every table."""
    digest = hashlib.sha256()
    async with db.reading() as connection:
        for table in tables.metadata.sorted_tables:
            for row in await connection.execute(select(table).order_by(*table.primary_key.columns)):
                digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()


def program(code: str, url: str, **environment: str) -> subprocess.Popen[str]:
    """Start a Python program that knows the database."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "DATABASE_URL": url, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_the_default_world_is_a_thousand_users_and_fifty_thousand_trades(tmp_path: Path) -> None:
    """Everything is there, progress ran through every stage to its end, and a second call changes nothing."""
    db = Database(f"sqlite:///{tmp_path / 'full.db'}")
    said: list[tuple[str, float]] = []
    done = await seed(db, progress=lambda what, share: said.append((what, share)))
    again = await seed(db, progress=lambda what, share: said.append((what, -1.0)))
    await db.close()
    assert done == Seeded(users=1_000, trades=50_000, bars=12_154, fresh=True)
    assert again == done._replace(fresh=False)
    stages = list(dict.fromkeys(what for what, _ in said))
    assert stages == ["prices", "users", "settings", "trades", "ready"]
    for stage in stages:
        shares = [share for what, share in said if what == stage]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    rows = independent.read(f"sqlite:///{tmp_path / 'full.db'}")
    assert (len(rows.settings), len(rows.trades), len(rows.bars)) == (1_000, 50_000, 12_154)
    assert rows.trades.user_id.nunique() > 990
    assert rows.trades.user_id.value_counts().median() < rows.trades.user_id.value_counts().mean()


def test_trades_were_possible(world: World) -> None:
    """Each at a price of its day, while New York traded, and no sale of what was not held."""
    rows = independent.read(world.url)
    assert len(rows.trades) == TRADES
    local = rows.trades["at"].dt.tz_convert("America/New_York")
    minutes = local.dt.hour * 60 + local.dt.minute
    assert minutes.between(9 * 60 + 30, 16 * 60 - 1).all()
    of_day = rows.trades.assign(day=local.dt.tz_localize(None).dt.normalize()).merge(rows.bars, on=["symbol", "day"])
    assert len(of_day) == TRADES
    price = of_day.price_cents / 100
    assert ((price >= of_day.low - 0.005) & (price <= of_day.high + 0.005)).all()
    assert (rows.trades.groupby(["user_id", "symbol"]).shares.cumsum() >= 0).all()
    assert {"buy", "sell"} == set(rows.trades.side)


def test_time_zones_put_trades_on_other_days(world: World) -> None:
    """A good part of the trades happens on another day of Tokyo's calendar than of New York's."""
    at = independent.read(world.url).trades["at"]
    days = [at.dt.tz_convert(zone).dt.date for zone in ("America/New_York", "Asia/Tokyo")]
    assert (days[0] != days[1]).mean() > 0.5


async def test_two_seedings_make_the_same_world(tmp_path: Path) -> None:
    """Row by row, in processes whose hashes differ."""
    urls = [f"sqlite:///{tmp_path / name}" for name in ("one.db", "two.db")]
    code = "import asyncio; from tradesense.seed import seed; asyncio.run(seed(users=5, trades=200))"
    running = [program(code, url, PYTHONHASHSEED=str(number)) for number, url in enumerate(urls, 1)]
    assert [(process.communicate()[1], process.returncode) for process in running] == [("", 0)] * 2
    worlds = [Database(url) for url in urls]
    assert await contents(worlds[0]) == await contents(worlds[1])
    for db in worlds:
        await db.close()


@pytest.mark.parametrize("empty_url", BOTH, indirect=True)
async def test_a_seeding_that_is_killed_leaves_nothing_and_is_done_again(empty_url: str) -> None:
    """`kill -9` with half of the trades written: no table is there; the next seeding is whole."""
    code = (
        "import asyncio, sys, time\n"
        "from tradesense.seed import seed\n"
        "def progress(what, share):\n"
        "    if what == 'trades' and share >= 0.5:\n"
        "        print('halfway', flush=True)\n"
        "        time.sleep(600)\n"
        "asyncio.run(seed(users=5, trades=8000, progress=progress))\n"
    )
    with program(code, empty_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.kill()
    db = Database(empty_url)
    async with db.reading() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
    assert await seed(db, users=5, trades=200) == SMALL
    async with db.reading() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM trades")) == 200
    await db.close()


@pytest.mark.parametrize("empty_url", BOTH, indirect=True)
async def test_of_two_seedings_at_once_the_second_waits(empty_url: str) -> None:
    """One of them does the work, the other finds it done."""
    worlds = [Database(empty_url) for _ in range(3)]
    done = await asyncio.gather(*[seed(db, users=5, trades=200) for db in worlds])
    assert sorted(done) == [SMALL._replace(fresh=False)] * 2 + [SMALL]
    for db in worlds:
        await db.close()


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_a_seeded_database_is_not_even_locked(world: World) -> None:
    """While somebody writes, another start finds the world there and goes on at once."""
    async with world.db.writing() as writer:
        await writer.execute(text("UPDATE users SET name = 'Ada' WHERE id = 1"))
        found = await asyncio.wait_for(seed(world.db), 20)
    assert found == Seeded(USERS, TRADES, 12_154, fresh=False)


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_new_trades_are_numbered_after_the_seeded_ones(world: World) -> None:
    """The database goes on counting where seeding ended."""
    assert await record_trade(1, "IBM", "buy", 1, "200.00") == TRADES + 1


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_a_database_gets_the_tables_that_it_is_older_than(world: World) -> None:
    """It was seeded by an older version; nothing else is touched, and a trade can be announced."""
    async with world.db.writing() as connection:
        for table in (tables.outbox.table, tables.imports):
            await connection.run_sync(table.drop)
    assert await seed(world.db) == Seeded(USERS, TRADES, bars=12_154, fresh=False)
    await record_trade(7, "IBM", "buy", 1, "200", announce=True)


async def test_a_database_of_another_version_is_named_as_such(world: World) -> None:
    """A table without a column we need: refused with its name and what to do."""
    async with world.db.writing() as connection:
        await connection.execute(text("ALTER TABLE users DROP COLUMN joined"))
    with pytest.raises(ValueError, match=r"DATABASE_URL: .*users\.joined is missing.*remove it, or name another one"):
        await seed(world.db)


def test_numbers_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """No users, or fewer than no trades: named, and no file is made."""
    db = Database(f"sqlite:///{tmp_path / 'none.db'}")
    for users, trades in ((0, 10), (10, -1)):
        with pytest.raises(ValueError, match=f"users, trades: {users} and {trades}"):
            asyncio.run(seed(db, users=users, trades=trades))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_there_is(world_url: str) -> None:
    """`python -m tradesense.seed`: one line and exit code 0; with a bad URL, the reason and exit code 1."""
    command = [sys.executable, "-m", "tradesense.seed"]
    good, bad = (
        subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True, check=False)
        for url in (world_url, "mysql://h/d")
    )
    said = f"seeded already: {USERS} users, {TRADES:,} trades, 12,154 real bars\n"
    assert (good.returncode, good.stdout, good.stderr) == (0, said, "")
    assert bad.returncode == 1
    assert "DATABASE_URL: 'mysql' is not a known database" in bad.stderr


def test_every_user_has_settings_that_exist(world: World) -> None:
    """One row each; all groupings and both bases occur, and more than one time zone."""
    settings = independent.read(world.url).settings
    assert sorted(settings.user_id) == list(range(1, USERS + 1))
    assert set(settings.grouping) == {"day", "week", "month"}
    assert set(settings.cost_basis) == {"fifo", "average"}
    assert settings.time_zone.nunique() > 3
    assert all(pd.Timestamp("2012-01-01", tz=zone) for zone in settings.time_zone.unique())
