"""One address that stands for many shards, and an address that stands for less than its URL says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from cachebus import Cache, CacheSettings, Client
from cachebus.errors import AccessDenied, CommandRefused, ServerTimeout
from cachebus.redis.refusals import Refusals
from cachebus.testing.server import PrivateCluster, PrivateServer


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """Three nodes."""
    with PrivateCluster.start() as nodes:
        yield nodes


async def test_a_plain_server_takes_all_keys_together(client: Client) -> None:
    """Nothing is grouped where nothing need be."""
    assert not client.store.slots
    assert client.store.group("a") == client.store.group("b")


async def test_slots_behind_one_endpoint_are_recognised_when_connecting(namespace: str) -> None:
    """From the first command on, keys are grouped by slot; all of them travel on the one connection."""
    with PrivateCluster.start(size=1) as alone:
        async with Client(alone.nodes[0].url, namespace=namespace) as client:
            assert client.store.slots
            assert client.store.one_connection
            assert client.store.group("a") != client.store.group("b")
            assert client.store.group("{a}1") == client.store.group("{a}2")


async def test_a_user_who_may_run_no_script_is_no_reason_to_group(own_server: PrivateServer, namespace: str) -> None:
    """Another refusal says nothing of slots, and costs no connection here."""
    own_server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-eval")
    async with Client(own_server.url.replace("://", "://app:secret@"), namespace=namespace) as client:
        assert (client.store.up, client.store.slots) == (True, False)


async def test_one_node_of_a_cluster_says_how_to_write_the_url(cluster: PrivateCluster, namespace: str) -> None:
    """A redirection where the URL speaks of one server is a wrong URL: the error names the right one."""
    for node in cluster.nodes:
        async with Client(node.url, namespace=namespace) as client:
            asked = [client.store.call("GET", str(number)) for number in range(20)]
            replies = await asyncio.gather(*asked, return_exceptions=True)
            refused = [str(reply) for reply in replies if isinstance(reply, CommandRefused)]
            assert refused
            for message in refused:
                assert re.search(r"one node of a cluster .*write redis\+cluster://127.0.0.1:\d+", message)


def test_refused_reads_are_counted_and_logged_once_a_change(caplog: pytest.LogCaptureFixture) -> None:
    """Begin, another reason, end: three lines, however many reads there were. An outage is not among them."""
    refusals = Refusals()
    for _ in range(3):
        refusals.note(CommandRefused("CROSSSLOT Keys in request don't hash to the same slot"))
    refusals.note(ServerTimeout("the server did not answer in time"))
    assert refusals.reason.startswith("CROSSSLOT")
    refusals.note(AccessDenied("NOPERM no permissions to run 'evalsha'"))
    refusals.clear()
    refusals.clear()
    assert (refusals.count, refusals.reason) == (4, "")
    assert [record.getMessage() for record in caplog.records] == [
        "redis refuses reads, everything is loaded: CROSSSLOT Keys in request don't hash to the same slot",
        "redis refuses reads, everything is loaded: NOPERM no permissions to run 'evalsha'",
        "redis serves reads again",
    ]


async def test_a_cache_whose_reads_are_refused_says_so(
    own_server: PrivateServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers from the loader, and shows why until reads are served."""
    own_server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
    url = own_server.url.replace("://", "://app:secret@")
    async with Cache(settings=CacheSettings(url=url, namespace=namespace)) as cache:

        @cache.view("value:{n}", ttl="1m")
        async def view(n: int) -> int:
            return n

        assert await view(1) == 1
        own_server.ask("ACL", "SETUSER", "app", "resetkeys", f"~{{{namespace}}}*")
        assert [await view(n) for n in (2, 3, 4)] == [2, 3, 4]
        assert cache.stats().refused.startswith("NOPERM")
        own_server.ask("ACL", "SETUSER", "app", "~*")
        assert await view(5) == 5
        assert cache.stats().refused == ""
    said = [record.getMessage() for record in caplog.records if "reads" in record.getMessage()]
    assert [line.partition(":")[0] for line in said] == [
        "redis refuses reads, everything is loaded",
        "redis serves reads again",
    ]


async def test_with_slots_a_glance_takes_anything_for_a_miss_and_a_refusal_for_one(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads are GETs there, not one MGET: a list under an entry is no entry, and a denied GET is told as such."""
    with PrivateCluster.start(size=1) as alone:
        alone.nodes[0].ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
        url = alone.nodes[0].url.replace("://", "://app:secret@")
        async with Cache(settings=CacheSettings(url=url, namespace=namespace, max_memory_entries=0)) as cache:
            for key in ("a", "b", "c"):
                await cache.set(key, 1, "1m")
            entry = cache._plain_call("a").entry
            alone.nodes[0].ask("DEL", entry)
            alone.nodes[0].ask("RPUSH", entry, "x")
            assert await cache.get_many(["a", "b", "c"]) == {"b": 1, "c": 1}
            assert await cache.get("a") is None
            assert cache.stats().refused == ""
            alone.nodes[0].ask("ACL", "SETUSER", "app", "-get")
            assert await cache.get_many(["b", "c"]) == {}
            assert cache.stats().refused.startswith("NOPERM")
            alone.nodes[0].ask("ACL", "SETUSER", "app", "+get")
            assert await cache.get_many(["b", "c"]) == {"b": 1, "c": 1}
            assert cache.stats().refused == ""
