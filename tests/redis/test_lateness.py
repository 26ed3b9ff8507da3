"""Who is late: this process, which then excuses the server, or the server, which counts only when it lasts."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from cachebus import Client
from cachebus.errors import ServerTimeout
from cachebus.redis import server as servers
from cachebus.redis.address import Address
from cachebus.redis.connection import Connection
from cachebus.redis.server import TIMEOUT_S
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until

SOCKETS = 1_000
WORK_S = 0.003
"""What each of them costs this process when it connects: three seconds together, during which nothing is on time."""


async def test_a_process_that_was_busy_while_it_connected_has_not_waited(server: PrivateServer) -> None:
    """A connect that this process did not get to for longer than its deadline is no outage."""
    connecting = asyncio.create_task(Address(server.url).connect())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(2.5)  # noqa: ASYNC251 - the loop is held up, that is the point
    connection = await connecting
    assert await connection.call("PING") == b"PONG"
    await connection.close()


@pytest.mark.parametrize("patience_s", [0.001, 0.025, 0.1])
async def test_time_in_which_this_process_was_busy_uses_up_no_patience(patience_s: float) -> None:
    """Whether it was busy before the command had left, or while the answer lay in the socket: longer than it waits."""
    near, far = socket.socketpair()
    far.setblocking(False)
    _, stream = await asyncio.open_connection(sock=near)
    connection = Connection(stream)
    for _ in range(3):
        answers = [connection.send("PING", timeout_s=patience_s) for _ in range(2)]
        time.sleep(1.2 * patience_s)  # noqa: ASYNC251 - a handler that computes
        await asyncio.sleep(0)
        assert far.recv(1000).count(b"PING") == 2
        far.send(b"+PONG\r\n+PONG\r\n")
        time.sleep(1.2 * patience_s)  # noqa: ASYNC251 - the same
        assert await asyncio.gather(*answers) == [b"PONG", b"PONG"]
    await connection.close()
    far.close()


async def test_a_storm_of_connections_is_no_outage_of_redis(
    server: PrivateServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand sockets that this process has to greet: every command is answered, and nothing is logged."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        until_s = time.perf_counter() + WORK_S
        while time.perf_counter() < until_s:
            pass
        writer.write(b"hello\n")
        writer.close()

    async with Client(server.url, namespace=namespace) as client:
        gateway = await asyncio.start_server(greet, "127.0.0.1", 0, backlog=SOCKETS)
        port = gateway.sockets[0].getsockname()[1]

        async def visit() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.readline() == b"hello\n"
            writer.close()

        visits = asyncio.gather(*[visit() for _ in range(SOCKETS)])
        answered = 0
        while not visits.done():
            assert await client.store.call("PING", timeout_s=TIMEOUT_S) == b"PONG"
            answered += 1
            await asyncio.sleep(0)
        await visits
        gateway.close()
        assert answered > 1
        assert client.store.connects == 1  # type: ignore[attr-defined] # a Node
    assert [record.getMessage() for record in caplog.records] == []


async def test_impatient_callers_are_no_outage(proxy: FaultProxy, namespace: str) -> None:
    """A limiter waits 25 ms. Many that wait in vain at once get their timeouts, and the connection stays."""
    async with Client(proxy.url, namespace=namespace) as client:
        for _ in range(3):
            proxy.black_hole()
            calls = [client.store.call("PING", timeout_s=0.025) for _ in range(20)]
            replies = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(reply) for reply in replies} == {ServerTimeout}
            proxy.resume()
            assert await client.store.call("PING", timeout_s=5.0) == b"PONG"
        assert client.store.connects == 1  # type: ignore[attr-defined] # a Node


async def test_a_server_that_stays_slow_counts_as_unavailable(proxy: FaultProxy, namespace: str) -> None:
    """Callers then need not each wait for their timeout; once it answers in time, it is used again."""
    async with Client(proxy.url, namespace=namespace) as client:
        proxy.delay_s = 0.4

        async def call() -> bool:
            await asyncio.gather(client.store.call("PING", timeout_s=TIMEOUT_S), return_exceptions=True)
            return not client.store.up

        await until(call, "a slow server is given up")
        proxy.resume()
        await until(lambda: client.store.up, "it is used again")


async def test_an_outage_is_logged_once(
    proxy: FaultProxy, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that comes and goes is one outage: a line when it begins, one when the connection has lasted."""
    monkeypatch.setattr(servers, "STEADY_S", 2.0)
    async with Client(proxy.url, namespace=namespace) as client:
        for lost in range(1, 4):
            proxy.cut()
            await until(lambda lost=lost: client.store.connects > lost and client.store.up, "connected again")  # type: ignore[misc] # a Node
        await until(lambda: len(caplog.records) == 2, "the recovery")
    assert [record.getMessage().rpartition("127.0.0.1")[0] for record in caplog.records] == [
        "redis unavailable: single ",
        "redis available again: single ",
    ]
