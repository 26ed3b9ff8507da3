"""HTTP from the cache: CPU of a hit beside an endpoint that returns constant bytes, and stale responses, counted.

CPU: one FastAPI application a contestant, called as a server calls it, without sockets. Freshness: three processes
under uvicorn, browsers that keep what they may and ask as they must (RFC 9111), a writer that invalidates.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import redis.asyncio
from fastapi import FastAPI, Response
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.backends.redis import RedisBackend
from fastapi_cache.decorator import cache as fastapi_cache

from benchmarks.http_freshness import LIBRARIES, run
from benchmarks.report import ROUNDS, Report
from cachebus import Cache
from cachebus.integrations.fastapi import cached_response
from cachebus.testing.server import PrivateServer

REQUESTS = 3_000
ITEMS = 40


class Item(msgspec.Struct, frozen=True):
    """A row of a dashboard."""

    id: int
    name: str
    value: float


ROWS = tuple(Item(number, f"position {number}", number * 1.25) for number in range(ITEMS))
BODY = msgspec.json.encode(ROWS)
SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/rows",
    "raw_path": b"/rows",
    "query_string": b"",
    "root_path": "",
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}
Get = Callable[[], Awaitable[int]]


def requests_to(app: Any, expected: int, **headers: str) -> Get:
    """Return what sends REQUESTS requests to *app*, one after the other, and returns the CPU spent, microseconds."""
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {**SCOPE, "headers": given}
    statuses: set[int] = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    async def requests() -> int:
        started = time.process_time_ns()
        for _ in range(REQUESTS):
            await app(dict(scope), receive, send)
        assert statuses == {expected}, statuses  # errors would be fast
        return (time.process_time_ns() - started) // 1000

    return requests


async def header(app: Any, name: bytes) -> str:
    """Return a header of what *app* answers."""
    found: dict[bytes, bytes] = {}

    async def send(message: Any) -> None:
        found.update(message.get("headers", ()))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    await app({**SCOPE, "headers": []}, receive, send)
    return found[name].decode()


async def constant() -> FastAPI:
    """Return an application that answers constant bytes."""
    app = FastAPI()

    @app.get("/rows")
    async def rows() -> Response:
        return Response(BODY, media_type="application/json")

    return app


async def ours(cache: Cache) -> FastAPI:
    """Return one that answers from a view."""
    app = FastAPI()

    @app.get("/rows")
    @cached_response()
    @cache.view("rows", ttl="10m", tags=["rows"])
    async def rows() -> tuple[Item, ...]:
        return ROWS

    return app


async def theirs(url: str, *, memory: bool) -> FastAPI:
    """Return one that answers from fastapi-cache2."""
    FastAPICache.reset()
    backend = InMemoryBackend() if memory else RedisBackend(redis.asyncio.from_url(url))
    FastAPICache.init(backend, prefix="fc2")
    app = FastAPI()

    @app.get("/rows")
    @fastapi_cache(expire=600)
    async def rows() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(row) for row in ROWS]

    return app


async def measure_cpu(report: Report, url: str) -> None:
    """Add the CPU of a request to each application; contestants take turns."""
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(Cache(url))
        plain, view = await constant(), await ours(cache)
        tag = await header(view, b"etag")
        clock = await cache.invalidate(tags=["other"])
        # Its settings are global: one backend at a time, so the two take turns below.
        contestants: list[tuple[str, Callable[[], Awaitable[Get]]]] = [
            ("constant bytes", lambda: _ready(requests_to(plain, 200))),
            ("cachebus, 200", lambda: _ready(requests_to(view, 200))),
            ("cachebus, 304", lambda: _ready(requests_to(view, 304, if_none_match=tag))),
            ("cachebus, 200, with Fresh-After", lambda: _ready(requests_to(view, 200, fresh_after=clock))),
            ("fastapi-cache2, memory", lambda: _theirs(url, memory=True)),
            ("fastapi-cache2, Redis", lambda: _theirs(url, memory=False)),
        ]
        spent: dict[str, list[float]] = {name: [] for name, _ in contestants}
        for _ in range(ROUNDS):
            for name, ready in contestants:
                spent[name].append(await (await ready())() / REQUESTS)
        base = statistics.median(spent["constant bytes"])
        for name, times in spent.items():
            median = statistics.median(times)
            target = "target <= 1.5" if name.startswith("cachebus") else ""
            report.add(f"CPU of a request, {name}", median, "us", f"{median / base:.2f} x constant {target}")


async def _ready(get: Get) -> Get:
    await get()
    return get


async def _theirs(url: str, *, memory: bool) -> Get:
    return await _ready(requests_to(await theirs(url, memory=memory), 200))


def main() -> None:
    """Run, print, write."""
    report = Report("http")
    with PrivateServer.start("appendonly no") as server:
        asyncio.run(measure_cpu(report, server.url))
        for library in LIBRARIES:
            for longest_ms in (10, 200):
                server.ask("FLUSHALL")
                counted = asyncio.run(run(library, server.url, longest_ms))
                share = 100 * counted.stale / max(1, counted.responses)
                note = (
                    f"{share:.2f} % of {counted.responses:,}; {counted.unchanged:,} by 304, {counted.unasked:,} unasked"
                )
                report.add(f"stale responses, {library}, loads up to {longest_ms} ms", counted.stale, "stale", note)
    report.write("fastapi", "starlette", "fastapi-cache2", "redis", "msgspec")


if __name__ == "__main__":
    sys.exit(main())
