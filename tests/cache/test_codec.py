"""What goes in comes out as what it was, or is refused; what a loader returns is held to its declared type."""

from __future__ import annotations

import datetime
import enum
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from cachebus import Cache, ConfigurationError, NotCacheable
from cachebus.cache.values import plain_codec
from cachebus.cache.values.extensions import SelfDescribing
from cachebus.cache.values.never import NeverCached
from cachebus.cache.values.plain_codec import PlainCodec
from tests.conftest import Connect

NOW = datetime.datetime(2026, 11, 30, 2, 5, 6, 7, tzinfo=datetime.UTC)
PLAIN = PlainCodec(Any, "test", NeverCached(), SelfDescribing())


class Side(enum.Enum):
    """A side."""

    BUY = "buy"


class Price(msgspec.Struct, frozen=True, rename="camel"):
    """A Struct."""

    last_price: Decimal
    at: datetime.datetime


@dataclass
class Position:
    """A dataclass."""

    symbol: str
    sizes: tuple[int, ...]


class Range(NamedTuple):
    """A named tuple."""

    low: int
    high: int


def test_a_declared_type_is_taken_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each value that is read: it costs more than reading does."""
    seen: list[object] = []
    monkeypatch.setattr(plain_codec, "is_precise", lambda declared: seen.append(declared) or True)
    codec = PlainCodec(Price, "test", NeverCached(), SelfDescribing())
    price = Price(Decimal(1), NOW)
    assert [codec.decode(PLAIN.encode(price)) for _ in range(3)] == [price] * 3
    assert seen == [Price]


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -(2**63), 2**64 - 1, 2**70, -(2**70), 1.5, float("inf"), "text", "", b"\x00\xff"),
        *(Decimal("1.10"), Decimal("-0"), UUID(int=7)),
        *(NOW, NOW.replace(tzinfo=None), NOW.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))),
        *(NOW.date(), NOW.time(), NOW.timetz(), datetime.timedelta(days=-1, microseconds=1)),
        *((), (1, (2, [3])), [], [(1,), {2}], set(), {1, "a", (2, 3)}, frozenset({Decimal(1)})),
        *({}, {1: "a", None: 2, b"k": 3, 1.5: 4}),
        *({(1, 2): "pair", "a": [Decimal(1)]}, {Decimal("1.0"): 1}, {2**70: 1}, {"$tuple": [1]}, {"": {"": ()}}),
    ],
)
def test_python_s_own_types_stay_what_they_are(value: Any) -> None:
    """Equal, and of the same type at every depth."""
    back = PLAIN.decode(PLAIN.encode(value))
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, set | frozenset)
    assert type(back) is type(value)


class Text(str):
    """A str of one's own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        *(defaultdict(int), Text("x"), object(), [object()], {"a": {"b": Text("x")}}, {Text("x"): 1}, (ValueError(),)),
    ],
)
async def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    """By name, whatever it is in."""
    async with Cache.memory() as cache:
        with pytest.raises(NotCacheable, match="would come back as something else"):
            await cache.set("key", value)
        assert await cache.get("key") is None


def test_what_has_no_end_is_refused() -> None:
    """A list in itself."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NotCacheable, match="cannot be stored"):
        PLAIN.encode(endless)


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (Price(Decimal("1.10"), NOW), Price),
        (Position("BTC", (1, 2)), Position),
        (Side.BUY, Side),
        (Range(1, 2), Range),
        ([Price(Decimal("1.10"), NOW)], list[Price]),
        ({"BTC": Position("BTC", ())}, dict[str, Position]),
    ],
)
async def test_objects_of_one_s_own_classes_come_back_to_who_names_them(value: Any, declared: Any) -> None:
    """`type=` says as what; without it nothing is returned as something else."""
    async with Cache.memory() as cache:
        await cache.set("key", value)
        assert await cache.get("key", type=declared) == value
        assert (await cache.get_many(["key"], type=declared)) == {"key": value}
        with pytest.raises(ConfigurationError, match=r"'key'.*say type="):
            await cache.get("key")
        with pytest.raises(ConfigurationError, match=r"'key'.*say type="):
            await cache.get("key", type=dict[str, Any])


async def test_a_typed_get_reads_plain_data_too(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """From memory and from Redis; what is not of the type is a miss, reported once."""
    one, two = await connect(), await connect()
    await one.set("price", {"lastPrice": Decimal("1.10"), "at": NOW})
    for cache in (one, two, two):
        assert await cache.get("price", type=Price) == Price(Decimal("1.10"), NOW)
        assert await cache.get("price", type=int) is None
        assert await cache.get("price", 3, type=int) == 3
        assert await cache.get("price", type=dict[str, Any]) == {"lastPrice": Decimal("1.10"), "at": NOW}
    warned = [record for record in caplog.records if "and counts as a miss" in record.getMessage()]
    assert len(warned) == 2  # one a process


# -- what loaders return ---------------------------------------------------------------------------------------------


async def test_what_a_loader_returns_is_the_declared_type_for_everybody(connect: Connect) -> None:
    """A list for a tuple: nobody can append to what others get, and who loads gets what readers get."""
    one, two = await connect(), await connect()
    for cache in (one, two):

        @cache.view("sizes", ttl="1m")
        async def sizes() -> tuple[int, ...]:
            return [1, 2]  # type: ignore[return-value] # as it happens

    loaded = await one.views["sizes"]()
    assert loaded == (1, 2)
    assert await one.views["sizes"]() == (1, 2)
    assert await two.views["sizes"]() == (1, 2)
    assert two.stats().totals.loads == 0


@dataclass
class Base:
    """What a view declares."""

    n: int


@dataclass
class Derived(Base):
    """What its loader returns."""

    password: str = "secret"  # noqa: S105 - one that opens nothing


async def test_a_subclass_is_stored_as_what_was_declared(connect: Connect) -> None:
    """Its own fields reach nobody."""
    cache = await connect()

    @cache.view("base", ttl="1m")
    async def base() -> Base:
        return Derived(1)

    first, second = await base(), await base()
    assert type(first) is type(second) is Base
    assert first == second == Base(1)


WRONG: dict[str, tuple[Any, Any, str]] = {
    "text for int": (int, "x", r"loader of view 'wrong' returned what is not int: Expected `int`, got `str`"),
    "texts for ints": (list[int], ["a"], r"loader of view 'wrong' returned what is not list\[int\]: .*\$\[0\]"),
    "too large an int": (int, 2**70, "cannot be stored"),
    "an object for Any": (list[Any], [Price(Decimal(1), NOW)], "declare its type"),
    "a key for Any": (dict, {(1, 2): 3}, "declare its type"),
    "an object": (Any, object, "would come back as something else"),
    "a Struct of an un-annotated view": (Any, Price(Decimal(1), NOW), "annotate what the view returns"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_value_that_cannot_be_stored_is_served(
    connect: Connect, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The load succeeded, so its caller gets the value; it is counted, and reported once."""
    declared, value, message = WRONG[what]
    cache = await connect()

    async def wrong() -> Any:
        return value

    wrong.__annotations__["return"] = declared
    view = cache.view("wrong", ttl="1m")(wrong)
    for _ in range(3):
        assert await view() is value
    assert (view.stats.loads, view.stats.uncacheable, view.stats.load_errors) == (3, 3, 0)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "served and not stored" in warning
    assert re.search(message, warning)


@pytest.mark.parametrize(
    "ttl", [lambda _: 0, lambda _: 1e99, lambda _: "soon", lambda value: value.nothing, lambda _: sys.exit()]
)
async def test_a_ttl_or_tags_that_cannot_be_had_do_not_lose_the_value(
    connect: Connect, ttl: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As any value that cannot be stored."""
    cache = await connect()

    @cache.view("by-value", ttl=ttl)
    async def by_value() -> int:
        return 7

    @cache.view("tagged", ttl="1m", tags=lambda value: [value.nothing])
    async def tagged() -> int:
        return 8

    assert [await by_value(), await by_value(), await tagged()] == [7, 7, 8]
    assert by_value.stats.uncacheable == 2
    assert len([record for record in caplog.records if "no ttl or tags for this value" in record.getMessage()]) == 2
