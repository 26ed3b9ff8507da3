"""A server that is asked to stop ends, though browsers hold streams of the gateway open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from cachebus import Client
from cachebus.process.chained_signals import ChainedSignals
from cachebus.redis.embedded.loopback import free_port
from cachebus.testing.server import PrivateServer
from tests.support.gateway_site import COOKIE, Site
from tests.support.waiting import until
from tests.support.worker_program import ROOT, WorkerProcess

CACHEBUS = [sys.executable, "-m", "cachebus.worker"]
UVICORN = [sys.executable, "-m", "uvicorn", "web:app", "--port"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """What `cachebus new shop --fastapi` writes: the gateway is mounted, and opened in the lifespan."""
    with WorkerProcess({}, "new", "shop", "--fastapi", cwd=tmp_path, program=CACHEBUS) as making:
        assert making.ended() == 0
    return tmp_path / "shop"


@contextlib.contextmanager
def following(port: int) -> Iterator[Iterator[str]]:
    """A browser that follows its user's topic, and has been welcomed."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as browser:
        browser.get("/")
        with browser.stream("GET", "/live/events?topics=user:7") as live:
            lines = live.iter_lines()
            assert next(line for line in lines if line.startswith("data:"))
            yield lines


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_uvicorn_stops_with_a_stream_open(shop: Path, asked: signal.Signals) -> None:
    """The stream ends as one does that is complete, so the browser comes back by itself, and the process ends."""
    port = free_port()
    with PrivateServer.start() as redis:
        environment = {"REDIS_URL": redis.url, "PYTHONPATH": str(ROOT)}
        with WorkerProcess(environment, str(port), cwd=shop, program=UVICORN) as running:
            running.shows("Uvicorn running on")
            with following(port) as lines:
                running.signal(asked)
                assert not [line for line in lines if line.startswith("data:") and "heartbeat" not in line]
            running.ended()
    assert "Application shutdown complete" in running.text


def test_dev_stops_and_restarts_it(shop: Path) -> None:
    """`cachebus dev` with a browser: a changed file restarts the application, Ctrl-C ends it all."""
    port, gateway = free_port(), free_port()
    environment = {"PYTHONPATH": str(ROOT), "LOG_FORMAT": "console"}
    arguments = ["dev", "--port", str(gateway), "--", *UVICORN, str(port)]
    with WorkerProcess(environment, *arguments, cwd=shop, program=CACHEBUS) as running:
        running.shows("Uvicorn running on")
        with following(port) as lines:
            (shop / "views.py").write_text((shop / "views.py").read_text() + "\n")
            assert not [line for line in lines if line.startswith("data:") and "heartbeat" not in line]
        running.shows("(?s)Uvicorn running on.*Uvicorn running on")
        with following(port):
            running.signal(signal.SIGINT)
            assert running.ended() == 0


async def test_a_stream_that_waits_for_the_feed_ends_too(client: Client) -> None:
    """Who came while the feed could not be heard does not hold the process up either."""
    site = Site(client)
    async with site.running():
        site.gateway._begun.clear()
        headers = {"Cookie": f"{COOKIE}={await site.cookie()}"}
        async with (
            httpx.AsyncClient(base_url=site.url, headers=headers, timeout=30) as http,
            http.stream("GET", "/events?topics=user:42") as stream,
        ):
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith("retry: ")
            await site.gateway.drain(0.0)
            assert [line async for line in lines]
    assert site.gateway.connected == 0


@pytest.fixture
def before() -> Iterator[list[int]]:
    """What the handler of a server heard, which was there first."""
    heard: list[int] = []
    original = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, original)


async def test_a_gateway_opened_again_drains_again(client: Client, before: list[int]) -> None:
    """Each run hears of the signal, the server's own handler does too, and is left as it was."""
    gateway = Site(client).gateway
    gateway.heeds_signals = True
    theirs = signal.getsignal(signal.SIGTERM)
    for run in (1, 2):
        async with gateway:
            await gateway.begun()
            assert not gateway.draining
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: gateway.draining, "the drain")
        assert signal.getsignal(signal.SIGTERM) is theirs
        assert len(before) == run


async def test_a_handler_of_the_loop_is_told_too() -> None:
    """Hypercorn and gunicorn listen with `add_signal_handler`."""
    theirs, ours = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, theirs.set)
    chained = ChainedSignals(ours.set)
    chained.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await asyncio.gather(theirs.wait(), ours.wait())
    finally:
        chained.remove()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_whoever_chains_behind_us_outlives_us(before: list[int]) -> None:
    """Closed while somebody else's handler calls ours: it passes on, and the gateway is asked no more."""
    asked: list[int] = []
    chained = ChainedSignals(lambda: asked.append(1))
    chained.install()
    behind = signal.getsignal(signal.SIGTERM)
    assert callable(behind)
    signal.signal(signal.SIGTERM, partial(behind))
    chained.remove()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: before, "the first handler")
    assert asked == []


async def test_in_another_thread_nothing_is_changed(before: list[int]) -> None:
    """Only the main thread may have handlers; a server in another one stops in its own way."""
    theirs = signal.getsignal(signal.SIGTERM)
    await asyncio.to_thread(lambda: asyncio.run(_installed()))
    assert signal.getsignal(signal.SIGTERM) is theirs


async def _installed() -> None:
    ChainedSignals(lambda: None).install()
