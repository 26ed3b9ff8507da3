"""Stale responses, counted: three processes that answer HTTP, browsers with a cache of their own, one writer.

A request that begins 50 ms or more after an invalidation had returned must not bring anything older; one that names the
clock of an invalidation (`Fresh-After`), at once. A browser keeps what `Cache-Control` allows, shows it unasked while
it is fresh, and else asks with `If-None-Match`, whichever process answers.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import httpx
import redis.asyncio
from fastapi import FastAPI
from fastapi_cache import FastAPICache
from fastapi_cache.backends.redis import RedisBackend
from fastapi_cache.decorator import cache as fastapi_cache

from cachebus import Cache
from cachebus.integrations.fastapi import cached_response, lifespan
from cachebus.redis.embedded.loopback import free_port

LIBRARIES = ("cachebus", "fastapi-cache2")
KEYS = 10
PROCESSES = 3
BROWSERS = 12
SECONDS = 8.0
PAUSE_S = 0.02
"""Between two invalidations."""
GRACE_S = 0.05
_MAX_AGE = re.compile(r"max-age=(\d+)")


@dataclass
class Counted:
    """What all browsers saw."""

    responses: int = 0
    stale: int = 0
    unchanged: int = 0
    """Answered with 304: shown from the browser's cache."""
    unasked: int = 0
    """Shown from the browser's cache without a request."""


@dataclass
class Kept:
    """A response in a browser."""

    tag: str
    value: int
    fresh_until: float


class Browser:
    """A private cache in front of several processes of one site (RFC 9111); `fetch` is the page's."""

    def __init__(self, http: httpx.AsyncClient, sites: list[str], counted: Counted) -> None:
        self._http = http
        self._sites = sites
        self._counted = counted
        self._kept: dict[str, Kept] = {}

    async def fetch(self, path: str, fresh_after: str = "") -> int:
        """Return the value at *path*; with *fresh_after* as `live.fetch` does it, which asks in any case."""
        kept, headers = self._kept.get(path), {}
        self._counted.responses += 1
        if kept is not None:
            if not fresh_after and time.monotonic() < kept.fresh_until:
                self._counted.unasked += 1
                return kept.value
            headers["If-None-Match"] = kept.tag
        if fresh_after:
            headers["Fresh-After"] = fresh_after
        asked_at = time.monotonic()
        answer = await self._http.get(random.choice(self._sites) + path, headers=headers)  # noqa: S311 - a balancer
        control = answer.headers.get("cache-control", "")
        found = _MAX_AGE.search(control) if "no-cache" not in control else None
        fresh_until = asked_at + int(found[1]) - int(answer.headers.get("age", "0")) if found else 0.0
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            assert kept is not None
            self._counted.unchanged += 1
            kept.fresh_until = fresh_until
            return kept.value
        answer.raise_for_status()
        value = int(answer.json())
        if "no-store" not in control and "etag" in answer.headers:
            self._kept[path] = Kept(answer.headers["etag"], value, fresh_until)
        return value


class Truth:
    """What is true, since when, and the clocks of its changes."""

    def __init__(self) -> None:
        self.value = dict.fromkeys(range(KEYS), 0)
        self.clock = dict.fromkeys(range(KEYS), "")
        self._settled: dict[int, list[tuple[float, int]]] = {key: [(0.0, 0)] for key in range(KEYS)}

    def changed(self, key: int, value: int, clock: str) -> None:
        """Take note that the invalidation of *key* has returned."""
        self.value[key], self.clock[key] = value, clock
        self._settled[key].append((time.monotonic(), value))

    def least(self, key: int) -> int:
        """Return the oldest value that a request which begins now may bring."""
        before = time.monotonic() - GRACE_S
        return next(value for at, value in reversed(self._settled[key]) if at <= before)


async def run(library: str, url: str, longest_ms: int, seconds: float = SECONDS) -> Counted:
    """Have browsers read from processes that use *library*, while a writer invalidates; returns what was counted."""
    counted, truth = Counted(), Truth()
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(_Site(library, url, longest_ms)) for _ in range(PROCESSES)]
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        await asyncio.gather(*[site.ready(http) for site in sites])
        database = redis.asyncio.Redis.from_url(url, db=1)
        stack.push_async_callback(database.aclose)
        cache = await stack.enter_async_context(Cache(url)) if library == "cachebus" else None
        stored = redis.asyncio.Redis.from_url(url)
        stack.push_async_callback(stored.aclose)
        ends = time.monotonic() + seconds

        async def write() -> None:
            for number in range(1, 1_000_000):
                if time.monotonic() >= ends:
                    return
                key = random.randrange(KEYS)  # noqa: S311 - which one changes
                await database.set(f"true:{key}", number)
                if cache is not None:
                    clock = str(await cache.invalidate(keys=f"value:{key}"))
                else:
                    await stored.delete(f"fc2::{key}")
                    clock = ""
                truth.changed(key, number, clock)
                await asyncio.sleep(PAUSE_S)

        async def read(browser: Browser) -> None:
            while time.monotonic() < ends:
                await asyncio.sleep(0.005)  # a page that is shown from the browser's cache yields, too
                key = random.randrange(KEYS)  # noqa: S311 - what is looked at
                clock = truth.clock[key] if random.random() < 0.5 else ""  # noqa: S311 - whether a broadcast came
                least = truth.value[key] if clock else truth.least(key)
                counted.stale += await browser.fetch(f"/values/{key}", clock) < least

        browsers = [Browser(http, [site.url for site in sites], counted) for _ in range(BROWSERS)]
        await asyncio.gather(write(), *[read(browser) for browser in browsers])
    return counted


class _Site:
    """One process that answers HTTP."""

    def __init__(self, library: str, redis_url: str, longest_ms: int) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "SITE": f"{library} {longest_ms}", "REDIS_URL": redis_url}
        command = ["-m", "uvicorn", "benchmarks.http_freshness:site", "--factory", "--port", str(port)]
        self._process = subprocess.Popen(
            [sys.executable, *command, "--log-level", "error", "--no-access-log"], env=environment
        )

    async def ready(self, http: httpx.AsyncClient) -> None:
        """Wait until it answers."""
        while True:
            try:
                (await http.get(f"{self.url}/values/0")).raise_for_status()
            except httpx.ConnectError:
                assert self._process.poll() is None, "the site ended"
                await asyncio.sleep(0.05)
            else:
                return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)


def site() -> FastAPI:
    """Return the application of one process."""
    library, longest_ms = os.environ["SITE"].split()
    url = os.environ["REDIS_URL"]
    database = redis.asyncio.Redis.from_url(url, db=1)

    async def load(key: int) -> int:
        value = int(await database.get(f"true:{key}") or 0)
        await asyncio.sleep(random.random() * int(longest_ms) / 1000)  # noqa: S311 - a query's duration
        return value

    if library == "cachebus":
        cache = Cache(url)
        app = FastAPI(lifespan=lifespan(cache))
        app.get("/values/{key}")(cached_response()(cache.view("value:{key}", ttl="1m")(load)))
        return app

    FastAPICache.init(
        RedisBackend(redis.asyncio.from_url(url)),
        key_builder=lambda *_, kwargs, **__: f"fc2::{kwargs['key']}",
    )
    app = FastAPI()
    app.get("/values/{key}")(fastapi_cache(expire=60)(load))
    return app
