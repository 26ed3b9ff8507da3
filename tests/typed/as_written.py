"""A program as the README writes them: it must pass `mypy --strict` and pyright as it is. See `test_typed.py`.

`reveal` lines are checked by both: what a call returns is what its function declares.
"""

from __future__ import annotations

from typing import assert_type

import msgspec

from cachebus import UNCHANGED, Cache, Clock, Policy, previous, previous_validator, validated

cache = Cache.from_env()


class Price(msgspec.Struct, frozen=True):
    """A value."""

    symbol: str
    amount: float


@cache.view("price:{symbol}:{day}", ttl="1m", tags=["market"], not_in_key="session")
async def price(symbol: str, day: int = 0, *, session: object = None) -> Price:
    """Ask the database."""
    return Price(symbol, float(day))


@cache.view("total:{user_id}", ttl=lambda total: "1m", tags="totals", policy=Policy(settle="1s", version=2))
async def total(user_id: int | None) -> list[int]:
    """Ask the database."""
    return [user_id or 0]


@cache.view("rate:{day}", ttl="1m", stale="1h", policy=Policy(keep=lambda rate: rate.amount > 0))
async def rate(day: str) -> Price:
    """Ask the source whether anything changed."""
    before: Price | None = previous()
    if before is not None and before.symbol == previous_validator():
        return UNCHANGED
    return validated(Price(day, 1.0), day)


class Desk:
    """Views as methods."""

    tenant = "acme"

    @cache.view("orders:{self.tenant}:{day}", ttl="1m")
    async def orders(self, day: str) -> int:
        """Ask the database."""
        return 1

    @staticmethod
    @cache.view("closed:{day}", ttl="1m")
    async def closed(day: str) -> bool:
        """Ask the calendar."""
        return False


async def use() -> None:
    """Call everything as people do."""
    assert_type(await price("AAPL"), Price)
    assert_type(await price("AAPL", 3), Price)
    assert_type(await price("AAPL", day=3, session=None), Price)
    clock = await price.invalidate("AAPL", 3)
    assert_type(clock, Clock)
    assert_type(await price("AAPL", fresh_after=clock), Price)
    assert_type(await price("AAPL", 3, fresh_after=str(clock), strict=True), Price)
    assert_type(await price("AAPL", strict=True), Price)
    assert_type(await price.load("AAPL", day=3), Price)
    assert_type(await price.refresh("AAPL"), Price)
    assert_type((await price.warm("AAPL")).loaded, bool)
    assert_type(price.key("AAPL", day=3), str)
    assert_type(price.tags("AAPL"), list[str])
    assert_type(await total(7), list[int])

    desk = Desk()
    assert_type(await desk.orders("monday"), int)
    assert_type(await desk.orders("monday", fresh_after=clock), int)
    assert_type(await desk.orders.refresh(day="monday"), int)
    assert_type(await desk.orders.invalidate("monday"), Clock)
    assert_type(desk.orders.key("monday"), str)
    assert_type(await Desk.orders(desk, "monday"), int)
    assert_type(await Desk.closed("monday"), bool)
    assert_type(await Desk.closed("monday", strict=True), bool)

    await cache.invalidate(tags="market")
    await cache.invalidate(tags=["market"], keys="price:AAPL:0", prefix="price:")
    with cache.reading(fresh_after=clock, strict=True):
        assert_type(await price("AAPL"), Price)
    assert_type(await cache.get("price", type=Price), Price | None)
