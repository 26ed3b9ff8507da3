"""Reading a shard's events, in order, on a connection of its own; the next read is always under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cachebus.errors import Unavailable
from cachebus.events import Record
from cachebus.link import Link
from cachebus.wire import Reply, Wire

BLOCK_MS = 5000
"""An empty reply after this long is the sign that the connection lives; events end the wait at once."""
DEADLINE_S = 6.0
"""No reply for this long, and the connection is given up."""
RECORDS_A_READ = 200
"""Bounds what one reply may hold: two reads of the largest events are 100 MB, not more."""


class Intake:
    """The events after a position. Not reconnecting: when a read fails, the consumer begins again from its position."""

    def __init__(self, link: Link, stream: str) -> None:
        self._link = link
        self._stream = stream
        self._after: str | bytes = "0-0"
        self._wire: Wire | None = None
        self._reply: asyncio.Future[Reply] | None = None

    async def open(self, after: str) -> None:
        """Connect and begin to read after position *after*. Waits while the server is away. Raises: ServerError."""
        self._wire = await self._link.store.dedicated(self._stream)
        self._after = after
        self._ask()

    async def next(self, others: Sequence[asyncio.Future[Any]], timeout_s: float | None) -> Sequence[Record]:
        """Return the next records; none when the time is over, or one of *others* is done first.

        Raises: ServerError; the intake is of no use then.
        """
        if self._reply is None:
            raise Unavailable("the intake is closed")
        reply = self._reply
        await asyncio.wait([reply, *others], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            return ()
        streams = reply.result()
        records: Sequence[Record] = streams[0][1] if streams else ()
        if records:
            self._after = records[-1][0]
        self._ask()
        await asyncio.sleep(0)  # the question leaves before handlers keep the loop busy
        return records

    async def close(self) -> None:
        """Drop the connection. Idempotent."""
        wire, self._wire = self._wire, None
        reply, self._reply = self._reply, None
        if wire is not None:
            await wire.close()
        if reply is not None and reply.done() and not reply.cancelled():
            reply.exception()  # nobody will ask for it any more

    def _ask(self) -> None:
        if self._wire is not None:
            self._reply = self._wire.send(
                *("XREAD", "COUNT", RECORDS_A_READ, "BLOCK", BLOCK_MS, "STREAMS", self._stream, self._after),
                timeout_s=DEADLINE_S,
            )
