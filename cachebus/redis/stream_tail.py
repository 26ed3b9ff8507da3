"""Reading a stream as it grows, in order, on a connection of its own; the next read is always under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cachebus.errors import Unavailable
from cachebus.redis.connection import Argument, Connection
from cachebus.redis.replies import Reply
from cachebus.redis.server import Server

GRACE_S = 1.0
"""No reply for this long after a read should have ended, and the connection is given up."""

Entry = list[Any]
"""A stream entry as the server sends it: its id, and its fields as [name, value, name, value, …], all bytes."""


class StreamTail:
    """The entries after a position. Not reconnecting: when a read fails, whoever reads opens it again.

    An empty read after *block_ms* is the sign that the connection lives; entries end the wait at once. At most *count*
    of them come at a time, which bounds what one reply may hold. *beside* is a question that is sent along with each
    read: `answer` is what the server said to it when the read that was returned last began.
    """

    def __init__(
        self,
        server: Server,
        stream: str,
        *,
        block_ms: int,
        count: int,
        beside: tuple[Argument, ...] | None = None,
    ) -> None:
        self._server = server
        self._stream = stream
        self._block_ms = block_ms
        self._count = count
        self._beside = beside
        self._after: str | bytes = "0-0"
        self._connection: Connection | None = None
        self._question: asyncio.Future[Reply] | None = None
        self._read: asyncio.Future[Reply] | None = None
        self.answer: Reply = None

    async def open(self, after: str) -> None:
        """Connect and begin to read after position *after*. Waits while there is no server. Raises: ServerError."""
        await self.close()
        self._connection = await self._server.dedicated(self._stream)
        self._after = after
        self._ask()

    async def next(self, others: Sequence[asyncio.Future[Any]] = (), timeout_s: float | None = None) -> Sequence[Entry]:
        """Return the next entries; none when the time is over, or one of *others* is done first.

        Raises: ServerError; it has to be opened again then.
        """
        read = self._read
        if read is None:
            raise Unavailable("the stream is not being read")
        await asyncio.wait([read, *others], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not read.done():
            return ()
        if self._question is not None:
            self.answer = await self._question  # it was asked before
        streams = read.result()
        entries: Sequence[Entry] = streams[0][1] if streams else ()
        if entries:
            self._after = entries[-1][0]
        self._ask()
        await asyncio.sleep(0)  # the question leaves before what is done with the entries keeps the loop busy
        return entries

    async def close(self) -> None:
        """Drop the connection. Idempotent."""
        connection, self._connection = self._connection, None
        asked, self._question, self._read = (self._question, self._read), None, None
        if connection is not None:
            await connection.close()
        for reply in asked:
            if reply is not None and reply.done() and not reply.cancelled():
                reply.exception()  # nobody will ask for it any more

    def _ask(self) -> None:
        if self._connection is None:
            return
        deadline_s = self._block_ms / 1000 + GRACE_S
        if self._beside is not None:
            self._question = self._connection.send(*self._beside, timeout_s=deadline_s)
        self._read = self._connection.send(
            *("XREAD", "COUNT", self._count, "BLOCK", self._block_ms, "STREAMS", self._stream, self._after),
            timeout_s=deadline_s,
        )
