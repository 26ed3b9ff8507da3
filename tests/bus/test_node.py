"""The Node programs of the pages, run as they stand, with the clients from the npm registry."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from serving import running

from cachebus import Link
from cachebus.bridge import Bridge
from cachebus.consumer import Consumer
from cachebus.effects import Broadcast, Effects
from cachebus.handlers import on
from cachebus.private_server import PrivateServer

ROOT = Path(__file__).parents[2]
CLIENTS = ("redis@5.8.2", "ioredis@5.9.3")
FOLDER = ROOT / ".data" / "node-client"
PAGES = ("howto/publish-from-another-app.md", "reference/events-contract.md")
BLOCK = re.compile(r"^```js\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Trade(msgspec.Struct):
    user_id: int
    action: str


@on("trade:updates", Trade)
def tell(event: Trade) -> Effects:
    """Broadcast it."""
    yield Broadcast(f"user:{event.user_id}", f"trade.{event.action}", {"user_id": event.user_id})


def program(name: str) -> str:
    """Return where a program is; skip where there is none, unless CI is to have it."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has no {name}: .ci/programs installs it")
        pytest.skip(f"no {name} on this machine: make programs")
    return found


async def installed() -> Path:
    """Return a folder in which Node finds the clients; install them there once, one process at a time."""
    npm, mark = program("npm"), FOLDER / "+".join(CLIENTS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not mark.exists():
            command = (npm, "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", *CLIENTS)
            done = await asyncio.create_subprocess_exec(*command, cwd=FOLDER, stdout=asyncio.subprocess.PIPE)
            said, _ = await done.communicate()
            assert done.returncode == 0, said.decode()
            mark.touch()
    return FOLDER


@pytest.mark.parametrize("page", PAGES)
async def test_node_publishes_both_ways_and_hears_the_feed(
    own_server: PrivateServer, tmp_path: Path, until: Callable[..., Any], page: str
) -> None:
    """An XADD and a PUBLISH are two events; their broadcasts reach a reader that knows only the contract."""
    node, folder = program("node"), await installed()
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    for name, block in zip(("publish.mjs", "follow.mjs"), blocks, strict=True):
        (tmp_path / name).write_text(block)
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": own_server.url}
    async with Link(own_server.url) as link:
        bridge = Bridge(link, [tell])
        async with running(Consumer(link, [tell]), bridge):
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
