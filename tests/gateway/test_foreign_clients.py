"""Clients that know nothing of us: `ws` on Node, and curl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from cachebus import Client
from tests.support.gateway_site import COOKIE, Site
from tests.support.lacking import program
from tests.support.node import installed
from tests.support.waiting import until

SCRIPT = """
const socket = new (require("ws"))(process.argv[1], { headers: { cookie: process.argv[2] } });
socket.on("open", () => socket.send(JSON.stringify({ op: "hello", topics: ["user:42"] })));
socket.on("message", (text) => console.log(text.toString()));
socket.on("close", (code) => { console.log(JSON.stringify({ code })); });
"""


@pytest.fixture
async def site(client: Client) -> AsyncIterator[Site]:
    """A gateway of this test's deployment."""
    async with Site(client).running() as running:
        yield running


async def test_ws_of_node(site: Site) -> None:
    """Node's `ws` gets welcome and message, and the close code of a gateway that stops."""
    node, folder = program("node"), await asyncio.to_thread(installed, "ws")
    cookie = f"{COOKIE}={await site.cookie()}"
    url = f"ws://127.0.0.1:{site.port}/ws"
    client = await asyncio.create_subprocess_exec(
        *(node, "-e", SCRIPT, url, cookie), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    assert client.stdout is not None
    async with asyncio.timeout(20):
        assert json.loads(await client.stdout.readline())["type"] == "gateway.welcome"
        (identity,) = await site.broadcast("user:42")
        assert json.loads(await client.stdout.readline())["id"] == identity
        await site.gateway.drain(0.0)
        assert json.loads(await client.stdout.readline()) == {"code": 1012}
        assert await client.wait() == 0


async def test_curl_on_events(site: Site) -> None:
    """`curl -N` shows events as they come, and goes on after the id it is given."""
    curl, cookie = program("curl"), f"Cookie: {COOKIE}={await site.cookie()}"
    ids = await site.broadcast("user:42", 3)
    await until(lambda: site.gateway.hub.window.newest == ids[-1], "the gateway hearing it")
    client = await asyncio.create_subprocess_exec(
        *(curl, "-sN", "-H", cookie, "-H", f"Last-Event-ID: {ids[0]}", f"{site.url}/events?topics=user:42"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdout is not None
    seen = []
    async with asyncio.timeout(20):
        while len(seen) < 3:
            line = (await client.stdout.readline()).decode().strip()
            if line.startswith("id: ") and line[4:] != ids[0]:
                seen.append(line[4:])
            if len(seen) == 2 and len(ids) == 3:
                ids += await site.broadcast("user:42")
    client.terminate()
    await client.wait()
    assert seen == ids[1:]
