"""A gateway that listens on loopback, in this process, and what the tests of it say to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from cachebus import Client
from cachebus.gateway import Gateway, live_app
from cachebus.gateway.server import serve
from cachebus.sessions.store import SessionStore

COOKIE = "sid"


class Site:
    """One gateway, its deployment's sessions, and a hand that broadcasts."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.client = client
        self.sessions = SessionStore(client)
        self.gateway = Gateway(client, sessions=self.sessions, public_topics=["market:*"], cookie=COOKIE, **options)
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self, *, drain_s: float = 0.0) -> AsyncIterator[Site]:
        """Listen on a free port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # a stalled client shows soon
            self.port = listener.getsockname()[1]
            application = live_app(self.gateway)
            server = serve(application, self.gateway, drain_s=drain_s)
            async with self.gateway:
                await self.gateway.begun()
                running = asyncio.create_task(server._serve([listener]))
                try:
                    yield self
                finally:
                    server.should_exit = True
                    await running

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def cookie(self, user_id: int = 42) -> str:
        """Sign a user in."""
        return await self.sessions.create(user_id)

    async def broadcast(self, topic: str, count: int = 1, *, data: object = 1) -> list[str]:
        """Append broadcasts to the feed as commits do; return their ids."""
        return [await append(self.client, topic, data) for _ in range(count)]

    @contextlib.asynccontextmanager
    async def socket(self, *topics: str, user_id: int = 42, **hello: Any) -> AsyncIterator[ClientConnection]:
        """Open a socket of a signed-in user who has said hello."""
        headers = {"Cookie": f"{COOKIE}={await self.cookie(user_id)}"}
        async with connect(f"ws://127.0.0.1:{self.port}/ws", additional_headers=headers) as opened:
            await opened.send(json.dumps({"op": "hello", "topics": topics, **hello}))
            yield opened

    @contextlib.asynccontextmanager
    async def stalled(self, *topics: str) -> AsyncIterator[ClientConnection]:
        """Open a socket that says hello, hears its welcome, and then reads nothing; its end has little room."""
        headers = {"Cookie": f"{COOKIE}={await self.cookie()}"}
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end.connect(("127.0.0.1", self.port))
        async with connect(f"ws://127.0.0.1:{self.port}/ws", sock=end, additional_headers=headers) as opened:
            await opened.send(json.dumps({"op": "hello", "topics": topics}))
            await hear(opened)
            opened.transport.pause_reading()
            yield opened
            opened.transport.abort()


async def hear(opened: ClientConnection, what: str | None = None) -> dict[str, Any]:
    """Return the next message, heartbeats aside; with *what*, the next of that type, others passed over."""
    async with asyncio.timeout(20):
        while True:
            said: dict[str, Any] = json.loads(await opened.recv())
            if said["type"] == what or (what is None and said["type"] != "gateway.heartbeat"):
                return said


async def append(client: Client, topic: str, data: object) -> str:
    """Write one record to the feed, in the form that a commit gives it."""
    newest = await client.store.call("XREVRANGE", client.names.feed, "+", "-", "COUNT", 1)
    before, clock = "", 1_000
    if newest:
        fields = dict(zip(newest[0][1][::2], newest[0][1][1::2], strict=True))
        before = json.loads(fields[b"record"])["id"]
        clock = int(newest[0][0].partition(b"-")[0])
    identity = f"7-{clock + 1}"
    body = {
        "id": identity,
        "ts": 1,
        "fresh_after": str(clock),
        "topic": topic,
        "type": "test.hint",
        "data": data,
    }
    record = json.dumps(body, separators=(",", ":"))
    await client.store.call(
        *("XADD", client.names.feed, f"{clock + 1}-0", "before", before, "topic", topic, "record", record)
    )
    return identity
