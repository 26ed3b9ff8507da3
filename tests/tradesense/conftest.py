"""A small world, seeded once a session, and a copy of it for each test: SQLite, and PostgreSQL where a test says both.

`world` is SQLite; `@pytest.mark.parametrize("world_url", BOTH, indirect=True)` runs a test on either.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.postgres import TEMPLATE, Postgres
from tradesense.database import Database, database
from tradesense.seed import seed

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))]
"""The marks ask for one test process, so that one server starts; spread over several, each starts its own."""
USERS = 40
TRADES = 3_000


class World(NamedTuple):
    """A seeded database that belongs to one test; the application's `database` is this one meanwhile."""

    url: str
    db: Database


def seeded(url: str) -> None:
    """Seed a small world."""

    async def work() -> None:
        db = Database(url)
        await seed(db, users=USERS, trades=TRADES)
        await db.close()

    asyncio.run(work())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the session; started only when a test wants it."""
    with Postgres.running() as server, server.database(TEMPLATE) as url:
        seeded(url)
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the small world."""
    file = tmp_path_factory.mktemp("template") / "seeded.db"
    seeded(f"sqlite:///{file}")
    return file


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A copy of the small world in PostgreSQL."""
    with postgres.database(like=TEMPLATE) as url:
        yield url


@pytest.fixture
def world_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where this test's copy of the small world is."""
    if getattr(request, "param", "sqlite") == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    template: Path = request.getfixturevalue("sqlite_template")
    return f"sqlite:///{shutil.copy(template, tmp_path / 'world.db')}"


@pytest.fixture
async def world(world_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The application's database is this test's copy."""
    monkeypatch.setenv("DATABASE_URL", world_url)
    yield World(world_url, database)
    await database.close()


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if getattr(request, "param", "sqlite") == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        with server.database() as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path / 'empty.db'}"
