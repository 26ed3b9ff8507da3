"""The database: SQLite in a file by default, PostgreSQL where `DATABASE_URL` says so. Connects when first used."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

DEFAULT_URL = "sqlite:///.data/tradesense.db"
BUSY_MS = 30_000
"""How long a SQLite writer waits for another: longer than seeding takes, so that of two at once the second waits."""
CONNECTIONS = 5
"""Connections kept for each event loop; PostgreSQL may have as many again while there is much to do."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",  # Heroku still writes it this way
    "postgresql": "postgresql+asyncpg",
}


def async_url(url: str) -> str:
    """Return *url* with the driver this project uses. Raises: ValueError naming the fix, without the password."""
    scheme, separator, rest = url.strip().partition("://")
    driver = _DRIVERS.get(scheme.partition("+")[0])
    if not separator or driver is None:
        shown = scheme if separator else "a text without ://"
        raise ValueError(f"DATABASE_URL: {shown!r} is not a known database; use sqlite:///file or postgresql://…")
    try:
        parsed = make_url(f"{driver}://{rest}")
    except (ArgumentError, ValueError):
        raise ValueError("DATABASE_URL: cannot be read; write postgresql://user:password@host:port/name") from None
    parsed = _of_sqlite(parsed) if driver.startswith("sqlite") else _of_postgresql(parsed)
    return parsed.render_as_string(hide_password=False)


def _of_sqlite(url: URL) -> URL:
    """Each connection to an in-memory database would see another one."""
    if not url.database or ":memory:" in url.database:
        raise ValueError("DATABASE_URL: a database in memory is another one for each connection; use sqlite:///file")
    return url


def _of_postgresql(url: URL) -> URL:
    """Managed databases are handed out with libpq's words; asyncpg says `ssl` and binds channels by itself."""
    query = {name: value for name, value in url.query.items() if name not in {"sslmode", "channel_binding"}}
    if mode := url.query.get("sslmode"):
        query.setdefault("ssl", mode)
    return url.set(query=query)


class Database:
    """One database. Safe to make at import time: nothing is read and nothing connected before the first use.

    Every event loop has connections of its own, so a web app's loop and the loop behind synchronous callers may both
    use the same object, and so may a process that was forked.
    """

    def __init__(self, url: str | None = None) -> None:
        """Keep *url*, checked. Raises: ValueError naming the fix."""
        self._url = None if url is None else async_url(url)
        self._engines: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = WeakKeyDictionary()

    @classmethod
    def from_env(cls) -> Database:
        """Return the database that `DATABASE_URL` names when it is first used; without it, a file under `.data/`."""
        return cls()

    @property
    def url(self) -> str:
        """Where it is, with the driver's name and the password. Raises: ValueError naming the fix."""
        return self._url or async_url(os.environ.get("DATABASE_URL") or DEFAULT_URL)

    @property
    def engine(self) -> AsyncEngine:
        """The running loop's engine, made at first use."""
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None:
            engine = self._engines[loop] = _engine(self.url)
        return engine

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for queries, each of which sees the newest committed rows and holds nothing afterwards.

        SQLite begins no transaction for a SELECT; PostgreSQL is told not to. A snapshot that outlives its query would
        be older than the clock a cached view was born at.
        """
        async with self.engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that commits at the end, and is undone by an exception.

        SQLite takes its one write lock at once: a transaction that reads first and writes then may be refused.
        Source: https://www.sqlite.org/lang_transaction.html, "Read transactions versus write transactions".
        """
        async with self.engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    async def close(self) -> None:
        """Close the running loop's connections. Idempotent; the next use connects again."""
        engine = self._engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.dispose()


def _engine(url: str) -> AsyncEngine:
    if not url.startswith("sqlite"):
        return create_async_engine(url, pool_size=CONNECTIONS, max_overflow=CONNECTIONS, pool_pre_ping=True)
    Path(make_url(url).database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        # busy_timeout comes first: changing the journal mode of a new file waits for a lock too.
        for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


database = Database.from_env()
"""The application's database."""


async def answers() -> None:
    """Connect to the database and ask for an answer. Raises whatever its driver does when there is none."""
    asked = Database.from_env()  # a connection of its own: those in the pool may have been there before
    try:
        async with asked.reading() as connection:
            await connection.execute(text("SELECT 1"))
    finally:
        await asked.close()
