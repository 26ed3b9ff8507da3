"""What any suite may ask for: a real server, a deployment of its own on it, and a network that fails on command.

A suite with needs of its own overrides a fixture in its folder.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import cache as once
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from cachebus import Cache, CacheSettings, Client
from cachebus.redis.cluster import Cluster
from cachebus.redis.server import Node, Server
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer

if TYPE_CHECKING:
    from playwright.async_api import Browser

ARCHITECTURE = Path(__file__).parents[1] / "ARCHITECTURE.md"
ROW = re.compile(r"^\| (?P<names>`.*?) \|[^|]*\| (?P<ttl>[^|]*) \|", re.MULTILINE)
PATIENCE_S = 20.0
"""Only ever waited out by a test that fails."""
Connect = Callable[..., Awaitable[Cache]]
"""`await connect()` is a connected cache; each is like another process of the same deployment."""


def pytest_configure() -> None:
    """Have programs that tests start hear Ctrl-C, also where the run itself was started in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for kind, method in ((Node, "call"), (Cluster, "call"), (Server, "run")):
        setattr(kind, method, _patient(getattr(kind, method)))


def _patient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let tests wait for what they ask a server: a busy machine may keep it for longer than reads have (250 ms).

    What the library asks keeps its deadlines.
    """

    @wraps(call)
    def asked(*command: Any, **options: Any) -> Any:
        if sys._getframe(1).f_globals["__name__"].startswith("tests."):
            options.setdefault("timeout_s", PATIENCE_S)
        return call(*command, **options)

    return asked


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """A Valkey that all tests of this test process share."""
    with PrivateServer.start("appendonly no") as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """A Valkey of this test alone, to kill, pause, restart and fill; it keeps an append-only file."""
    with PrivateServer.start() as running:
        yield running


@pytest.fixture
def namespace(server: PrivateServer) -> Iterator[str]:
    """A namespace nobody else uses. What is left in it without a TTL must be a name that ARCHITECTURE.md lists."""
    name = f"t{secrets.token_hex(4)}"
    yield name
    left = [key.decode() for key in server.ask("KEYS", f"*{name}*") if server.ask("PTTL", key) == -1]
    assert [
        key for key in left if not any(kept.fullmatch(key.replace(name, "ns")) for kept in kept_without_ttl())
    ] == []


@once
def kept_without_ttl() -> list[re.Pattern[str]]:
    """Return patterns of the names that ARCHITECTURE.md lets live for ever."""
    rows = [row for row in ROW.finditer(ARCHITECTURE.read_text()) if row["ttl"].startswith("none")]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row["names"])]
    assert "{ns}:ledger:2" in names
    return [re.compile(re.sub(r"<\w+>|…", ".*", re.escape(name))) for name in names]


@pytest.fixture
async def connect(server: PrivateServer, namespace: str) -> AsyncIterator[Connect]:
    """Call it for a connected cache of this test's deployment; settings may be given."""
    async with AsyncExitStack() as stack:

        async def connected(**settings: object) -> Cache:
            given = {"url": server.url, "namespace": namespace, **settings}
            return await stack.enter_async_context(Cache(settings=CacheSettings(**given)))  # type: ignore[arg-type] # checked by CacheSettings' own users

        yield connected


@pytest.fixture
async def cache(connect: Connect) -> Cache:
    """One connected cache."""
    return await connect()


@pytest.fixture
async def client(server: PrivateServer, namespace: str) -> AsyncIterator[Client]:
    """A connected client, without a cache."""
    async with Client(server.url, namespace=namespace) as connected:
        yield connected


@pytest.fixture
async def proxy(server: PrivateServer) -> AsyncIterator[FaultProxy]:
    """The same server, behind a network that can fail."""
    async with FaultProxy(server.port) as between:
        yield between


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chrome() -> AsyncIterator[Browser]:
    """One Chromium for all tests that look at pages, and one event loop for them."""
    from tests.support.browsing import chromium  # noqa: PLC0415 - most tests need no browser

    async with chromium() as running:
        yield running


@pytest.fixture
def until() -> Callable[..., Any]:
    """Return a function that waits for a predicate to hold, generously."""

    async def wait(fact: Callable[[], Any], what: str = "", deadline_s: float = 20.0) -> Any:
        end = asyncio.get_running_loop().time() + deadline_s
        while True:
            found = fact()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            assert asyncio.get_running_loop().time() < end, what or "it did not happen in time"
            await asyncio.sleep(0.005)

    return wait
