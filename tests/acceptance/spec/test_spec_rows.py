"""What a cached function returns comes back as it was: rows as rows, decimals as decimals, or not at all."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy import Numeric, Row, String, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from cachebus import NotCacheable


class Base(DeclarativeBase):
    """Tables of these tests."""


class Order(Base):
    """A mapped class with what JSON does not know."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[decimal.Decimal] = mapped_column(Numeric(10, 2))
    at: Mapped[datetime.datetime]
    day: Mapped[datetime.date]
    note: Mapped[str | None] = mapped_column(String(20))


class Person(Base):
    """A mapped class with a column that must never be cached."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


@pytest.fixture
def db() -> Iterator[Session]:
    """A database with two orders and a person."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        at = datetime.datetime(2026, 1, 31, 12, 30, 1, 5)
        orders = [Order(id=n, price=decimal.Decimal("10.50") * n, at=at, day=at.date(), note=None) for n in (1, 2)]
        session.add_all([*orders, Person(id=1, email="a@example.org")])
        session.commit()
        yield session
    engine.dispose()


def test_rows_come_back_as_rows(caching: SimpleNamespace, db: Session) -> None:
    """By name, by position, unpacked and compared; decimals, times and dates stay what they are."""

    @caching.query_cache.cache_query(ttl=60)
    def orders() -> list:  # type: ignore[type-arg] # as people write it
        return db.execute(select(Order.id, Order.price, Order.at, Order.day, Order.note).order_by(Order.id)).all()

    source = orders.__wrapped__()
    for cached in (orders(), orders()):
        assert cached == source
        first = cached[0]
        assert (first.id, first.price, first.at) == (source[0].id, source[0].price, source[0].at)
        assert type(first.price) is decimal.Decimal
        assert first._mapping["day"] == source[0].day
        number, *_ = first
        assert number == first[0] == 1
        assert first._asdict() == source[0]._asdict()
    with pytest.raises(AttributeError, match="column 'total' was not loaded"):
        _ = orders()[0].total
    with pytest.raises(AttributeError, match="cannot be changed"):
        orders()[0].price = 1


def test_mapped_objects_come_back_as_records_of_their_columns(caching: SimpleNamespace, db: Session) -> None:
    """Also inside rows, also after the session has expired them, and on the first call as on every other."""

    @caching.query_cache.cache_query(ttl=60)
    def orders() -> list[Order]:
        return db.query(Order).order_by(Order.id).all()

    @caching.query_cache.cache_query(ttl=60)
    def pairs() -> Sequence[Row[Any]]:
        return db.execute(select(Order, Order.id).order_by(Order.id)).all()

    @caching.query_cache.cache_query(ttl=60)
    def one(order_id: int) -> Order | None:
        order = db.get(Order, order_id)
        db.commit()  # expires every object of the session
        return order

    for _ in range(2):
        assert [(order.id, order.price) for order in orders()] == [(1, decimal.Decimal("10.50")), (2, 21)]
        assert pairs()[0].Order.price == decimal.Decimal("10.50")
        assert one(2).day == datetime.date(2026, 1, 31)
        assert one(3) is None


def test_columns_that_must_never_be_cached_are_not_stored(
    caching: SimpleNamespace, db: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """A row's columns are seen by name, whatever form it is stored in; the warning names the column."""

    @caching.query_cache.cache_query(ttl=60)
    def people() -> Any:
        return db.query(Person).all()

    @caching.query_cache.cache_query(ttl=60)
    def emails() -> Any:
        return db.execute(select(Person.email)).all()

    for query in (people, emails):
        assert query()
    warnings = [record.getMessage() for record in caplog.records if "served and not stored" in record.getMessage()]
    assert [("'email'" in line) for line in warnings] == [True, True]
    assert caching.redis_client.keys("*:e2:*") == [
        key for key in caching.redis_client.keys("*:e2:*") if "people" not in key and "emails" not in key
    ]


def test_two_columns_of_one_name_are_refused(caching: SimpleNamespace, db: Session) -> None:
    """One would hide the other; the message says what to do."""

    @caching.query_cache.cache_query(ttl=60)
    def twice() -> Any:
        return db.execute(text("SELECT 1 AS id, 2 AS id")).all()

    with pytest.raises(NotCacheable, match="two columns are named 'id': label one"):
        twice()


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "x", b"y"]},
        (1, (2, 3)),
        {"$row": 1},
        {"$tuple": {"$dict": {}}},
        [{"a": {1, 2}}, frozenset({3})],
        {1: "one", 2: "two"},
        {"when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "at": datetime.time(1, 2), "id": uuid.UUID(int=5)},
        datetime.timedelta(days=-1, microseconds=7),
        decimal.Decimal("1.10"),
        [],
        "",
        None,
    ],
)
def test_values_come_back_as_they_were(caching: SimpleNamespace, value: Any) -> None:
    """From a function and from the manager, of the same types, also where they look like our own marks."""

    @caching.cache_response(ttl=60)
    def function() -> Any:
        return value

    caching.cache_manager.set("value", value, ttl=60)
    for back in (function(), function(), caching.cache_manager.get("value")):
        assert back == value
        assert type(back) is type(value)


def test_a_value_that_would_come_back_as_something_else_is_refused(caching: SimpleNamespace) -> None:
    """Unless the function says its type: then it comes back as that."""

    class Figure(msgspec.Struct, frozen=True):
        value: int

    @caching.cache_response(ttl=60)
    def untyped() -> Any:
        return Figure(1)

    def typed() -> Any:
        return Figure(1)

    typed.__annotations__["return"] = Figure  # of this test alone, so not to be found by name
    with pytest.raises(NotCacheable, match="annotate the function's return type"):
        untyped()
    cached = caching.cache_response(ttl=60)(typed)
    assert cached() == cached() == Figure(1)
