"""`pubsub`: messages reach plain and async handlers, in order, whatever their form, and a bad handler harms nobody."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from typing import Any

import pytest

from cachebus import ConfigurationError
from cachebus.pubsub.pubsub import LIMIT
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until
from tests.support.worker_program import until as left

SOON_S = 20


def test_a_plain_handler_gets_every_message_in_order(caching: Any, server: PrivateServer, namespace: str) -> None:
    """From this library, and from any other program: JSON as data, text as text, anything else as bytes."""
    heard: queue.Queue[Any] = queue.Queue()
    channel = f"{namespace}:trade:updates"
    listening = caching.pubsub.subscribe(channel, heard.put)
    assert caching.pubsub.publish(channel, {"user_id": 123, "action": "new_trade"}) == 1
    server.ask("PUBLISH", channel, "plain words")
    server.ask("PUBLISH", channel, b"\xff\xfe")
    expected = [{"user_id": 123, "action": "new_trade"}, "plain words", b"\xff\xfe"]
    assert [heard.get(timeout=SOON_S) for _ in range(3)] == expected
    listening.unsubscribe()
    listening.unsubscribe()
    left(lambda: caching.pubsub.publish(channel, "nobody") == 0, "nobody listening")


async def test_an_async_handler_runs_in_the_loop_it_was_subscribed_from(caching: Any, namespace: str) -> None:
    """A pattern hears every channel it matches, and no other."""
    heard: list[tuple[Any, object]] = []

    async def handler(message: Any) -> None:
        heard.append((message, asyncio.get_running_loop()))

    listening = caching.pubsub.subscribe(f"{namespace}:trade:*", handler)
    for number, channel in enumerate(("trade:updates", "other:updates", "trade:imports")):
        caching.pubsub.publish(f"{namespace}:{channel}", number)
    await until(lambda: len(heard) == 2, "both messages")
    assert heard == [(0, asyncio.get_running_loop()), (2, asyncio.get_running_loop())]
    listening.unsubscribe()


def test_an_async_handler_without_a_loop_is_refused(caching: Any) -> None:
    """There is nowhere to run it."""

    async def handler(message: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="needs the event loop"):
        caching.pubsub.subscribe("trade:updates", handler)


def test_a_handler_may_fail_and_use_the_cache(caching: Any, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged and the next message comes; calls that block are in order there."""
    channel = f"{namespace}:trade:updates"
    done = threading.Event()

    def handler(message: int) -> None:
        if message == 1:
            raise LookupError("no such trade")
        caching.cache_manager.set("last", message)
        done.set()

    with caplog.at_level(logging.ERROR):
        listening = caching.pubsub.subscribe(channel, handler)
        caching.pubsub.publish(channel, 1)
        caching.pubsub.publish(channel, 2)
        assert done.wait(SOON_S)
    assert caching.cache_manager.get("last") == 2
    assert "no such trade" in caplog.text
    listening.unsubscribe()


def test_a_slow_handler_misses_the_oldest_and_it_is_counted(caching: Any, namespace: str) -> None:
    """Memory is bounded; what is newest arrives."""
    newest = LIMIT + 6
    channel = f"{namespace}:trade:updates"
    begun, go_on, last = threading.Event(), threading.Event(), threading.Event()
    heard: list[int] = []

    def handler(message: int) -> None:
        heard.append(message)
        begun.set()
        go_on.wait(SOON_S)
        if message == newest:
            last.set()

    listening = caching.pubsub.subscribe(channel, handler)
    caching.pubsub.publish(channel, 0)
    assert begun.wait(SOON_S)
    for number in range(1, newest + 1):
        caching.pubsub.publish(channel, number)
    caching.facade.portal.call(until(lambda: listening.dropped == 6, "six dropped"), SOON_S)
    go_on.set()
    assert last.wait(SOON_S)
    assert heard == [0, *range(7, newest + 1)]
    listening.unsubscribe()
