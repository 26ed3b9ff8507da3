"""The database: SQLite in a file by default, PostgreSQL where `DATABASE_URL` says so. Connects when first used."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

DEFAULT_URL = "sqlite:///.data/tradesense.db"
BUSY_MS = 10_000
"""How long a SQLite writer waits for another one."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",  # Heroku still writes it this way
    "postgresql": "postgresql+asyncpg",
}


def async_url(url: str) -> str:
    """Return *url* with the driver this project uses. Raises: ValueError naming the fix."""
    scheme, separator, rest = url.partition("://")
    driver = _DRIVERS.get(scheme.partition("+")[0])
    if not separator or driver is None:
        raise ValueError(f"DATABASE_URL: {scheme!r} is not a known database; use sqlite:///file or postgresql://…")
    try:
        return make_url(f"{driver}://{rest}").render_as_string(hide_password=False)
    except ArgumentError as malformed:
        raise ValueError(f"DATABASE_URL: {malformed}") from None


class Database:
    """One database of one process. Safe to make at import time."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._engine: AsyncEngine | None = None
        self._loop: object = None

    @property
    def url(self) -> str:
        """Where it is: as given, else `DATABASE_URL`, else a file under `.data/`."""
        return async_url(self._url or os.environ.get("DATABASE_URL") or DEFAULT_URL)

    @property
    def engine(self) -> AsyncEngine:
        """The engine, made at first use."""
        if self._engine is None:
            self._engine = _engine(self.url)
        return self._engine

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for queries, each of which sees the newest committed rows."""
        async with self.engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that commits at the end."""
        async with self.engine.begin() as connection:
            yield connection

    async def close(self) -> None:
        """Close every connection. Idempotent; the next use connects again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()


def _engine(url: str) -> AsyncEngine:
    if not url.startswith("sqlite"):
        return create_async_engine(url, pool_size=5, max_overflow=5, pool_pre_ping=True)
    file = make_url(url).database
    if file and file != ":memory:":
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(url, pool_size=5)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


database = Database()
"""The application's database."""
