"""What is sent before COMMIT is warned of, and nothing else is."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cachebus import Cache, CacheSettings, sync
from cachebus.bus.publisher import Bus
from cachebus.integrations.sqlalchemy.before_commit import BeforeCommit, warning_before_commit
from cachebus.integrations.sqlalchemy.on_commit import invalidate_on_commit, publish_on_commit
from cachebus.testing.server import PrivateServer


class Base(DeclarativeBase):
    """The table of these tests."""


class Account(Base):
    """Something to write."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions of a database with one account."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'before.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Account).values(id=1, owner="ann"))
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


@pytest.fixture
def bus(cache: Cache) -> Iterator[Bus]:
    """A bus that is looked at, as is the cache."""
    bus = Bus(cache.client)
    with warning_before_commit(cache, bus):
        yield bus


async def added(session: AsyncSession) -> None:
    """Add an object, not flushed yet."""
    session.add(Account(id=2, owner="bob"))


async def flushed(session: AsyncSession) -> None:
    """Add an object, and flush."""
    session.add(Account(id=2, owner="bob"))
    await session.flush()


async def changed(session: AsyncSession) -> None:
    """Change an object that was read."""
    account = await session.get_one(Account, 1)
    account.owner = "bob"


async def updated(session: AsyncSession) -> None:
    """Send an UPDATE."""
    await session.execute(update(Account).values(owner="bob"))


async def written(session: AsyncSession) -> None:
    """Send SQL as text."""
    await session.execute(text("\n  update accounts set owner = 'bob'"))


@pytest.mark.parametrize("write", [added, flushed, changed, updated, written])
async def test_whatever_was_written_a_warning_says_what_to_use(
    cache: Cache,
    bus: Bus,
    sessions: async_sessionmaker[AsyncSession],
    write: Callable[[AsyncSession], Awaitable[None]],
) -> None:
    """Objects, flushed or not, statements and text; the warning points at the line of the call, and it is sent."""
    async with sessions() as session:
        await write(session)
        with pytest.warns(BeforeCommit, match="invalidate_on_commit") as found:
            clock = await cache.invalidate(tags=["account:1"])
        with pytest.warns(BeforeCommit, match="publish_on_commit"):
            await bus.publish("numbers", 1)
        assert clock
    assert found[0].filename == __file__


async def test_nothing_is_said_outside_of_a_transaction_that_has_written(
    cache: Cache, bus: Bus, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """After COMMIT or ROLLBACK, and while one only reads, all is well (a warning would be an error here)."""
    await cache.invalidate(tags=["account:1"])
    async with sessions() as session:
        await session.execute(select(Account))
        await session.execute(text("SELECT 1"))
        await cache.invalidate(tags=["account:1"])
        await updated(session)
        await session.commit()
        await cache.invalidate(tags=["account:1"])
        await updated(session)
        await session.rollback()
        await bus.publish("numbers", 1)
        await session.execute(select(Account))
        await bus.publish("numbers", 2)


async def test_what_waits_for_the_commit_is_not_warned_of(
    cache: Cache, bus: Bus, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """The hooks send when the transaction is over."""
    async with sessions() as session, session.begin():
        await updated(session)
        invalidate_on_commit(session, cache, tags=["account:1"])
        publish_on_commit(session, bus, "numbers", 1)


async def test_other_tasks_may_do_as_they_like(
    cache: Cache, bus: Bus, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A transaction that somebody else has open is no reason to warn."""
    written, go_on = asyncio.Event(), asyncio.Event()

    async def another() -> None:
        async with sessions() as session, session.begin():
            await updated(session)
            written.set()
            await go_on.wait()

    task = asyncio.create_task(another())
    await written.wait()
    await cache.invalidate(tags=["account:1"])
    await bus.publish("numbers", 1)
    go_on.set()
    await task


async def test_each_line_is_told_once(cache: Cache, bus: Bus, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Under Python's own filter a loop is one warning, and another line another."""
    async with sessions() as session:
        await updated(session)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("default")
            for _ in range(3):
                await cache.invalidate(tags=["account:1"])
            await cache.invalidate(tags=["account:1"])
    assert len(found) == 2


async def test_afterwards_everything_is_as_it_was(cache: Cache, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Outside of the block nothing is looked at, and nothing is left on the cache."""
    with warning_before_commit(cache):
        pass
    assert cache.observers == ()
    async with sessions() as session:
        await updated(session)
        await cache.invalidate(tags=["account:1"])


async def test_two_that_end_in_the_order_they_began_leave_nothing(
    cache: Cache, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Neither on the cache nor on the bus: each warns while it lasts, and nothing does afterwards."""
    bus = Bus(cache.client)
    before = dict(vars(bus))
    first, second = warning_before_commit(cache, bus), warning_before_commit(cache, bus)
    first.__enter__()
    second.__enter__()
    async with sessions() as session:
        await updated(session)
        first.__exit__(None, None, None)
        with pytest.warns(BeforeCommit):
            await cache.invalidate(tags=["account:1"])
        with pytest.warns(BeforeCommit):
            await bus.publish("numbers", 1)
        second.__exit__(None, None, None)
        await cache.invalidate(tags=["account:1"])
        await bus.publish("numbers", 2)
    assert (vars(bus), cache.observers) == (before, ())


@pytest.mark.parametrize("name", ["clear", "delete"])
async def test_every_way_to_invalidate_is_looked_at(
    name: str, cache: Cache, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """`clear` and `delete` come before COMMIT as `invalidate` does."""
    with warning_before_commit(cache):
        async with sessions() as session:
            await updated(session)
            with pytest.warns(BeforeCommit):
                await (cache.clear() if name == "clear" else cache.delete("account"))
            await session.commit()
            await cache.clear()


async def test_a_published_event_is_observed_once_and_by_its_channel(cache: Cache) -> None:
    """By several observers, each while it wants to be; the bus itself is as it was."""
    bus = Bus(cache)
    first: list[str] = []
    second: list[str] = []
    publish = bus.publish
    with bus.observed_by(first.append):
        with bus.observed_by(second.append):
            await bus.publish("one", 1)
        await publish("two", 2)
    await bus.publish("three", 3)
    assert (first, second, bus.observers) == (["one", "two"], ["one"], ())


def test_plain_sessions_are_looked_at_too(tmp_path: Path, server: PrivateServer, namespace: str) -> None:
    """Code without a loop is warned alike."""
    cache = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    bus = sync.Bus(cache)
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    Base.metadata.create_all(engine)
    with warning_before_commit(cache, bus), Session(engine) as session:
        session.add(Account(id=1, owner="ann"))
        with pytest.warns(BeforeCommit) as found:
            cache.invalidate(tags=["account:1"])
        with pytest.warns(BeforeCommit):
            bus.publish("numbers", 1)
        session.commit()
        cache.invalidate(tags=["account:1"])
    assert found[0].filename == __file__
    engine.dispose()
    cache.close()
