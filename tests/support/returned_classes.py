"""Classes as people return them from views, for the table of `stored_types`."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import uuid
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import numpy as np
import pydantic
import pydantic.dataclasses

T = TypeVar("T")


class Side(enum.Enum):
    BUY = "buy"
    SELL = "sell"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Colour(enum.StrEnum):
    RED = "red"


class Corner(enum.Enum):
    LEFT = (0, 1)
    RIGHT = (1, 0)


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Price(msgspec.Struct):
    amount: decimal.Decimal
    at: datetime.datetime


class FrozenPrice(msgspec.Struct, frozen=True, rename="camel"):
    last_price: decimal.Decimal
    sizes: tuple[int, ...] = ()


class Bid(msgspec.Struct, tag=True):
    n: int


class Ask(msgspec.Struct, tag=True):
    n: int


class Line(msgspec.Struct, array_like=True):
    x: float
    note: Any = None


class Box(msgspec.Struct, Generic[T]):
    item: T


class Node(msgspec.Struct):
    value: Any
    children: list[Node] = []


@dataclasses.dataclass
class Position:
    symbol: str
    sizes: set[int]


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenPosition:
    symbol: str
    extra: Any = None


@dataclasses.dataclass
class Holder(Generic[T]):
    item: T


@attrs.define
class Account:
    number: int
    owner: str | None = None


@attrs.frozen
class FrozenAccount:
    number: int
    tags: frozenset[str] = frozenset()


class Range(NamedTuple):
    low: int
    high: Any


class Movie(TypedDict):
    title: str
    year: int


class Partial(TypedDict, total=False):
    title: str
    data: Any


class Item(pydantic.BaseModel):
    sku: str
    price: decimal.Decimal
    at: datetime.datetime | None = None


class Other(pydantic.BaseModel):
    sku: str
    price: decimal.Decimal


class FrozenItem(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    sku: str
    sizes: tuple[int, ...] = ()


class Aliased(pydantic.BaseModel):
    user_id: int = pydantic.Field(alias="userId")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    day: datetime.date
    side: Side


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    n: int


class Basket(pydantic.BaseModel):
    items: list[Item]
    by_sku: dict[str, Item] = {}
    day: datetime.date | str = ""


class Everything(pydantic.BaseModel):
    f: float
    b: bytes
    s: set[int]
    u: uuid.UUID
    t: datetime.timedelta
    ip: ipaddress.IPv4Address
    p: pathlib.Path
    side: Side
    data: Any


class Linked(pydantic.BaseModel):
    url: pydantic.AnyUrl


class Tree(pydantic.BaseModel):
    n: int
    children: list[Tree] = []


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str]


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]
    total: int


class Names(pydantic.RootModel[list[str]]):
    pass


@pydantic.dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Mixed(msgspec.Struct):
    item: Item
    others: list[Item] = []
    weight: np.float64 | None = None
