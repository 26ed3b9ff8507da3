"""A real browser, real processes: a page that changes by itself, and misses nothing while the gateway is gone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, async_playwright, expect

from cachebus.loopback import free_port
from cachebus.names import Names
from cachebus.private_server import PrivateServer
from tests.waiting import until

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
USER = 3
PATIENCE_MS = 30_000
SEED = "import asyncio; from tradesense.seed import seed; asyncio.run(seed(users=4, trades=40))"

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true", reason="no Chromium on this machine: make programs"
    ),
    pytest.mark.xdist_group("browser"),
]


class Deployment:
    """Worker, gateway and application, each a process of its own, on a server of their own."""

    def __init__(self, server: PrivateServer, directory: Path) -> None:
        self.server = server
        self.app_url = f"http://localhost:{free_port()}"
        self.gateway_url = f"http://localhost:{free_port()}/"
        self.gateway: asyncio.subprocess.Process
        self._environment = {
            "PATH": os.environ["PATH"],
            "REDIS_URL": server.url,
            "DATABASE_URL": f"sqlite:///{directory}/trades.db",
            "DATA_DIR": str(directory),
            "SCHEDULES": "schedules",
            "OUTBOX": "tradesense.tables:outbox",
            "GATEWAY_URL": self.gateway_url,
            "GATEWAY_ORIGINS": self.app_url,
            "GATEWAY_COOKIE": "sid",
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
async def deployed(server: PrivateServer, directory: Path) -> AsyncIterator[Deployment]:
    """Set everything up; whatever was started is killed at the end."""
    made = Deployment(server, directory)
    assert await (await made.start("-c", SEED)).wait() == 0
    async with AsyncExitStack() as stack:

        async def ended(process: asyncio.subprocess.Process) -> None:
            if process.returncode is None:
                process.kill()
            await process.wait()

        port = made.app_url.rpartition(":")[2]
        command = ("-m", "uvicorn", "examples.fastapi_app.app:app", "--port", port, "--log-level", "warning")
        for arguments in (("-m", "worker"), command):
            stack.push_async_callback(ended, await made.start(*arguments))
        await made.start_gateway()

        async def end_gateway() -> None:
            await ended(made.gateway)

        stack.push_async_callback(end_gateway)
        await answers(f"{made.app_url}/openapi.json")
        await until(lambda: server.ask("PUBSUB", "NUMSUB", "trade:updates")[1], "a worker that listens", deadline_s=30)
        yield made


async def answers(url: str) -> None:
    """Wait until something answers there."""
    async with httpx.AsyncClient() as http:

        async def answered() -> bool:
            try:
                return (await http.get(url)).status_code == 200
            except httpx.TransportError:
                return False

        await until(answered, f"an answer from {url}", deadline_s=30)


@asynccontextmanager
async def shown(url: str) -> AsyncIterator[Page]:
    """Open a page in Chromium and wait until it listens."""
    assert CHROMIUM is not None, "CI must install Chromium"
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("pageerror", lambda error: pytest.fail(f"the page raised {error}"))
        await page.goto(url)
        await expect(page.locator("#state")).to_have_text("open", timeout=PATIENCE_MS)
        yield page
        await browser.close()


async def heard(page: Page) -> list[str]:
    """Return the ids of the messages that the page was sent, in the order they came."""
    ids: list[str] = await page.locator("#log li").evaluate_all("lines => lines.map(line => line.dataset.id)")
    return ids[::-1]


async def test_the_page_changes_by_itself_and_misses_nothing(own_server: PrivateServer, tmp_path: Path) -> None:
    """An imported trade shows on the open page. Killed and started again, the gateway loses and repeats no message."""
    async with deployed(own_server, tmp_path) as made, shown(f"{made.app_url}/?user={USER}") as page:
        trades = page.locator("#trades")
        await expect(trades).to_contain_text("trades")
        count = int(await trades.get_attribute("data-count") or 0)
        await made.trade("AAPL")
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)

        made.gateway.kill()
        await made.gateway.wait()
        await expect(page.locator("#state")).not_to_have_text("open")
        before = len(made.told())
        for symbol in ("MSFT", "IBM", "GOOG"):
            made.announce(symbol)
        await made.trade("AAPL")
        await until(lambda: len(made.told()) >= before + 4, "the messages that nobody passed on")
        await made.start_gateway()
        await expect(page.locator("#state")).to_have_text("open", timeout=PATIENCE_MS)
        made.announce("MSFT")
        await expect(trades).to_have_text(f"{count + 2} trades", timeout=PATIENCE_MS)

        async def all_heard() -> bool:
            return len(made.told()) == before + 5 and await heard(page) == made.told()

        await until(all_heard, "every message, once, in order")


async def test_a_page_goes_on_over_server_sent_events(own_server: PrivateServer, tmp_path: Path) -> None:
    """Where no WebSocket opens, the page turns to server-sent events by itself, and misses nothing either."""
    async with deployed(own_server, tmp_path) as made, shown(f"{made.app_url}/?user={USER}") as page:
        await page.evaluate("() => { live.sse = true; live.hurry(); }")
        await page.wait_for_function("() => live.line instanceof EventSource && live.state === 'open'")
        made.announce("AAPL")

        async def all_heard() -> bool:
            return len(made.told()) == 1 and await heard(page) == made.told()

        await until(all_heard, "the message, once")
