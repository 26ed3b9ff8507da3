"""Clients that know nothing of us: `ws` on Node, and curl."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cachebus import Link
from tests.gateway.site import COOKIE, Site
from tests.waiting import until

NODE = Path(__file__).parents[2] / ".data" / "node"
SCRIPT = """
const socket = new (require("ws"))(process.argv[1], { headers: { cookie: process.argv[2] } });
socket.on("open", () => socket.send(JSON.stringify({ op: "hello", topics: ["user:42"] })));
socket.on("message", (text) => console.log(text.toString()));
socket.on("close", (code) => { console.log(JSON.stringify({ code })); });
"""


def program(name: str) -> str:
    """Return where a program is; skip where there is none, unless CI is to have it."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has no {name}: .ci/programs installs it")
        pytest.skip(f"no {name} on this machine: make programs")
    return found


@pytest.fixture
async def site(link: Link) -> AsyncIterator[Site]:
    """A gateway of this test's deployment."""
    async with Site(link).running() as running:
        yield running


async def ws_package() -> Path:
    """Return a folder in which Node finds `ws`; install it there once."""
    if not (NODE / "node_modules" / "ws").exists():
        NODE.mkdir(parents=True, exist_ok=True)
        install = (program("npm"), "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "ws")
        npm = await asyncio.create_subprocess_exec(
            *install, cwd=NODE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await npm.communicate()
        if npm.returncode != 0:
            if os.environ.get("CI") == "true":
                pytest.fail(f"npm could not install ws: {said.decode()}")
            pytest.skip("npm could not install ws: no network?")
    return NODE


async def test_ws_of_node(site: Site) -> None:
    """Node's `ws` gets welcome and message, and the close code of a gateway that stops."""
    node, folder = program("node"), await ws_package()
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
