"""Whether a cell's servers run: on a machine with more to do than it has cores one may stand still unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing, suppress

from cachebus.testing.server import PrivateServer
from tests.faults.database import Database

BEAT_S = 0.02


async def watch(servers: Sequence[PrivateServer], database: Database) -> None:
    """Tell the readers, until cancelled, that every server answers or is dead, and that this loop, their network, runs.

    A server that was killed refuses connections, which is an answer: everybody knows that it does not run.
    """
    rounds = asyncio.Barrier(len(servers) + 1)
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(_ask(server, rounds))
        while True:
            await rounds.wait()
            database.beat()
            await asyncio.sleep(BEAT_S)


async def _ask(server: PrivateServer, rounds: asyncio.Barrier) -> None:
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            with closing(writer):
                while True:
                    writer.write(b"PING\r\n")
                    await reader.readuntil(b"\r\n")
                    await rounds.wait()
        await rounds.wait()
