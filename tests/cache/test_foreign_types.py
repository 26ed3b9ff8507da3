"""Classes of other libraries: what is refused when a view is declared, what is never stored, what is shared."""

from __future__ import annotations

import dataclasses
import enum
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd
import pydantic
import pydantic.dataclasses
import pytest
from sqlalchemy import Integer, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cachebus import Bus, Cache, ConfigurationError, NotCacheable, PublishRefused, on
from cachebus.cache.view import View
from tests.conftest import Connect


class Table(DeclarativeBase):
    """The tables."""


class User(Table):
    """A mapped class."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)


class Item(pydantic.BaseModel):
    """A model."""

    sku: str
    price: Decimal = Decimal(1)


class StoredItem(Item):
    """What the database has beside what is shown."""

    password: str = "secret"  # noqa: S105 - one that opens nothing


class Frozen(pydantic.BaseModel):
    """A model that is shared."""

    model_config = pydantic.ConfigDict(frozen=True)
    sku: str
    sizes: tuple[int, ...] = ()


class Login(pydantic.BaseModel):
    """Holds what must not be stored."""

    word: pydantic.SecretStr


class Renamed(pydantic.BaseModel):
    """Holds it under another name."""

    shown: str = pydantic.Field(alias="apiKey")


class Open(pydantic.BaseModel):
    """Holds whatever it is given."""

    model_config = pydantic.ConfigDict(extra="allow")
    data: Any = None


class Hiding(pydantic.BaseModel):
    """Leaves a field out."""

    n: int = pydantic.Field(exclude=True)


class Holding(pydantic.BaseModel):
    """Holds an object of a session."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    user: User


class Opaque:
    """A class that says nothing of itself."""


@dataclasses.dataclass
class Keeps:
    """A dataclass with one of them."""

    inner: list[Opaque]


@pydantic.dataclasses.dataclass
class Secretive:
    """A Pydantic dataclass."""

    word: pydantic.SecretStr


def declared(cache: Cache, kind: Any, value: Any = None) -> View[[], Any]:
    """Return a view of this type."""

    async def view() -> Any:
        return value

    view.__annotations__["return"] = kind
    return cache.view(f"view{len(cache.views)}", ttl="1m")(view)


class A(pydantic.BaseModel):
    """Like another."""

    n: int


class B(pydantic.BaseModel):
    """Like another."""

    n: int


class Mixed(enum.Enum):
    """Its values are of two kinds."""

    ONE = 1
    TWO = "two"


@dataclasses.dataclass
class Marked:
    """Holds one."""

    mark: Mixed


REFUSED: dict[str, tuple[Any, str]] = {
    "mapped": (User, "User is mapped to a table.*select its columns.*from_attributes"),
    "a list of mapped": (list[User], "User is mapped to a table"),
    "mapped in a model": (Holding, "User is mapped to a table"),
    "a secret": (Login, "field 'word' of Login is a secret"),
    "a secret in a union": (list[Login | None], "field 'word' of Login is a secret"),
    "a secret in a dataclass": (Secretive, "field 'word' of Secretive is a secret"),
    "an alias": (Renamed, "'apiKey' of the return type must never be cached"),
    "an excluded field": (Hiding, "field 'n' of Hiding is left out when it is written"),
    "no model in particular": (pydantic.BaseModel, "name the model"),
    "a class": (Opaque, "Opaque cannot be stored: return a msgspec.Struct.*codec"),
    "a class in a dataclass": (Keeps, "Opaque cannot be stored: return a msgspec.Struct"),
    "an iterator": (Iterator[int], "Iterator.*cannot be stored.*return a list"),
    "an iterable": (Iterable[int], "Iterable.*cannot be stored.*return a list"),
    "an async iterator": (AsyncIterator[int], "return a list"),
    "an awaitable": (Awaitable[int], "await it first"),
    "a frame": (pd.DataFrame, "DataFrame cannot be stored.*to_dict.*codec"),
    "an array": (np.ndarray, "ndarray cannot be stored.*tolist.*codec"),
    "lists of two kinds": (list[int] | list[str], r"list\[int\] and list\[str\] are both a list, and nothing tells"),
    "dictionaries of two kinds": (list[dict[str, int] | dict[str, A]], "are both a dict"),
    "lists of models": (list[A] | list[B] | None, "are both a list"),
    "a mixed enum in a dataclass": (Marked, "the type Marked cannot be stored: Enums must contain either"),
    "a mixed enum in a union": (Marked | None, r"Marked \| None cannot be stored: Enums must contain either"),
    "an exception": (ValueError, "ValueError cannot be stored"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_come_back_is_refused_when_it_is_declared(what: str) -> None:
    """The message names the view, the type and the ways out."""
    kind, message = REFUSED[what]
    with pytest.raises(ConfigurationError, match=f"view 'view0'.*{message}"):
        declared(Cache.memory(), kind)


async def test_a_subclass_of_a_model_is_stored_as_what_was_declared(connect: Connect) -> None:
    """As a `response_model` does it: what the subclass adds reaches nobody, and is no reason to refuse."""
    view = declared(await connect(), list[Item], [StoredItem(sku="a")])
    for _ in range(2):
        (item,) = await view()
        assert type(item) is Item
    assert (view.stats.loads, view.stats.uncacheable) == (1, 0)


@pytest.mark.parametrize("value", [Open(token="x"), Open(data={"password": "x"}), Open(data=pydantic.SecretStr("x"))])  # noqa: S106 - open nothing
async def test_what_a_model_does_not_name_is_looked_into(value: Any) -> None:
    """Fields beside those it names, and what `Any` holds: served, not stored."""
    async with Cache.memory() as cache:
        view = declared(cache, Open, value)
        assert await view() == value
        assert view.stats.uncacheable == 1


async def test_a_frozen_model_is_shared_and_others_are_not() -> None:
    """One object for everybody, where nobody can change it."""
    async with Cache.memory() as cache:
        frozen, plain = declared(cache, Frozen, Frozen(sku="a")), declared(cache, Item, Item(sku="a"))
        assert await frozen() is await frozen()
        assert (await plain()) is not (await plain())


class Counted(pydantic.BaseModel):
    """A model whose validator is no check but a calculation."""

    n: int

    @pydantic.field_validator("n")
    @classmethod
    def _more(cls, n: int) -> int:
        return n + 1


class Either(pydantic.BaseModel):
    """Cannot tell its members apart."""

    one: A | B


@pytest.mark.parametrize(("value", "place"), [(Counted(n=1), r"\$\.n"), (Either(one=B(n=1)), r"\$\.one")])
async def test_what_its_own_validator_changes_is_served_and_not_stored(
    value: Any, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says where."""
    async with Cache.memory() as cache:
        view = declared(cache, type(value), value)
        assert await view() is value
        assert view.stats.uncacheable == 1
    (warning,) = [record.getMessage() for record in caplog.records if "not stored" in record.getMessage()]
    assert re.search(place, warning)


async def test_a_model_as_a_plain_value_comes_back_to_who_names_it(connect: Connect) -> None:
    """As any class of one's own."""
    one, two = await connect(), await connect()
    await one.set("item", [Item(sku="a"), Item(sku="b")])
    assert await two.get("item", type=list[Item]) == [Item(sku="a"), Item(sku="b")]
    with pytest.raises(ConfigurationError, match="say type="):
        await two.get("item")


async def test_rows_of_a_query_come_back_as_rows(connect: Connect) -> None:
    """By name and by position, un-annotated; a column that must not be stored is refused."""
    one, two = await connect(), await connect()
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT 1 AS id, 'AAPL' AS symbol")).all()
        secret = connection.execute(text("SELECT 'x' AS password")).all()
    engine.dispose()
    await one.set("rows", rows)
    (row,) = await two.get("rows")
    assert (row.symbol, row[0], row._mapping["id"]) == ("AAPL", 1, 1)
    with pytest.raises(NotCacheable, match="password"):
        await one.set("rows", secret)
    with pytest.raises(NotCacheable, match="User is mapped to a table"):
        await one.set("user", [User(id=1)])


class Money:
    """A class of somebody else's."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment] # not hashable


class Invoice(msgspec.Struct):
    """Holds one."""

    total: Money
    more: Any = None


async def test_a_codec_brings_the_rest(connect: Connect) -> None:
    """Declared, within a Struct, in the place of Any, and as a plain value."""
    cache = Cache.memory(codecs={Money: (lambda money: money.cents, Money), np.ndarray: (np.ndarray.tolist, np.array)})
    async with cache:
        for kind, value in (
            (Money, Money(1)),
            (list[Money | None], [None, Money(2)]),
            (Invoice, Invoice(Money(3), {"net": Money(2)})),
            (Any, {"net": Money(2)}),
        ):
            view = declared(cache, kind, value)
            assert [await view(), await view()] == [value, value]
            assert view.stats.loads == 1
        await cache.set("money", Money(7))
        assert await cache.get("money") == Money(7)
        curve = declared(cache, np.ndarray, np.arange(3))
        assert [list(await curve()), list(await curve())] == [[0, 1, 2], [0, 1, 2]]


def broken(_: object) -> Any:
    """Stand for a codec, or a model's own serialiser, with a mistake in it."""
    raise LookupError("a mistake")


@pytest.mark.parametrize("codec", [(broken, Money), (lambda money: money.cents, broken)], ids=["writing", "reading"])
@pytest.mark.parametrize("kind", [Money, Any])
async def test_a_codec_that_fails_costs_nobody_the_value(codec: Any, kind: Any) -> None:
    """What was loaded is served, uncached, and told once: whatever the codec raises."""
    async with Cache.memory(codecs={Money: codec}) as cache:
        view = declared(cache, kind, Money(1))
        assert [await view(), await view()] == [Money(1), Money(1)]
        assert (view.stats.loads, view.stats.uncacheable) == (2, 2)


async def test_a_numpy_number_becomes_what_is_declared() -> None:
    """`-> float` of what pandas calculates is a float."""
    async with Cache.memory() as cache:
        view = declared(cache, dict[str, float], {"a": np.float64(1.5), "b": np.int64(2)})
        for _ in range(2):
            assert await view() == {"a": 1.5, "b": 2.0}
            assert {type(item) for item in (await view()).values()} == {float}


async def test_a_type_that_changed_does_not_read_what_was_stored(connect: Connect) -> None:
    """The fingerprint is made of a model's schema, its rules included."""
    cache = await connect()

    def model(kind: Any) -> Any:
        return pydantic.create_model("Thing", n=(kind, ...))

    prints = [
        declared(cache, model(kind)).fingerprint for kind in (int, str, Annotated[int, pydantic.Field(gt=3)], int)
    ]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]


class Odd(enum.Enum):
    """Neither text nor numbers."""

    ONE = (1, 2)


async def test_bytes_nobody_sent_are_a_miss() -> None:
    """Whatever lies there, a model is never made of it unless its validator agrees."""
    async with Cache.memory() as cache:
        codec = declared(cache, list[Item | Odd]).codec
        extensions = (b"\x91\xc7\x05\x03\x92\xa11\xa1x", b"\x91\xc7\x01\x07x", b"\xc7\x02\x05ab")
        for payload in (b"\x91\x81\xa3sku\x01", *extensions, b"x", b""):
            with pytest.raises(msgspec.DecodeError):
                codec.decode(payload)


async def test_a_pydantic_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model is declared, and where one is published: 2.10 has no validators by name and alias."""
    cache = Cache.memory()

    async def view(n: int) -> list[Item]:
        return [Item(sku=str(n))]

    monkeypatch.setattr(pydantic, "VERSION", "2.10.6")
    said = r"Pydantic 2\.10\.6 is too old for models to be stored or sent; upgrade it to 2\.11"
    for declare in (lambda: cache.view("old:{n}", ttl="1m")(view), lambda: on("trade:old", Item)(view)):
        with pytest.raises(ConfigurationError, match=said):
            declare()
    with pytest.raises(PublishRefused, match=f"^event: Item cannot become JSON: {said}"):
        await Bus(cache).publish("trade:old", Item(sku="a"))
    base = type("BaseModel", (), {"__module__": "pydantic.main"})
    first = type("First", (base,), {})
    view.__annotations__["return"] = first
    for declare in (lambda: cache.view("first:{n}", ttl="1m")(view), lambda: on("trade:first", first)(view)):
        with pytest.raises(ConfigurationError, match=r"First is a model of Pydantic 1; make it one of Pydantic 2\.11"):
            declare()


def test_a_program_without_these_libraries_needs_none_of_them() -> None:
    """A view, a plain value and an event, where none of them is installed."""
    program = """
import asyncio, dataclasses, sys
for name in ("pydantic", "pydantic_core", "attr", "attrs", "numpy", "pandas", "sqlalchemy"):
    sys.modules[name] = None

from cachebus import Bus, Cache, on

@dataclasses.dataclass
class Item:
    sku: str

async def main():
    async with Cache.memory() as cache:
        @cache.view("items:{n}", ttl="1m")
        async def items(n: int) -> list[Item]:
            return [Item(str(n))]
        assert await items(1) == await items(1) == [Item("1")]
        await cache.set("item", Item("2"))
        assert await cache.get("item", type=Item) == Item("2")
        on("items", Item)(lambda event: None)
        await Bus(cache).publish("items", Item("3"))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
