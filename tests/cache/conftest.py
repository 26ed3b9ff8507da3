"""A cache wherever it may work: what holds with a server holds without one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cachebus import Cache
from tests.conftest import Connect


@pytest.fixture(params=["server", "memory"])
async def somewhere(request: pytest.FixtureRequest, connect: Connect) -> AsyncIterator[Cache]:
    """A cache with a server, and one of this process alone."""
    if request.param == "server":
        yield await connect()
    else:
        async with Cache.memory() as cache:
            yield cache
