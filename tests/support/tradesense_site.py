"""TradeSense as it is deployed: worker, gateway and dashboard, each a process of its own, and a browser to look."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from cachebus.redis.embedded.loopback import free_port
from cachebus.redis.keyspace import Names
from cachebus.testing.server import PrivateServer
from tests.support.browsing import listened_to, needs_chromium, no_complaints
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
USER = 3
PATIENCE_MS = 30_000
SEED = "import asyncio; from tradesense.seed import seed; asyncio.run(seed(users=4, trades=40))"

in_a_browser = [needs_chromium, pytest.mark.xdist_group("browser"), pytest.mark.asyncio(loop_scope="session")]


class Deployment:
    """Worker, gateway and application, each a process of its own, on a server of their own."""

    def __init__(self, server: PrivateServer, directory: Path) -> None:
        self.server = server
        self.app_url = f"http://localhost:{free_port()}"
        self.gateway_url = f"http://localhost:{free_port()}/"
        self.database_url = f"sqlite:///{directory}/trades.db"
        self.gateway: asyncio.subprocess.Process
        self.worker: asyncio.subprocess.Process
        self._environment = {
            "PATH": os.environ["PATH"],
            "REDIS_URL": server.url,
            "DATABASE_URL": self.database_url,
            "DATA_DIR": str(directory),
            "SCHEDULES": "schedules",
            "OUTBOX": "tradesense.tables:outbox",
            "GATEWAY_URL": self.gateway_url,
            "GATEWAY_ORIGINS": self.app_url,
        }

    async def start(self, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
        """Start one process."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments), cwd=ROOT, env={**self._environment, **settings}
        )

    async def start_gateway(self) -> None:
        """Start the gateway, on the port that it always has, and wait until it answers."""
        port = self.gateway_url.rstrip("/").rpartition(":")[2]
        self.gateway = await self.start("-m", "gateway", PORT=port)
        await answers(f"{self.gateway_url}healthz")

    async def start_worker(self) -> None:
        """Start a worker, and wait until it listens."""
        self.worker = await self.start("-m", "worker")
        await self.worker_listens()

    async def worker_listens(self) -> None:
        """Wait until the worker is subscribed: a plain PUBLISH before is lost."""
        listens = ("PUBSUB", "NUMSUB", "trade:updates")
        await until(lambda: self.server.ask(*listens)[1], "a worker that listens", deadline_s=30)

    async def trade(self, symbol: str) -> None:
        """Import a trade, and announce it as any program would: a plain PUBLISH."""
        code = (
            "import asyncio; from tradesense.recording import import_trades, Order;"
            f"asyncio.run(import_trades({USER}, [Order('{symbol}', 'buy', 1, '10.00')]))"
        )
        assert await (await self.start("-c", code)).wait() == 0
        self.announce(symbol)

    def announce(self, symbol: str) -> None:
        """Publish without a new trade."""
        event = {"user_id": USER, "action": "import_completed", "symbol": symbol}
        self.server.ask("PUBLISH", "trade:updates", json.dumps(event))

    def told(self) -> list[str]:
        """Return the ids of what the feed says about the user."""
        found = []
        for _, fields in self.server.ask("XRANGE", Names("cachebus").feed, "-", "+"):
            record = dict(zip(fields[::2], fields[1::2], strict=True))
            if record[b"topic"] == f"user:{USER}".encode():
                found.append(json.loads(record[b"record"])["id"])
        return found


@asynccontextmanager
async def deployed(server: PrivateServer, directory: Path, seed: str = SEED) -> AsyncIterator[Deployment]:
    """Set everything up; whatever was started is killed at the end."""
    made = Deployment(server, directory)
    assert await (await made.start("-c", seed)).wait() == 0
    async with AsyncExitStack() as stack:

        async def ended(process: asyncio.subprocess.Process) -> None:
            if process.returncode is None:
                process.kill()
            await process.wait()

        port = made.app_url.rpartition(":")[2]
        command = ("-m", "uvicorn", "tradesense.web.app:app", "--port", port, "--log-level", "warning")
        stack.push_async_callback(ended, await made.start(*command))
        for begun in (made.start_worker(), made.start_gateway()):
            await begun

        async def end_restarted() -> None:
            await asyncio.gather(ended(made.worker), ended(made.gateway))

        stack.push_async_callback(end_restarted)
        await answers(f"{made.app_url}/openapi.json")
        yield made


async def answers(url: str) -> None:
    """Wait until something answers there."""
    async with httpx.AsyncClient(timeout=30) as http:

        async def answered() -> bool:
            try:
                return (await http.get(url)).status_code == 200
            except httpx.TransportError:
                return False

        await until(answered, f"an answer from {url}", deadline_s=30)


@asynccontextmanager
async def shown(chrome: Browser, url: str) -> AsyncIterator[Page]:
    """Open a page and wait until it listens; what it raises fails the test."""
    async with await chrome.new_context() as context:
        page = listened_to(await context.new_page())
        await page.goto(url)
        await expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
        yield page
    no_complaints()


async def heard(page: Page) -> list[str]:
    """Return the ids of the messages that the page was sent, in the order they came."""
    ids: list[str] = await page.locator("#log li").evaluate_all("lines => lines.map(line => line.dataset.id)")
    return ids[::-1]
