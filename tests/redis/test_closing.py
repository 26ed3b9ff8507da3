"""`close()` returns, whatever the connection was doing; a cancellation is lost nowhere between us and the driver."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus import Client
from cachebus.redis.address import Address
from cachebus.testing.server import PrivateServer
from cachebus.waiting import end
from tests.support.waiting import until
from tests.support.ways_in import WAYS, url_for

CLOSES = {"password": 400, "db 1": 400, "tls": 100, "password, db 1, tls": 100}
"""A thousand; a handshake of TLS costs this process many times what the others do."""
ENDS_S = 20.0
"""Only ever waited out by a close that hangs."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each way into the server."""
    return str(request.param)


@pytest.fixture
def url(way: str, server: PrivateServer, tmp_path: Path) -> Iterator[str]:
    """Where that is."""
    with url_for(way, server, tmp_path) as found:
        yield found


async def ends(task: asyncio.Task[None]) -> bool:
    """Return whether a task ends by itself. One that does not is left: to cancel it is what does not work."""
    done, _ = await asyncio.wait([task], timeout=ENDS_S)
    return bool(done)


async def test_a_close_at_any_moment_of_a_connect_returns(
    url: str, way: str, server: PrivateServer, namespace: str
) -> None:
    """And so does the start that it interrupts; no connection is left on the server."""
    loop = asyncio.get_running_loop()
    before = len(server.ask("CLIENT", "LIST").splitlines())
    async with Client(url, namespace=namespace):
        began = loop.time()
        async with Client(url, namespace=namespace):
            whole_s = loop.time() - began
    for _ in range(CLOSES[way]):
        client = Client(url, namespace=namespace)
        starting = asyncio.create_task(client.start())
        await asyncio.sleep(random.uniform(0, 1.2 * whole_s))  # noqa: S311 - a moment, not a secret
        closing = asyncio.create_task(client.close())
        assert await ends(closing)
        assert await ends(starting)
    await until(lambda: len(server.ask("CLIENT", "LIST").splitlines()) <= before, "every connection was closed")


async def test_a_connect_that_is_cancelled_at_any_moment_ends(url: str, way: str, server: PrivateServer) -> None:
    """With CancelledError, also where the socket is open by then, which is closed."""
    address, loop = Address(url), asyncio.get_running_loop()
    before = len(server.ask("CLIENT", "LIST").splitlines())
    whole_s = ENDS_S
    for _ in range(5):  # the quickest: one that the machine held up would have all cancellations come too late
        began = loop.time()
        await (await address.connect()).close()
        whole_s = min(whole_s, loop.time() - began)
    cancelled = 0
    for _ in range(CLOSES[way] // 4):
        connecting = asyncio.create_task(address.connect())
        await asyncio.sleep(random.uniform(0, whole_s))  # noqa: S311 - the same
        connecting.cancel()
        done, _ = await asyncio.wait([connecting], timeout=ENDS_S)
        assert done
        if connecting.cancelled():
            cancelled += 1
        else:
            await connecting.result().close()
    assert cancelled > 0
    await until(lambda: len(server.ask("CLIENT", "LIST").splitlines()) <= before, "every connection was closed")


async def test_what_does_not_end_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    """A task that swallows its cancellation costs a close its patience, not more, and a warning says which it was."""
    over = asyncio.Event()

    async def stubborn() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn(), name="cachebus stubborn")
    await asyncio.sleep(0)
    await end([task], within_s=0.01)
    assert [record.getMessage() for record in caplog.records] == [
        "close: did not end within 0.01 s and was left behind: cachebus stubborn"
    ]
    over.set()
    await task
