"""Rows that other programs change: triggers that `cachebus pg-triggers` writes, a worker that hears of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from cachebus import Cache, ConfigurationError
from cachebus.integrations.sqlalchemy.row_changes import CHANNEL, RowTriggers, rows_changed
from cachebus.testing.server import PrivateServer
from tests.support.postgres import PSQL, Postgres
from tests.support.waiting import until
from tests.support.worker_program import ROOT, WorkerProcess, ask

pytestmark = pytest.mark.xdist_group("postgresql")
CACHEBUS = (sys.executable, "-m", "cachebus.worker")
APPLICATION = """
import os
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from cachebus import Cache
from cachebus.integrations.sqlalchemy.outbox import Outbox

cache = Cache.from_env()
url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
engine = create_async_engine(url, poolclass=NullPool)
metadata = MetaData()
outbox = Outbox(metadata, lambda: engine)
"""
TABLES = """
CREATE TABLE trades (id serial PRIMARY KEY, user_id integer, price integer, at timestamptz);
INSERT INTO trades (user_id, price) VALUES (7, 10), (8, 10);
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres.running() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """A database with the table and an outbox; yields its URL."""
    with postgres.database() as url:
        asyncio.run(made(url))
        yield url


async def made(url: str) -> None:
    """Create the tables."""
    from sqlalchemy import MetaData  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    from cachebus.integrations.sqlalchemy.outbox import Outbox  # noqa: PLC0415

    engine, metadata = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://")), MetaData()
    Outbox(metadata, lambda: engine)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    assert psql(url, TABLES) == ""


def psql(url: str, sql: str) -> str:
    """Run it as an operator does; returns what was said on stderr."""
    done = subprocess.run([PSQL, url, "-q"], input=sql, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr


def written(*arguments: str) -> str:
    """What the command prints."""
    command = [*CACHEBUS, "pg-triggers", *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


async def test_an_update_by_psql_is_fresh_in_every_application(
    database: str, server: PrivateServer, namespace: str, tmp_path: Path, connect: Callable[..., Awaitable[Cache]]
) -> None:
    """Two applications have the figure in memory; a statement of psql, and both serve the new one.

    `pytest -s` shows how long that took, the start of psql included.
    """
    (tmp_path / "app.py").write_text(APPLICATION)
    assert await asyncio.to_thread(psql, database, written("trades", "--tag", "user:{user_id}:trades")) == ""
    environment = {
        "REDIS_URL": server.url,
        "CACHE_NAMESPACE": namespace,
        "DATABASE_URL": database,
        "CACHE": "app:cache",
        "HANDLERS": "app",
        "SCHEDULES": "app",
        "OUTBOX": "app:outbox",
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }
    pool = await asyncpg.create_pool(database)
    with WorkerProcess(environment, "worker", cwd=tmp_path, program=CACHEBUS) as worker:
        await asyncio.to_thread(worker.said, "worker ready")
        totals = [total_in(await connect(), pool) for _ in range(2)]
        for user, sql, before, after in (
            (7, "UPDATE trades SET price = 11 WHERE user_id = 7", 10, 11),
            (7, "INSERT INTO trades (user_id, price) VALUES (7, 1), (NULL, 5)", 11, 12),
            (7, "UPDATE trades SET user_id = 8 WHERE price = 1", 12, 11),
            (8, "DELETE FROM trades WHERE price = 1", 11, 10),
            (8, "TRUNCATE trades", 10, 0),
        ):
            assert [await total(user) for total in totals] == [before, before], sql
            began = time.perf_counter()
            assert await asyncio.to_thread(psql, database, sql + ";") == ""
            committed = time.perf_counter()
            await until(partial(all_say, totals, user, after), f"{sql}: {worker.text}")
            ends = time.perf_counter()
            ms = f"{1e3 * (ends - began):4.0f} ms with psql, {1e3 * (ends - committed):4.0f} ms after it"
            sys.stdout.write(f"{sql[:40]:40}  {ms}\n")
        assert await asyncio.to_thread(worker.stop) == 0
    await pool.close()


async def all_say(totals: Iterable[Callable[[int], Awaitable[int]]], user: int, wanted: int) -> bool:
    """Return whether each application shows this sum."""
    return {await total(user) for total in totals} == {wanted}


def total_in(cache: Cache, pool: asyncpg.Pool[Any]) -> Any:
    """Declare the view in one application."""

    @cache.view("total:{user_id}", ttl="1h", tags=["user:{user_id}:trades"])
    async def total(user_id: int) -> int:
        return int(await pool.fetchval("SELECT coalesce(sum(price), 0) FROM trades WHERE user_id = $1", user_id))

    return total


async def test_a_statement_that_changes_many_rows_is_few_events(database: str) -> None:
    """Distinct tags, a few hundred an event; applied twice the triggers are there once; dropped they are gone."""
    for _ in range(2):
        assert psql(database, written("trades", "--tag", "user:{user_id}:trades", "--tag", "trades")) == ""
    assert psql(database, "INSERT INTO trades (user_id) SELECT n % 500 FROM generate_series(1, 5000) AS n;") == ""
    connection = await asyncpg.connect(database)
    payloads = await connection.fetch("SELECT payload FROM cachebus_outbox WHERE channel = $1", CHANNEL)
    events = [rows_changed.decode(row["payload"].encode()) for row in payloads]
    tags = [tag for event in events for tag in event.tags]
    assert len(events) == 3
    assert sorted(tags) == sorted({"trades", *(f"user:{n}:trades" for n in range(500))})
    assert "drop cascades" in psql(database, written("trades", "--drop"))
    await connection.execute("UPDATE trades SET price = 1")
    assert await connection.fetchval("SELECT count(*) FROM cachebus_outbox") == 3
    await connection.close()


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x7fb"])
async def test_a_control_character_in_a_column_costs_no_tag_of_its_statement(cache: Cache, name: str) -> None:
    """The view of that name is as fresh as those of the other rows; a name without any text is nobody's."""
    names = dict.fromkeys((name, "ann"), 1)

    @cache.view("named:{who}", ttl="1h", tags=["named:{who}"])
    async def number(who: str) -> int:
        return names[who]

    assert [await number(who) for who in names] == [1, 1]
    names = dict.fromkeys(names, 2)
    event = rows_changed.decode(msgspec.json.encode({"tags": ["", *(f"named:{who}" for who in names)]}))
    (effect,) = rows_changed(event)
    await cache.invalidate(tags=effect.tags)
    assert [await number(who) for who in names] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "--tag", "a"), 'cachebus: there is no table "nowhere"'),
        (("trades", "--tag", "a", "--into", "no_box"), 'cachebus: there is no outbox "no_box"; create its table first'),
        (("trades", "--tag", "u:{usr_id}"), 'cachebus: "trades" has no column usr_id'),
        (("trades", "--tag", "d:{at}"), 'cachebus: column at of "trades" is neither a whole number, text nor UUID'),
    ],
)
def test_the_database_says_what_is_missing_in_one_line(database: str, arguments: tuple[str, ...], said: str) -> None:
    """And nothing is left half done."""
    assert [line for line in psql(database, written(*arguments)).splitlines() if "ERROR" in line] == [f"ERROR:  {said}"]
    assert psql(database, "UPDATE trades SET price = 1;") == ""


@pytest.mark.parametrize(
    ("table", "tag", "said"),
    [
        ('a"; DROP TABLE b', "t", "is not the name of a table"),
        ("trades", "", "must be text"),
        ("trades", "u:{user.id}", r"\{user.id\} in 'u:\{user.id\}' is not a column"),
        ("trades", "u:{user_id", "expected '}'"),
        ("trades", "$sql$", "must be text without"),
    ],
)
def test_a_name_that_cannot_be_is_refused(table: str, tag: str, said: str) -> None:
    """Before anything is printed; what it prints runs in a database."""
    with pytest.raises(ConfigurationError, match=said):
        RowTriggers(table, [tag], "cachebus_outbox")


def test_the_command_needs_a_tag() -> None:
    """Exit code 2, and an example."""
    code, text = ask({}, "pg-triggers", "trades", program=CACHEBUS)
    assert (code, "such as --tag user:{user_id}" in text) == (2, True)
