"""Where the database is, and what a connection holds."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.support.postgres import Postgres
from tests.tradesense.conftest import BOTH, World
from tradesense import queries
from tradesense.database import Database, async_url, database
from tradesense.recording import count_trades, record_trade

BEGUN = 60.0
"""Seconds a process of ours may take, on a machine that has much else to do."""


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite:////var/lib/a.db", "sqlite+aiosqlite:////var/lib/a.db"),
        ("postgres://u:p%40ss@h:5432/d", "postgresql+asyncpg://u:p%40ss@h:5432/d"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+psycopg2://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgres://u@h/d?sslmode=require&channel_binding=require", "postgresql+asyncpg://u@h/d?ssl=require"),
        ("postgresql://u@/d?host=/run/pg", "postgresql+asyncpg://u@/d?host=%2Frun%2Fpg"),
    ],
)
def test_urls_as_platforms_hand_them_out(given: str, used: str) -> None:
    """Heroku's `postgres://`, libpq's `sslmode`, another driver's name: all become what this project uses."""
    assert async_url(given) == used


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("mysql://u:secret@h/d", "postgresql://"),
        ("tradesense.db", "sqlite:///file"),
        ("sqlite://", "sqlite:///file"),
        ("sqlite:///:memory:", "sqlite:///file"),
        ("postgresql://u:secret@h:port/d", "host:port/name"),
    ],
)
def test_a_url_that_cannot_work_is_refused_at_once(url: str, fix: str) -> None:
    """The error names the variable and the fix, and never the password."""
    with pytest.raises(ValueError, match="DATABASE_URL") as refused:
        Database(url)
    assert fix in str(refused.value)
    assert "secret" not in str(refused.value)


def test_importing_reads_and_connects_to_nothing(tmp_path: Path) -> None:
    """With settings that could not work, everything can be imported, and no file appears."""
    code = "import tradesense.views, tradesense.seed, tradesense.recording; print('imported')"
    root = str(Path(__file__).parents[2])
    environment = {"DATABASE_URL": "nonsense", "REDIS_URL": "nonsense", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("imported\n", "")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_is_read_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DATABASE_URL` when it is set, a file under `.data/` when it is not or is empty."""
    from_env = Database.from_env()
    monkeypatch.setenv("DATABASE_URL", "postgres://u@h/d")
    assert from_env.url == "postgresql+asyncpg://u@h/d"
    monkeypatch.setenv("DATABASE_URL", "")
    assert from_env.url == "sqlite+aiosqlite:///.data/tradesense.db"


async def test_sqlite_is_set_up_for_many_readers_and_a_writer(world: World) -> None:
    """Write-ahead log, foreign keys, and patience with another writer, on every connection."""
    async with world.db.reading() as one, world.db.reading() as other:
        for connection in (one, other):
            pragmas = [await connection.scalar(text(f"PRAGMA {p}")) for p in ("journal_mode", "foreign_keys")]
            assert pragmas == ["wal", 1]
            assert (await connection.scalar(text("PRAGMA busy_timeout")) or 0) >= 10_000


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_a_reading_connection_sees_what_was_committed_since(world: World) -> None:
    """A query on a connection that read before sees the newest rows: no snapshot is kept."""
    count = text("SELECT count(*) FROM trades WHERE user_id = 7")
    async with world.db.reading() as connection:
        before = await connection.scalar(count)
        await record_trade(7, "IBM", "buy", 1, "200.00")
        assert await connection.scalar(count) == before + 1


async def test_a_query_leaves_nothing_open_in_sqlite(world: World) -> None:
    """With a reading connection still there, the log can be emptied: no reader holds on to an old state."""
    async with world.db.reading() as reader:
        await reader.execute(text("SELECT * FROM trades"))
        await record_trade(7, "IBM", "buy", 1, "200.00")
        async with world.db.reading() as other:
            busy, *_ = (await other.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))).one()
    assert busy == 0


@pytest.mark.parametrize("world_url", BOTH[1:], indirect=True)
async def test_a_query_leaves_nothing_open_in_postgresql(world: World) -> None:
    """A reading connection is idle after its query, not idle in a transaction."""
    async with world.db.reading() as reader, world.db.reading() as other:
        pid = await reader.scalar(text("SELECT pg_backend_pid()"))
        state = await other.scalar(text("SELECT state FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid})
    assert state == "idle"


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_a_transaction_that_fails_leaves_nothing(world: World) -> None:
    """What was written before the exception is gone, tables included."""

    async def fail() -> None:
        async with world.db.writing() as connection:
            await connection.execute(text("CREATE TABLE half (a INTEGER)"))
            await connection.execute(text("DELETE FROM trades"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await count_trades(1) > 0
    async with world.db.writing() as connection:
        await connection.execute(text("CREATE TABLE half (a INTEGER)"))


async def test_writers_wait_for_each_other(world: World) -> None:
    """Twenty at once, each reading before it writes: all succeed, none is told that the database is locked."""
    before = await count_trades(7)
    await asyncio.gather(*[record_trade(7, "IBM", "buy", 1, "200.00") for _ in range(20)])
    assert await count_trades(7) == before + 20


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_two_event_loops_use_the_same_database(world: World) -> None:
    """The loop of an app and the loop behind its synchronous callers read at the same time, each its own way."""

    async def elsewhere() -> list[int]:
        counts = [await count_trades(user) for user in (1, 2, 3)]
        await database.close()
        return counts

    there, here = await asyncio.gather(
        asyncio.to_thread(lambda: asyncio.run(elsewhere())),
        asyncio.gather(*[count_trades(user) for user in (1, 2, 3)]),
    )
    assert there == here


async def test_closing_is_not_the_end(world: World) -> None:
    """Closed twice, used again: connects again."""
    await world.db.close()
    await world.db.close()
    assert (await queries.user_profile(1)).user_id == 1


def test_a_process_that_closes_nothing_ends_by_itself(world_url: str) -> None:
    """Forgotten connections do not keep a program from ending."""
    code = "import asyncio; from tradesense import queries; print(asyncio.run(queries.user_profile(1)).user_id)"
    environment = {**os.environ, "DATABASE_URL": world_url}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=BEGUN, check=True
    )
    assert done.stdout == "1\n"


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
def test_a_forked_process_has_connections_of_its_own(world_url: str) -> None:
    """A parent that has read forks; both read on."""
    code = (
        "import asyncio, os\n"
        "from tradesense import queries\n"
        "async def main():\n"
        "    await queries.user_profile(1)\n"
        "    if not (pid := os.fork()):\n"
        "        asyncio._set_running_loop(None)\n"
        "        os._exit(asyncio.run(queries.user_profile(2)).user_id)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), (await queries.user_profile(3)).user_id)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "DATABASE_URL": world_url}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=BEGUN, check=True
    )
    assert done.stdout == "2 3\n"


@pytest.mark.xdist_group("postgresql")
async def test_the_tests_server_listens_on_a_unix_socket_only(postgres: Postgres) -> None:
    """Nobody else on this machine's network reaches it."""
    db = Database(postgres.url("postgres"))
    async with db.reading() as connection:
        assert await connection.scalar(text("SHOW listen_addresses")) == ""
    await db.close()
