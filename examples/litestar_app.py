"""Litestar: an asynchronous application whose cache lives as long as it. `uvicorn examples.litestar_app:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from litestar import Litestar, get, put
from litestar.params import Parameter
from litestar.response import Response

from cachebus import Bus, Cache

cache = Cache.from_env()
bus = Bus(cache)
stock = {1: 5}
"""Stands for the database."""


@cache.view("litestar:stock:{product_id}", ttl="5m", tags=["product:{product_id}"])
async def in_stock(product_id: int) -> int:
    """Return how many there are: the slow query."""
    return stock[product_id]


@get("/stock/{product_id:int}")
async def show(
    product_id: int, fresh_after: Annotated[str | None, Parameter(header="Fresh-After")] = None
) -> dict[str, int]:
    """Answer with the figure, never older than what this client has changed."""
    return {"stock": await in_stock(product_id, fresh_after=fresh_after)}


@put("/stock/{product_id:int}/{count:int}", status_code=204)
async def change(product_id: int, count: int) -> Response[None]:
    """Write, invalidate, tell; the header names the moment that later reads must not be older than."""
    stock[product_id] = count
    clock = await cache.invalidate(tags=[f"product:{product_id}"])
    await bus.publish("stock", {"product_id": product_id, "count": count}, key=f"product:{product_id}")
    return Response(None, status_code=204, headers={"Fresh-After": clock})


@asynccontextmanager
async def connected(_app: Litestar) -> AsyncIterator[None]:
    """Connect the cache for as long as the application runs."""
    async with cache:
        yield


app = Litestar([show, change], lifespan=[connected])
