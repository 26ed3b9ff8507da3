"""The network that fails on command, by itself."""

from __future__ import annotations

import asyncio

from cachebus.testing.proxy import FaultProxy
from tests.support.waiting import until


async def test_what_it_is_still_opening_is_closed_with_it() -> None:
    """A connection that is on its way to the server when the proxy ends is not left open."""
    ended: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ended.append(await reader.read())
        except ConnectionResetError:
            ended.append(b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        port = int(proxy.url.rsplit(":", 1)[1].removesuffix("/0"))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        while not proxy.connections:  # noqa: ASYNC110 - leave in the very turn in which it began to connect
            await asyncio.sleep(0)
    _, probe = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    probe.close()  # comes after whatever the proxy has opened
    await until(lambda: ended and asyncio.all_tasks() == {asyncio.current_task()}, "nothing is open")
    writer.close()
    server.close()
    assert set(ended) == {b""}
