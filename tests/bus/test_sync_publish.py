"""Publishing from code that has no event loop."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachebus import Cache, CacheSettings, sync
from cachebus.errors import PublishRefused, StreamFull
from cachebus.testing.server import PrivateServer

_numbers = itertools.count()


@pytest.fixture
def namespace() -> str:
    """Return a namespace nobody has used."""
    return f"sync{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def bus(server: PrivateServer, namespace: str) -> Iterator[sync.Bus]:
    """Return a bus over a cache of its own."""
    cache = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    yield sync.Bus(cache, max_events=100)
    cache.close()


def stream(server: PrivateServer, namespace: str) -> list[bytes]:
    """Return the payloads in the stream."""
    return [fields[3] for _, fields in server.ask("XRANGE", f"{{{namespace}}}:events:0", "-", "+")]


def test_many_threads_publish_each_event_once(server: PrivateServer, namespace: str, bus: sync.Bus) -> None:
    """Eight threads, 40 events, each with an id, each published twice: 40 events."""
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: bus.publish("numbers", {"n": n % 40}, id=str(n % 40)), range(80)))
    assert len(ids) == 80
    assert sorted(stream(server, namespace)) == sorted(b'{"n":%d}' % n for n in range(40))


def test_a_refusal_is_raised_in_the_callers_thread(server: PrivateServer, namespace: str, bus: sync.Bus) -> None:
    """As from the asynchronous bus, options included."""
    with pytest.raises(PublishRefused, match="channel"):
        bus.publish("ws:user:7", {})
    for n in range(100):
        bus.publish("numbers", n)
    with pytest.raises(StreamFull, match="100 events wait"):
        bus.publish("numbers", 100)


def test_a_forked_child_publishes_on_connections_of_its_own(
    server: PrivateServer, namespace: str, bus: sync.Bus
) -> None:
    """As under gunicorn or Celery: parent and child both publish."""
    bus.publish("numbers", 1)
    child = os.fork()
    if not child:
        try:
            bus.publish("numbers", 2)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must never return into pytest
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    bus.publish("numbers", 3)
    assert stream(server, namespace) == [b"1", b"2", b"3"]
