"""Pub/sub from threads without an event loop: the same channels, handlers in threads of their own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError, sync
from cachebus.pubsub.pubsub import Gap, Message
from cachebus.testing.server import PrivateServer
from tests.support.worker_program import until

DEADLINE_S = 20


@pytest.fixture
def facade(server: PrivateServer, namespace: str) -> Iterator[sync.Cache]:
    """A cache of a program without a loop."""
    facade = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    yield facade
    facade.close()


def test_a_handler_runs_in_its_own_thread_until_unsubscribed(facade: sync.Cache, namespace: str) -> None:
    """What it raises ends nothing."""
    pubsub = sync.PubSub(facade)
    heard: queue.Queue[tuple[object, int]] = queue.Queue()

    def handler(message: Message) -> None:
        heard.put((message.data, threading.get_ident()))
        raise LookupError(message.data)

    listener = pubsub.subscribe(namespace, handler)
    assert [pubsub.publish(namespace, {"n": n}) for n in range(2)] == [1, 1]
    (first, thread), (second, same) = heard.get(timeout=DEADLINE_S), heard.get(timeout=DEADLINE_S)
    assert (first, second) == ({"n": 0}, {"n": 1})
    assert thread == same != threading.get_ident()
    listener.unsubscribe()
    listener.unsubscribe()
    assert any(pubsub.publish(namespace, "late") == 0 for _ in range(10_000))  # it leaves on another connection


def test_messages_are_iterated_with_for(facade: sync.Cache, namespace: str) -> None:
    """Iterating ends when another thread unsubscribes; what was too much shows as a gap."""
    pubsub = sync.PubSub(facade)
    with pubsub.listen(namespace, limit=2) as listener:
        for number in range(3):
            pubsub.publish(namespace, number)
        until(lambda: listener.dropped == 1, "the one too many")
        ending = threading.Timer(0, lambda: pubsub.publish(namespace, "last"))
        got: list[object] = []
        for item in listener:
            got.append(item if isinstance(item, Gap) else item.data)
            if got[-1] == 2:
                ending.start()
            if got[-1] == "last":
                listener.unsubscribe()
        ending.join()
    assert got == [Gap("overflow", 1), 1, 2, "last"]
    assert (listener.dropped, listener.gaps) == (1, 0)


def test_closing_the_cache_ends_what_is_subscribed(
    facade: sync.Cache, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread of a handler ends, iterating ends, and leaving the block starts nothing again; all without a word."""
    pubsub, got = sync.PubSub(facade), queue.Queue[list[object]]()
    pubsub.subscribe(namespace, lambda _message: None)
    (handling,) = [each for each in threading.enumerate() if each.name == f"cachebus subscriber of {namespace}"]
    with pubsub.listen(namespace) as listener:
        threading.Thread(target=lambda: got.put(list(listener))).start()
        pubsub.publish(namespace, 1)
        facade.close()
        assert [item.data for item in got.get(timeout=DEADLINE_S) if isinstance(item, Message)] in ([1], [])
        handling.join(DEADLINE_S)
        assert not handling.is_alive()
        assert list(listener) == []
    assert not facade.portal.started
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_async_handler_is_refused(facade: sync.Cache, namespace: str) -> None:
    """No thread would await it."""

    async def heard(_message: object) -> None: ...

    with pytest.raises(ConfigurationError, match="is no plain function"):
        sync.PubSub(facade).subscribe(f"{namespace}:x", heard)
