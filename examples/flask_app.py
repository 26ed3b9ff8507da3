"""Flask: a page and a result, cached until what they show changes. `flask --app examples.flask_app run`."""

from __future__ import annotations

from flask import Flask
from flask.typing import ResponseReturnValue

from cachebus.integrations.flask import FlaskCache
from cachebus.sync import Bus

app = Flask(__name__)
cache = FlaskCache(app)
bus = Bus(cache)
prices = {1: 9.5}
"""Stands for the database."""


@cache.view("flask:price:{product_id}", ttl="5m", tags=["product:{product_id}"])
def price(product_id: int) -> float:
    """Return a price. The query runs in the request's thread."""
    return prices[product_id]


@app.get("/products/<int:product_id>")
@cache.cached("1m", tags=lambda product_id: [f"product:{product_id}"])
def show(product_id: int) -> ResponseReturnValue:
    """Answer with the page, made once for everybody."""
    return {"price": price(product_id)}


@app.put("/products/<int:product_id>/<float:to>")
def change(product_id: int, to: float) -> ResponseReturnValue:
    """Write, invalidate, tell."""
    prices[product_id] = to
    cache.invalidate(tags=[f"product:{product_id}"])
    bus.publish("prices", {"product_id": product_id, "price": to}, key=f"product:{product_id}")
    return "", 204
