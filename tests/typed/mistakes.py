"""Calls that a type checker must refuse: each marked line is one error, and there is no other. See `test_typed.py`."""

from __future__ import annotations

from cachebus import Cache

cache = Cache.from_env()


@cache.view("row:{n}:{who}", ttl="1m")
async def row(n: int, *, who: str = "me") -> int:
    """Ask the database."""
    return n


class Desk:
    """A view as a method."""

    @cache.view("order:{n}", ttl="1m", not_in_key="self")
    async def order(self, n: int) -> int:
        """Ask the database."""
        return n


async def use(desk: Desk) -> None:
    """Call everything wrongly."""
    await row("seven")  # error
    await row(7, "me")  # error
    await row(7, whom="me")  # error
    await row()  # error
    await row.load("seven")  # error
    await row.refresh(7, whom="me")  # error
    await row.invalidate("seven")  # error
    await row.warm("seven")  # error
    row.key("seven")  # error
    row.tags("seven")  # error
    await row(7, fresh_after=7)  # error
    await row(7, strict="yes")  # error
    await desk.order("seven")  # error
    await desk.order.refresh("seven")  # error
    (await row(7)).lower()  # error
