"""Invalidating and publishing with a SQLAlchemy transaction: after COMMIT, and only then."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from cachebus import Cache, CacheSettings, View, sync
from cachebus.bus.publisher import Bus
from cachebus.errors import ConfigurationError, PublishRefused
from cachebus.integrations.sqlalchemy.on_commit import invalidate_on_commit, publish_on_commit
from cachebus.redis.keyspace import Names
from cachebus.testing.server import PrivateServer

ROOT = Path(__file__).parents[2]


class Base(DeclarativeBase):
    """The tables of these tests."""


class Account(Base):
    """Something whose balance is cached."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions of a database with one account."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'on.db'}")
    transactional(engine.sync_engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO accounts VALUES (1, 'ann')"))
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


def transactional(engine: Any) -> None:
    """Have SQLite's driver begin transactions when told to, so that savepoints are inside one."""

    @event.listens_for(engine, "connect")
    def leave_it_to_us(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


@pytest.fixture
def owner(cache: Cache, sessions: async_sessionmaker[AsyncSession]) -> View[[int], str | None]:
    """A cached query."""

    @cache.view("owner:{number}", ttl="1h", tags=["account:{number}"])
    async def owner(number: int) -> str | None:
        async with sessions() as session:
            return await session.scalar(select(Account.owner).where(Account.id == number))

    return owner


@pytest.fixture
def bus(cache: Cache) -> Bus:
    """A bus on the cache's own client."""
    return Bus(cache.client)


@pytest.fixture
def payloads(server: PrivateServer, namespace: str) -> Callable[[], list[bytes]]:
    """What is in the stream of events."""
    return lambda: [fields[3] for _, fields in server.ask("XRANGE", f"{{{namespace}}}:events:0", "-", "+")]


@pytest.fixture
def journal(server: PrivateServer, namespace: str) -> Callable[[], list[Any]]:
    """The invalidations there were."""
    return lambda: list(server.ask("XRANGE", Names(namespace).journal, "-", "+"))


async def rename(session: AsyncSession, to: str) -> None:
    """Change the row that is cached."""
    await session.execute(text("UPDATE accounts SET owner = :to WHERE id = 1"), {"to": to})


async def test_what_was_read_before_the_commit_is_not_served_after_it(
    cache: Cache, sessions: async_sessionmaker[AsyncSession], owner: View[[int], str | None]
) -> None:
    """Somebody reads between the statement and COMMIT: gets the old row, and the new one after `commit()` returned."""
    assert await owner(1) == "ann"
    async with sessions() as session:
        await rename(session, "bob")
        invalidate_on_commit(session, cache, tags="account:1")  # a lone string is one name
        await owner.refresh(1)  # what an invalidation that comes too early leads to: the old row, stored as new
        assert await owner(1) == "ann"
        await session.commit()
        assert await owner(1) == "bob"


async def test_an_event_goes_out_after_the_commit(
    sessions: async_sessionmaker[AsyncSession], bus: Bus, payloads: Callable[[], list[bytes]]
) -> None:
    """Nothing is in the stream while the transaction is open; both are when `commit()` has returned, in order."""
    async with sessions() as session, session.begin():
        publish_on_commit(session, bus, "numbers", {"n": 1})
        publish_on_commit(session, bus, "numbers", {"n": 2})
        await rename(session, "bob")
        assert payloads() == []
    assert payloads() == [b'{"n":1}', b'{"n":2}']


async def test_the_event_is_the_one_of_the_call(
    sessions: async_sessionmaker[AsyncSession], bus: Bus, payloads: Callable[[], list[bytes]]
) -> None:
    """Data that change between the call and COMMIT are published as they were; key and id are passed on."""
    changing = {"n": 1}
    async with sessions() as session, session.begin():
        publish_on_commit(session, bus, "numbers", changing, key="k", id="once")
        publish_on_commit(session, bus, "numbers", changing, key="k", id="once")
        changing["n"] = 2
    assert payloads() == [b'{"n":1}']


async def test_a_delay_counts_from_the_commit(cache: Cache, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Nothing waits before the commit; one that cannot be is refused where it is asked for."""
    bus, delayed = Bus(cache), cache.names.bus("delayed")
    async with sessions() as session:
        publish_on_commit(session, bus, "numbers", {"n": 1}, id="later", delay="1h")
        with pytest.raises(PublishRefused, match="delay: -1 is in the past"):
            publish_on_commit(session, bus, "numbers", {"n": 1}, delay=-1)
        assert await cache.client.store.call("ZCARD", delayed) == 0
        await session.commit()
        assert await cache.client.store.call("ZCARD", delayed) == 1
    await bus.cancel("later")


@pytest.mark.parametrize("how", ["rollback", "raise", "close", "refused"])
async def test_a_rolled_back_transaction_does_nothing(
    cache: Cache,
    sessions: async_sessionmaker[AsyncSession],
    bus: Bus,
    payloads: Callable[[], list[bytes]],
    journal: Callable[[], list[Any]],
    how: str,
) -> None:
    """Rolled back, left by an exception, closed, or refused by the database at COMMIT: nothing is sent, ever."""
    async with sessions() as session:
        invalidate_on_commit(session, cache, tags=["account:1"])
        publish_on_commit(session, bus, "numbers", {"n": 1})
        if how == "rollback":
            await session.rollback()
        elif how == "close":
            await session.close()
        elif how == "raise":
            with pytest.raises(RuntimeError):
                async with session.begin_nested():
                    raise RuntimeError
            await session.rollback()
        else:
            session.add(Account(id=2, owner="ann"))
            with pytest.raises(IntegrityError):
                await session.commit()
            await session.rollback()
        await rename(session, "carol")
        await session.commit()  # the next transaction of this session has nothing of the one before
    assert payloads() == []
    assert journal() == []


async def test_a_session_keeps_nothing_of_what_was_rolled_back(
    cache: Cache, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """One that lives as long as its process does not grow with each transaction that failed."""
    bus = Bus(cache.client)
    left = weakref.ref(bus)
    async with sessions() as session:
        publish_on_commit(session, bus, "numbers", 1)
        async with session.begin_nested() as undone:
            publish_on_commit(session, bus, "numbers", 2)
            await undone.rollback()
        await session.rollback()
        del bus
        gc.collect()
        assert left() is None


async def test_a_savepoint_counts_with_what_is_around_it(
    sessions: async_sessionmaker[AsyncSession], bus: Bus, payloads: Callable[[], list[bytes]]
) -> None:
    """Released ones go out with COMMIT, in order; rolled back ones do not, nor what was released inside them."""
    async with sessions() as session, session.begin():
        publish_on_commit(session, bus, "numbers", 1)
        async with session.begin_nested():
            publish_on_commit(session, bus, "numbers", 2)
            async with session.begin_nested():
                publish_on_commit(session, bus, "numbers", 3)
        assert payloads() == []
        undone = await session.begin_nested()
        publish_on_commit(session, bus, "numbers", 4)
        async with session.begin_nested():
            publish_on_commit(session, bus, "numbers", 5)
        await undone.rollback()
        publish_on_commit(session, bus, "numbers", 6)
    assert payloads() == [b"1", b"2", b"3", b"6"]


async def test_a_released_savepoint_in_a_rolled_back_transaction_does_nothing(
    sessions: async_sessionmaker[AsyncSession], bus: Bus, payloads: Callable[[], list[bytes]]
) -> None:
    """RELEASE is no COMMIT."""
    async with sessions() as session:
        async with session.begin_nested():
            publish_on_commit(session, bus, "numbers", 1)
        await session.rollback()
        await session.commit()
    assert payloads() == []


async def test_equal_scopes_of_a_transaction_are_one_invalidation(
    cache: Cache, sessions: async_sessionmaker[AsyncSession], journal: Callable[[], list[Any]]
) -> None:
    """A hundred rows, from two savepoints: one record in the journal, each scope in it once."""
    async with sessions() as session, session.begin():
        for first in (0, 50):
            async with session.begin_nested():
                for number in range(first, first + 50):
                    invalidate_on_commit(session, cache, tags=["accounts", f"account:{number}"], prefix="owner:")
    invalidate_on_commit(session, cache, keys=["never:committed"])
    (record,) = journal()
    named = b"\n".join(record[1])
    assert [named.count(scope) for scope in (b"t:accounts", b"t:account:47", b"t:account:97", b"p:owner:")] == [
        1,
        1,
        1,
        1,
    ]
    assert b"never" not in named


async def test_it_may_be_called_while_the_session_flushes(
    sessions: async_sessionmaker[AsyncSession], bus: Bus, payloads: Callable[[], list[bytes]]
) -> None:
    """A mapper's event is where one knows that a row changed, whoever changed it."""

    def flushed(session: Session, _context: object) -> None:
        for account in session.new:
            publish_on_commit(session, bus, "numbers", account.id)

    async with sessions() as session:
        event.listen(session.sync_session, "after_flush", flushed)
        async with session.begin_nested():
            session.add(Account(id=2, owner="bob"))
        session.add(Account(id=3, owner="carol"))
        await session.commit()
    assert payloads() == [b"2", b"3"]


async def test_the_connection_is_given_back_before_anything_is_sent(
    cache: Cache, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Redis' time is not the database's: nobody waits for a connection because an invalidation is slow."""
    out: list[int] = []
    invalidate = cache.invalidate

    async def watched(**scopes: Any) -> Any:
        out.append(session.get_bind().pool.checkedout())  # type: ignore[union-attr] # an engine, and its queue
        return await invalidate(**scopes)

    async with sessions() as session:
        vars(cache).update(invalidate=watched)
        invalidate_on_commit(session, cache, tags=["account:1"])
        await rename(session, "bob")
        await session.commit()
    assert out == [0]


async def test_a_cancelled_caller_still_tells_the_others(
    cache: Cache, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A browser goes away just after COMMIT: the invalidation goes out, then the request ends as cancelled."""
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(**_scopes: Any) -> None:
        begun.set()
        await go_on.wait()
        done.set()

    async def request() -> None:
        async with sessions() as session, session.begin():
            invalidate_on_commit(session, cache, tags=["account:1"])

    vars(cache).update(invalidate=slow)
    task = asyncio.create_task(request())
    await begun.wait()
    task.cancel()
    for _ in range(20):  # as many turns of the loop as a cancellation may need to get everywhere
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_what_fails_after_the_commit_is_told_and_does_not_raise(
    cache: Cache,
    sessions: async_sessionmaker[AsyncSession],
    owner: View[[int], str | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full stream refuses the event: the data stand, the invalidation too, and the log names the channel."""
    bus = Bus(cache.client, max_events=0)
    assert await owner(1) == "ann"
    with caplog.at_level(logging.ERROR, "cachebus"):
        async with sessions() as session, session.begin():
            publish_on_commit(session, bus, "numbers", 1)
            invalidate_on_commit(session, cache, tags=["account:1"])
            await rename(session, "bob")
    assert await owner(1) == "bob"
    assert "committed, but an event on numbers did not get out: StreamFull" in caplog.text


async def test_redis_away_does_not_hold_up_an_invalidation(
    own_server: PrivateServer, namespace: str, sessions: async_sessionmaker[AsyncSession], until: Callable[..., Any]
) -> None:
    """The commit returns, this process reads anew, and others are told when Redis is back."""
    async with Cache(settings=CacheSettings(url=own_server.url, namespace=namespace)) as cache:
        own_server.kill()
        await until(lambda: not cache.stats().up)
        async with sessions() as session, session.begin():
            invalidate_on_commit(session, cache, tags=["account:1"])
        assert cache.stats().queued == 1
        own_server.restart()
        await until(lambda: not cache.stats().queued)


@pytest.fixture
def plain(server: PrivateServer, namespace: str) -> Iterator[sync.Cache]:
    """A cache for code without a loop."""
    cache = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    yield cache
    cache.close()


@pytest.mark.parametrize("scoped", [False, True])
def test_a_plain_session_takes_the_synchronous_ones(
    tmp_path: Path, plain: sync.Cache, payloads: Callable[[], list[bytes]], scoped: bool
) -> None:
    """Flask, Celery, scripts: a `scoped_session` stands for the session of this thread."""
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    transactional(engine)
    Base.metadata.create_all(engine)
    factory = sessionmaker(engine)
    session = scoped_session(factory) if scoped else factory()

    @plain.view("owner:{number}", ttl="1h", tags=["account:{number}"])
    def owner(number: int) -> str | None:
        with factory() as reading:
            return reading.scalar(select(Account.owner).where(Account.id == number))

    bus = sync.Bus(plain)
    assert owner(1) is None
    session.add(Account(id=1, owner="ann"))
    invalidate_on_commit(session, plain, tags=["account:1"])
    publish_on_commit(session, bus, "numbers", 1)
    with session.begin_nested() as undone:
        publish_on_commit(session, bus, "numbers", 2)
        undone.rollback()
    assert payloads() == []
    session.commit()
    assert (owner(1), payloads()) == ("ann", [b"1"])
    publish_on_commit(session, bus, "numbers", 3)
    session.rollback()
    session.close()
    assert payloads() == [b"1"]
    engine.dispose()


async def test_scoped_and_plain_sessions_of_an_asynchronous_one_work_alike(
    sessions: async_sessionmaker[AsyncSession], bus: Bus, payloads: Callable[[], list[bytes]]
) -> None:
    """`async_scoped_session` stands for its session; `run_sync` gives a plain one that can wait all the same."""
    scoped = async_scoped_session(sessions, asyncio.current_task)
    publish_on_commit(scoped, bus, "numbers", 1)
    await scoped.commit()
    await scoped().run_sync(lambda session: publish_on_commit(session, bus, "numbers", 2))
    await scoped.commit()
    await scoped.remove()
    assert payloads() == [b"1", b"2"]


async def test_what_a_session_cannot_wait_for_is_refused_at_the_call(
    cache: Cache, bus: Bus, plain: sync.Cache, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Not after the commit, when it would be too late; the message names what to give instead."""
    async with sessions() as session:
        with pytest.raises(ConfigurationError, match=r"cachebus\.sync"):
            invalidate_on_commit(session.sync_session, cache, tags=["a"])
        with pytest.raises(ConfigurationError, match="give a Cache"):
            publish_on_commit(session, sync.Bus(plain), "numbers", 1)  # type: ignore[call-overload] # what is refused
        with pytest.raises(ConfigurationError, match="Bus is no session; the session comes first"):
            publish_on_commit(bus, session, "numbers", 1)  # type: ignore[call-overload] # what is refused
        with pytest.raises(ConfigurationError, match="name keys"):
            invalidate_on_commit(session, cache)
        with pytest.raises(ConfigurationError, match="tag"):
            invalidate_on_commit(session, cache, tags=[""])
        with pytest.raises(PublishRefused, match="channel"):
            publish_on_commit(session, bus, "ws:user:7", 1)
        with pytest.raises(PublishRefused, match="cannot become JSON"):
            publish_on_commit(session, bus, "numbers", object())


def test_the_library_does_without_sqlalchemy() -> None:
    """Only who asks for the hooks imports it."""
    check = "import sys, cachebus, cachebus.bus.publisher, cachebus.sync.cache; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
