"""Views in classes: methods, class methods, static methods."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cachebus import Cache, ConfigurationError

cache = Cache.memory()


class Desk:
    """A class as an application writes it."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.loads = 0

    @cache.view("desk:{self.tenant}:{day}:{limit}", ttl="1h", tags=["tenant:{self.tenant}"])
    async def orders(self, day: str, *, limit: int = 10) -> str:
        """Read the database."""
        self.loads += 1
        return f"{self.tenant} {day} {limit}"

    @cache.view("row:{n}", ttl="1h", not_in_key="self")
    async def row(self, n: int) -> int:
        """Depend on nothing of the object."""
        self.loads += 1
        return n

    @cache.view("kind:{n}", ttl="1h", not_in_key="cls")
    @classmethod
    async def kind(cls, n: int) -> str:
        """Belong to the class."""
        return f"{cls.__name__} {n}"

    @cache.view("under:{n}", ttl="1h")
    @staticmethod
    async def under(n: int) -> int:
        """Belong to nobody."""
        return n

    @staticmethod
    @cache.view("over:{n}", ttl="1h")
    async def over(n: int) -> int:
        """Belong to nobody, the other way round."""
        return n


@pytest.fixture(autouse=True)
async def opened() -> AsyncIterator[None]:
    """Have the cache of this file empty."""
    async with cache:
        yield


async def test_a_view_is_a_method() -> None:
    """Called on its object, cached by what the key names of it; everything a view does is there."""
    acme, other = Desk("acme"), Desk("other")
    assert await acme.orders("monday") == "acme monday 10"
    assert await other.orders("monday", limit=3) == "other monday 3"
    assert await Desk("acme").orders("monday") == "acme monday 10"
    assert (acme.loads, other.loads) == (1, 1)
    assert acme.orders.key("monday") == "desk:acme:monday:10"
    assert acme.orders.tags("monday") == ["tenant:acme"]
    clock = await acme.orders.invalidate("monday")
    assert await acme.orders("monday", fresh_after=clock) == "acme monday 10"
    assert acme.loads == 2
    assert await acme.orders.refresh("monday") == "acme monday 10"
    assert await acme.orders("monday", strict=True) == "acme monday 10"
    assert (await acme.orders.warm("monday")).loaded
    assert await acme.orders.load("monday") == "acme monday 10"
    assert acme.loads == 5
    await cache.invalidate(tags="tenant:acme")
    await acme.orders("monday")
    await other.orders("monday", limit=3)
    assert (acme.loads, other.loads) == (6, 1)


async def test_on_the_class_it_is_the_view() -> None:
    """With its statistics, and with the object as an argument, as a function has it."""
    desk = Desk("acme")
    assert Desk.row.name == "row:{n}"
    assert await Desk.row(desk, 1) == 1
    assert await desk.row(1) == 1
    assert desk.loads == 1


async def test_methods_of_a_class_and_of_nobody() -> None:
    """Through the class and through an object."""

    class Late(Desk):
        pass

    assert await Desk.kind(1) == "Desk 1"
    assert await Late("x").kind(2) == "Late 2"
    await Desk.kind.invalidate(1)
    assert await Desk.under(1) == await Desk("x").under(1) == 1
    assert await Desk.over(2) == await Desk("x").over(2) == 2
    await Desk.over.invalidate(2)


def test_what_a_method_depends_on_is_said() -> None:
    """Otherwise two tenants would share their values; the error says both ways."""

    async def rows(self: object, n: int) -> int:
        return n

    with pytest.raises(ConfigurationError, match=r"\{self\.tenant\}.*not_in_key=\['self'\]"):
        Cache.memory().view("rows:{n}", ttl="1m")(rows)
