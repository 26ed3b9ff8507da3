"""FastAPI with Pydantic models: answered from the cache, 304 while it holds. `uvicorn examples.pydantic_app:app`."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field

from cachebus import Bus, Cache
from cachebus.integrations.fastapi import cached_response, lifespan

cache = Cache.from_env()
bus = Bus(cache)
app = FastAPI(lifespan=lifespan(cache, bus))


class Product(BaseModel, frozen=True):
    """What is shown; frozen, so that all requests of a process share one object."""

    product_id: int = Field(alias="productId")
    name: str
    price: float


class PriceChanged(BaseModel):
    """An event."""

    product_id: int
    price: float


catalogue = {1: Product(productId=1, name="tea", price=4.5), 2: Product(productId=2, name="salt", price=1.0)}
"""Stands for the database."""


@app.get("/products")
@cached_response()
@cache.view("pydantic:products", ttl="5m", tags=["catalogue"])
async def products() -> list[Product]:
    """Return all there are: the slow query."""
    return list(catalogue.values())


@app.put("/products/{product_id}/price", status_code=204)
async def change_price(product_id: int, price: float, response: Response) -> None:
    """Write, invalidate, tell. Pages that ask with the header they got here never see the old price again."""
    if product_id not in catalogue:
        raise HTTPException(404, "no such product")
    catalogue[product_id] = catalogue[product_id].model_copy(update={"price": price})
    response.headers["Fresh-After"] = await cache.invalidate(tags=["catalogue"])
    await bus.publish("prices", PriceChanged(product_id=product_id, price=price), key=f"product:{product_id}")
