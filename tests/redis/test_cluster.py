"""A cluster whose slots are not where this process believes: nothing is lost, nobody notices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from cachebus import Cache, CacheSettings
from cachebus.errors import Unavailable
from cachebus.redis.client import Client
from cachebus.redis.cluster import Cluster
from cachebus.redis.keyspace import key_slot
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.waiting import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """Three nodes."""
    with PrivateCluster.start() as nodes:
        yield nodes


async def test_reads_follow_slots_that_have_moved(cluster: PrivateCluster, namespace: str) -> None:
    """Values in one write to each node, loads under leases, and commands one by one: with a map that is all wrong."""
    loads = 0

    async def load(n: int) -> int:
        nonlocal loads
        loads += 1
        return n

    settings = CacheSettings(url=cluster.url, namespace=namespace, max_memory_entries=0)
    async with Cache(settings=settings) as cache:
        view = cache.view("moved:{n}", ttl="1m")(load)
        server = cache.client.entries
        assert isinstance(server, Cluster)
        wanted = {f"k:{n}": n for n in range(30)}
        for key, value in wanted.items():
            await cache.set(key, value, "1m")
        assert [await view(n) for n in range(30)] == list(range(30))
        believed = server._owners
        owners = list(believed.values())
        wrong = dict(zip(believed, owners[6000:] + owners[:6000], strict=True))
        # Where the ledger's slot moves, its connection begins anew, and what was under way fails.
        home = key_slot(cache.names.ledger)
        wrong[home] = believed[home]
        for _ in range(3):
            server._owners = dict(wrong)
            assert await cache.get_many(wanted) == wanted
            assert server._owners == believed, "the map was read again"
            server._owners = dict(wrong)
            assert [await view(n) for n in range(30)] == list(range(30))
    assert loads == 30


async def test_who_listens_listens_at_the_node_that_owns_the_slot(cluster: PrivateCluster, namespace: str) -> None:
    """Any node takes a subscription; one that was replaced lately hears what is published with holes."""
    async with Client(cluster.url, namespace=namespace) as client:
        server, key = client.store, client.names.wake
        assert isinstance(server, Cluster)
        believed = server._owners
        owner = believed[key_slot(key)]
        server._owners = believed | {key_slot(key): next(place for place in believed.values() if place != owner)}
        connection = await server.dedicated(key)
        try:
            assert (await connection.call("CLUSTER", "MYID")) == cluster_id(cluster, owner[1])
        finally:
            await connection.close()


def cluster_id(cluster: PrivateCluster, port: int) -> bytes:
    """Return the name of a node."""
    (node,) = [node for node in cluster.nodes if node.port == port]
    return bytes(node.ask("CLUSTER", "MYID"))


async def test_a_server_that_is_no_cluster_is_said_once(
    server: PrivateServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As any outage, and with what to write."""
    settings = CacheSettings(url=f"redis+cluster://127.0.0.1:{server.port}", namespace=namespace)
    async with Cache(settings=settings) as cache:
        for _ in range(2):
            await cache.client.store._look()  # type: ignore[attr-defined] # it is a cluster's
        assert await cache.get_or_load("any", loaded) == 1
    said = [record.getMessage() for record in caplog.records if "redis unavailable" in record.getMessage()]
    assert len(said) == 1
    assert "this server is no cluster: write redis:// in place of redis+cluster://" in said[0]


async def test_a_cluster_that_is_away_and_comes_is_said_once(
    namespace: str, cluster: PrivateCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody answers at first; once somebody does, that is said too."""
    settings = CacheSettings(url=cluster.url, namespace=namespace)
    with monkeypatch.context() as away:
        away.setattr(Cluster, "_slots_of", refusing)
        cache = Cache(settings=settings)
        assert await cache.get_or_load("any", loaded) == 1
    await until(lambda: cache.stats().up, "the cluster")
    await cache.close()
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("redis ")]
    assert [line.partition(":")[0] for line in said] == ["redis unavailable", "redis available again"]


async def loaded() -> int:
    """Load what is wanted."""
    return 1


async def refusing(*_: object) -> NoReturn:
    """Answer as nobody does."""
    raise Unavailable("Connection refused")
