"""The page as people get it: on a worker's port, below a path of an application, by the printed link."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from cachebus import Cache, CacheSettings
from cachebus.monitoring.page import routes
from cachebus.redis.embedded.loopback import free_port
from cachebus.sessions.session import Session
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateServer
from tests.support.worker_program import ROOT, WorkerProcess, until

PRINTED_URL = "https://cache.example.com"


@pytest.fixture
def worker(own_server: PrivateServer, tmp_path: Path) -> Iterator[str]:
    """A worker process with a port; returns its address."""
    port = str(free_port())
    environment = {
        "REDIS_URL": own_server.url,
        "DATA_DIR": str(tmp_path),
        "SHOP_FOLDER": str(tmp_path),
        "HANDLERS": "shop.orders",
        "SCHEDULES": "shop.jobs",
        "CACHE": "shop.views:cache",
        "HOST": "127.0.0.1",
        "PORT": port,
        "LIVE_PAGE_OPEN": "true",
    }
    with WorkerProcess(environment) as process:
        process.said("worker started")
        yield f"http://127.0.0.1:{port}"
        assert process.stop() == 0


def test_a_worker_with_a_port_shows_the_page(worker: str) -> None:
    """Page, worker, shard and jobs are there; whoever watches the tail does not keep the worker from stopping."""

    def answers() -> bool:
        try:
            return httpx.get(worker, timeout=30).status_code == 200
        except httpx.ConnectError:
            return False

    until(answers, "the page")
    assert "<title>cachebus</title>" in httpx.get(worker, timeout=30).text

    def ready() -> bool:
        now = httpx.get(f"{worker}/page/api/machine", timeout=30).json()["data"]
        return bool(
            [one for one in now["workers"] if one["state"] == "ready"] and now["backlog"]["shards"][0]["holder"]
        )

    until(ready, "the worker on its own page")
    assert httpx.get(f"{worker}/page/api/jobs", timeout=30).json()["data"]

    def green() -> bool:
        return bool(httpx.get(f"{worker}/page/api/state", timeout=30).json()["state"]["level"] == "ok")

    until(green, "a state in which nothing is wrong")

    def is_watched() -> bool:
        return bool(httpx.get(f"{worker}/page/api/state", timeout=30).json()["state"]["watched"])

    until(is_watched, "the watch")
    with httpx.stream("GET", f"{worker}/page/api/tail", timeout=30) as tail:
        assert next(tail.iter_lines()) == "retry: 2000"


async def test_the_printed_link_holds_a_code_that_works(server: PrivateServer, namespace: str) -> None:
    """`cachebus page-link` prints where to go; the code behind '#' is good for one admin session."""
    environment = {"REDIS_URL": server.url, "CACHE_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "cachebus.worker", "page-link", PRINTED_URL, "--name", "grace")
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout  # noqa: ASYNC221 - nothing else runs in this test's loop
    address, _, code = printed.strip().partition("/#enter=")
    assert address == PRINTED_URL
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:
        transport = httpx.ASGITransport(app=Starlette(routes=routes(cache)), client=("203.0.113.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url=PRINTED_URL) as browser:
            answer = await browser.post("/page/api/enter", json={"code": code}, headers={"Origin": PRINTED_URL})
            assert answer.status_code == 200
            cookie = answer.headers["set-cookie"]
            assert all(
                word in cookie for word in ("__Host-cachebus-page=", "Secure", "HttpOnly", "SameSite=strict", "Path=/")
            )
            assert (await browser.get("/page/api/now")).json()["me"] == {"name": "grace", "admin": True}


async def test_the_how_to_runs_and_mounts_below_a_path(server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block's application serves the page below /cache, and connects when somebody looks."""
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("CACHE_NAMESPACE", "howto-page")
    page = (ROOT / "docs/howto/watch-the-cache.md").read_text()
    left: dict[str, Any] = {}
    exec("".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), left)  # noqa: S102 - our own page
    cache = left["cache"]
    assert cache.reader is None
    transport = httpx.ASGITransport(app=left["app"], client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        assert (await browser.get("/cache/")).status_code == 200
        assert (await browser.get("/cache/page/app.js")).status_code == 200
        assert (await browser.get("/cache/page/api/now")).status_code == 401
        store = SessionStore(cache)
        session_id = await left["log_in_admin"](store, "ada")
        answer = await browser.get("/cache/page/api/now", headers={"Cookie": f"__Host-sid={session_id}"})
        assert answer.json()["state"]["level"] == "ok"
    session = await store.get(session_id)
    assert isinstance(session, Session)
    assert session.data == {"role": "admin"}
    await cache.close()
