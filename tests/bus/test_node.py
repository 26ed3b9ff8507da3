"""The Node programs of the pages, run as they stand, with the clients from the npm registry."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cachebus import Client
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.testing.server import PrivateServer
from tests.support.lacking import program
from tests.support.node import installed
from tests.support.serving import running

ROOT = Path(__file__).parents[2]
CLIENTS = ("redis@5.8.2", "ioredis@5.9.3")
PAGES = ("howto/publish-from-another-app.md", "reference/events-contract.md")
BLOCK = re.compile(r"^```js\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Trade(msgspec.Struct):
    user_id: int
    action: str


@on("trade:updates", Trade)
def tell(event: Trade) -> Effects:
    """Broadcast it."""
    yield Broadcast(f"user:{event.user_id}", f"trade.{event.action}", {"user_id": event.user_id})


@pytest.mark.parametrize("page", PAGES)
async def test_node_publishes_both_ways_and_hears_the_feed(
    own_server: PrivateServer, tmp_path: Path, until: Callable[..., Any], page: str
) -> None:
    """An XADD and a PUBLISH are two events; their broadcasts reach a reader that knows only the contract."""
    node, folder = program("node"), await asyncio.to_thread(installed, *CLIENTS)
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    for name, block in zip(("publish.mjs", "follow.mjs"), blocks, strict=True):
        (tmp_path / name).write_text(block)
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": own_server.url}
    async with Client(own_server.url) as client:
        bridge = Bridge(client, [tell])
        async with running(Consumer(client, [tell]), bridge):
            await until(lambda: bridge.listening)
            follower = await asyncio.create_subprocess_exec(
                *(node, str(tmp_path / "follow.mjs"), "0-0"), env=environment, stdout=asyncio.subprocess.PIPE
            )
            try:
                publisher = await asyncio.create_subprocess_exec(node, str(tmp_path / "publish.mjs"), env=environment)
                assert await asyncio.wait_for(publisher.wait(), 30) == 0
                assert follower.stdout is not None
                heard = [await asyncio.wait_for(follower.stdout.readline(), 30) for _ in range(2)]
            finally:
                follower.kill()
                await follower.wait()
    assert heard == [b'user:123 trade.new_trade {"user_id":123}\n'] * 2
