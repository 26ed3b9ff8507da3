"""A real server for the bus's tests: one for all of them that leave it alone, one of its own for who breaks it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from cachebus.link import Link
from cachebus.private_server import PrivateServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """Return a server that this test process shares."""
    with PrivateServer.start() as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """Return a server of this test's own, to be killed, paused and emptied."""
    with PrivateServer.start() as running:
        yield running


@pytest.fixture
async def link(server: PrivateServer) -> AsyncIterator[Link]:
    """Return a connected link in a namespace nobody has used."""
    async with Link(server.url, namespace=f"t{os.getpid()}-{next(_numbers)}") as connected:
        yield connected


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
