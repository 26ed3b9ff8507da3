"""A FastAPI application of Pydantic models: it must pass `mypy --strict` and pyright as it is. See `test_typed.py`."""

from __future__ import annotations

from typing import Generic, TypeVar, assert_type

from fastapi import FastAPI
from pydantic import BaseModel

from cachebus import Broadcast, Bus, Cache, Effects, Invalidate, on

T = TypeVar("T")
cache = Cache.from_env()
bus = Bus(cache)
app = FastAPI()


class Item(BaseModel):
    """What is returned."""

    sku: str
    price: float


class Page(BaseModel, Generic[T]):
    """Several."""

    items: list[T]


class Changed(BaseModel):
    """An event."""

    sku: str


@cache.view("item:{sku}", ttl="1m", tags=["item:{sku}"])
async def item(sku: str) -> Item | None:
    """Ask the database."""
    return Item(sku=sku, price=1.0)


@cache.view("items:{n}", ttl="1m")
async def items(n: int = 1) -> Page[Item]:
    """Ask the database."""
    return Page(items=[Item(sku="a", price=float(n))])


@on("changed", Changed)
def changed(event: Changed) -> Effects:
    """Say what the event leads to."""
    yield Invalidate(tags=[f"item:{event.sku}"])
    yield Broadcast("items", "changed", data=event)


@app.get("/items/{sku}")
async def read(sku: str) -> Item | None:
    """Answer with a model."""
    found = await item(sku)
    assert_type(found, Item | None)
    return found


@app.get("/items")
async def read_all() -> Page[Item]:
    """Answer with several."""
    return await items()


@app.put("/items/{sku}")
async def write(sku: str) -> None:
    """Publish a model."""
    await bus.publish("changed", Changed(sku=sku))
