"""The one connection of all subscriptions: what it tells, in which order, and what it must not be confused by."""

from __future__ import annotations

import asyncio

import pytest

from cachebus import Client, Unavailable
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


async def test_a_reconnection_is_told_before_its_first_message(own_server: PrivateServer, namespace: str) -> None:
    """Before: `on_reconnect`; after the subscriptions stand: `on_gap`. The connection has another number."""
    async with Client(own_server.url, namespace=namespace) as client:
        told: list[str] = []
        await client.subscriptions.subscribe(
            namespace,
            lambda _, payload: told.append(payload.decode()),
            on_gap=lambda: told.append("stands"),
            on_reconnect=lambda: told.append("anew"),
        )
        first = client.subscriptions.connection
        own_server.kill()
        await until(lambda: client.subscriptions.connection == 0, "the loss is noticed")
        own_server.restart()
        await until(lambda: own_server.ask("PUBLISH", namespace, "message"), "subscribed again")
        await until(lambda: {"stands", "message"} <= set(told), "told")
        assert told.index("anew") == 0
        assert client.subscriptions.connection > first > 0


async def test_a_channel_that_is_not_text_does_no_harm(server: PrivateServer, client: Client, namespace: str) -> None:
    """Anybody may publish on any bytes; who listens to a pattern goes on listening, on the same connection."""
    heard: list[tuple[str, bytes]] = []
    await client.subscriptions.subscribe(
        f"{namespace}:*", lambda channel, payload: heard.append((channel, payload)), pattern=True
    )
    before = client.subscriptions.connection
    server.ask("PUBLISH", f"{namespace}:".encode() + b"\xff", "odd")
    server.ask("PUBLISH", f"{namespace}:b", "even")
    await until(lambda: len(heard) == 2, "both were heard")
    assert [payload for _, payload in heard] == [b"odd", b"even"]
    assert client.subscriptions.connection == before


async def test_an_old_confirmation_is_not_taken_for_a_new_one(
    server: PrivateServer, client: Client, namespace: str
) -> None:
    """Given up before it was confirmed, and wanted again: it is confirmed when the second request is, not the first."""
    await client.subscriptions.subscribe(f"{namespace}:other", lambda *_: None)
    server.pause()
    try:
        impatient = asyncio.create_task(client.subscriptions.subscribe(namespace, lambda *_: None))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        heard: list[bytes] = []
        wanted = asyncio.create_task(
            client.subscriptions.subscribe(namespace, lambda _, payload: heard.append(payload))
        )
        await asyncio.sleep(0)
        pushes: list[bytes] = []
        real, counts = client.subscriptions._pushed, []

        def pushed(push: list[bytes]) -> None:
            real(push)
            pushes.append(push[0])
            counts.append(wanted.done() or client.subscriptions._confirmed[namespace, False].done())

        assert client.subscriptions._current is not None
        client.subscriptions._current.on_push = pushed
    finally:
        server.resume()
    await wanted
    kinds = [kind for kind in pushes if kind != b"pong"]
    assert kinds == [b"subscribe", b"unsubscribe", b"subscribe"]
    assert counts[:2] == [False, False]


async def test_who_was_refused_once_may_come_again(own_server: PrivateServer, namespace: str) -> None:
    """A channel that the user may not hear is refused; once access is granted, the same connection gets it."""
    own_server.ask("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "resetchannels", "&wake")
    async with Client(own_server.url.replace("://", "://app:secret@"), namespace=namespace) as client:
        await client.subscriptions.subscribe("wake", lambda *_: None)
        with pytest.raises(Unavailable):
            await client.subscriptions.subscribe("closed", lambda *_: None)
        before = client.subscriptions.connection
        own_server.ask("ACL", "SETUSER", "app", "&closed")
        heard: list[bytes] = []
        await client.subscriptions.subscribe("closed", lambda _, payload: heard.append(payload))
        own_server.ask("PUBLISH", "closed", "open")
        await until(lambda: heard == [b"open"], "it is heard")
        assert client.subscriptions.connection == before


async def test_nothing_is_confirmed_while_there_is_no_connection(own_server: PrivateServer, namespace: str) -> None:
    """A second subscriber of a channel that comes during an outage waits for the new connection."""
    async with Client(own_server.url, namespace=namespace) as client:
        await client.subscriptions.subscribe(namespace, lambda *_: None)
        own_server.kill()
        await until(lambda: client.subscriptions.connection == 0, "the loss is noticed")
        with pytest.raises(Unavailable):
            await client.subscriptions.subscribe(namespace, lambda *_: None)
