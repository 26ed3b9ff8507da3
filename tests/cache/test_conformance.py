"""The conformance suite, for every kind of server there is, and for none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cachebus import Cache, CacheSettings
from cachebus.testing import CacheConformance
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.lacking import program
from tests.support.other_servers import processes


@pytest.fixture(scope="module")
def valkey(server: PrivateServer) -> str:
    """The server that the library carries."""
    return server.url


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Three nodes."""
    with PrivateCluster.start() as nodes:
        yield nodes.url


@pytest.fixture(scope="module")
def one_endpoint() -> Iterator[str]:
    """One address before all slots, as managed services offer it: no redirections, and CROSSSLOT for keys of two."""
    with PrivateCluster.start(size=1) as cluster:
        yield cluster.nodes[0].url


@pytest.fixture(scope="module")
def fakeredis() -> Iterator[str]:
    """The stand-in where there is no Valkey for the platform."""
    with PrivateServer.start(kind="fakeredis") as server:
        yield server.url


@pytest.fixture(scope="module")
def redis7() -> Iterator[str]:
    """The distribution's."""
    with processes(program("redis-server"), ("--appendonly no",)) as (server,):
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("kind", ["valkey", "cluster", "one_endpoint", "fakeredis", "redis7"])
class TestServers(CacheConformance):
    """Each server serves as any other."""

    @pytest.fixture(autouse=True)
    def _deployment(self, kind: str, namespace: str, request: pytest.FixtureRequest) -> None:
        self.settings = CacheSettings(url=request.getfixturevalue(kind), namespace=namespace)

    def new_cache(self) -> Cache:
        return Cache(settings=self.settings)


class TestMemory(CacheConformance):
    """No server at all."""

    shared = False

    def new_cache(self) -> Cache:
        return Cache.memory()
