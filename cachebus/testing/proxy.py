"""A network that fails on command, between an application and its server."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

CHUNK = 64 * 1024


class FaultProxy:
    """A loopback proxy in front of a server, which can delay, swallow, cut, refuse, and forget connections.

    `async with FaultProxy(server.port) as proxy:` then connect to `proxy.url`.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._accepting: set[asyncio.Task[object]] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.delay_s = 0.0
        """Added to everything the server says."""
        self.drop_replies = False
        """What the server says is swallowed; what it is told still reaches it."""
        self.refusing = False
        """New connections are closed at once."""
        self.connections = 0

    @property
    def url(self) -> str:
        """Where to connect."""
        assert self._server is not None, "enter the proxy first"  # noqa: S101 - a mistake of the test
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def black_hole(self) -> None:
        """Pass nothing on, in either direction, and close nothing: a network that is gone without a word."""
        self._open.clear()

    def half_open(self) -> None:
        """Go silent for ever on every present connection, close none, and serve new ones as always.

        What a NAT gateway or a load balancer does when it forgets who was connected.
        """
        self._dead |= self._writers

    def resume(self) -> None:
        """Pass on what waits, and everything from now on."""
        self._open.set()
        self.delay_s, self.drop_replies, self.refusing = 0.0, False, False

    def move(self, port: int) -> None:
        """Lead new connections to another server; present ones stay where they are."""
        self._target = (self._target[0], port)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._server is not None  # noqa: S101 - entered
        self._server.close()
        for accepting in tuple(self._accepting):
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self.cut()
        for pipe in tuple(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            back.transport.abort()
            return
        accepting = asyncio.current_task()
        assert accepting is not None  # noqa: S101 - asyncio makes one for each connection
        self._accepting.add(accepting)
        try:
            server, forth = await asyncio.open_connection(*self._target)
        except (OSError, asyncio.CancelledError):
            back.transport.abort()
            return
        finally:
            self._accepting.discard(accepting)
        for reader, writer, replies in ((client, forth, False), (server, back, True)):
            self._writers.add(writer)
            pipe = asyncio.ensure_future(self._pipe(reader, writer, replies=replies))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._open.wait()
                if writer in self._dead:
                    continue
                if replies and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if not (replies and self.drop_replies):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            self._dead.discard(writer)
            writer.transport.abort()
