"""A cluster whose slots are not where this process believes: nothing is lost, nobody notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cachebus import Cache, CacheSettings
from cachebus.redis.cluster import Cluster
from cachebus.redis.keyspace import key_slot
from cachebus.testing.server import PrivateCluster


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
