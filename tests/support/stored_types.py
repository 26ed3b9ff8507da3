"""What views may return: each type with values of it, for the test that proves them and the page that lists them.

`python -m tests.support.stored_types` writes docs/reference/types.md.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType

import numpy as np
import pydantic
import pydantic.dataclasses
from hypothesis import strategies as st
from sqlalchemy import Row, RowMapping
from sqlalchemy.engine.result import SimpleResultMetaData

from tests.support import returned_classes as own

PAGE = Path(__file__).parents[2] / "docs/reference/types.md"


UserId = NewType("UserId", int)


class Stored(NamedTuple):
    """A type, as it is written, and values of it."""

    group: str
    name: str
    declared: Any
    values: st.SearchStrategy[Any]


INT = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOAT = st.floats(allow_nan=False)
DECIMAL = st.decimals(allow_nan=False)
AWARE = st.datetimes(
    timezones=st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30))])
)
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | FLOAT
    | TEXT
    | st.binary(max_size=8)
    | DECIMAL
    | AWARE
    | st.dates()
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)
ITEM = st.builds(own.Item, sku=TEXT, price=st.decimals(allow_nan=False, allow_infinity=False), at=st.none() | AWARE)
OTHER = st.builds(own.Other, sku=TEXT, price=st.decimals(allow_nan=False, allow_infinity=False))
ROW_COLUMNS = SimpleResultMetaData(["id", "name", "at"])


def row(*values: Any) -> Row[Any]:
    """Return a row as a query returns it."""
    return Row(ROW_COLUMNS, None, ROW_COLUMNS._key_to_index, values)


ROW = st.builds(row, INT, TEXT, st.none() | AWARE)


def _numpy(dtype: str) -> st.SearchStrategy[Any]:
    kind = np.dtype(dtype)
    return (
        st.binary(min_size=kind.itemsize, max_size=kind.itemsize)
        .map(lambda data: np.frombuffer(data, kind)[0])
        .filter(lambda value: not np.isnan(value))
    )


def _lists(name: str, declared: Any, values: st.SearchStrategy[Any]) -> list[Stored]:
    return [
        Stored("Containers", f"list[{name}]", list[declared], st.lists(values, max_size=3)),
        Stored("Containers", f"dict[str, {name}]", dict[str, declared], st.dictionaries(TEXT, values, max_size=3)),
        Stored("Unions", f"{name} | None", declared | None, st.none() | values),
    ]


SCALARS = [
    ("None", None, st.none()),
    ("bool", bool, st.booleans()),
    ("int", int, INT),
    ("float", float, FLOAT),
    ("complex", complex, st.complex_numbers(allow_nan=False)),
    ("str", str, TEXT),
    ("bytes", bytes, st.binary()),
    ("bytearray", bytearray, st.binary().map(bytearray)),
    ("Decimal", decimal.Decimal, DECIMAL),
    ("Fraction", fractions.Fraction, st.fractions()),
    ("UUID", uuid.UUID, st.uuids()),
    ("datetime", datetime.datetime, AWARE | st.datetimes()),
    ("date", datetime.date, st.dates()),
    ("time", datetime.time, st.times()),
    ("timedelta", datetime.timedelta, st.timedeltas()),
    (
        "timezone",
        datetime.timezone,
        st.integers(-1439, 1439).map(lambda m: datetime.timezone(datetime.timedelta(minutes=m))),
    ),
    ("ZoneInfo", zoneinfo.ZoneInfo, st.sampled_from(["Europe/Berlin", "UTC"]).map(zoneinfo.ZoneInfo)),
    ("range", range, st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3))),
    ("re.Pattern[str]", re.Pattern[str], st.sampled_from(["a+", "(?i)b", ""]).map(re.compile)),
    ("IPv4Address", ipaddress.IPv4Address, st.ip_addresses(v=4)),
    ("IPv6Address", ipaddress.IPv6Address, st.ip_addresses(v=6)),
    ("IPv4Interface", ipaddress.IPv4Interface, st.ip_addresses(v=4).map(lambda a: ipaddress.IPv4Interface(f"{a}/24"))),
    ("IPv6Interface", ipaddress.IPv6Interface, st.ip_addresses(v=6).map(lambda a: ipaddress.IPv6Interface(f"{a}/64"))),
    ("IPv4Network", ipaddress.IPv4Network, st.ip_addresses(v=4).map(ipaddress.IPv4Network)),
    ("IPv6Network", ipaddress.IPv6Network, st.ip_addresses(v=6).map(ipaddress.IPv6Network)),
    ("Path", pathlib.Path, st.sampled_from(["/a/b", "c"]).map(pathlib.Path)),
    ("PurePosixPath", pathlib.PurePosixPath, st.sampled_from(["/a/b", "c"]).map(pathlib.PurePosixPath)),
    ("PureWindowsPath", pathlib.PureWindowsPath, st.sampled_from(["C:\\a", "c"]).map(pathlib.PureWindowsPath)),
    ("Enum of text", own.Side, st.sampled_from(own.Side)),
    ("Enum of anything", own.Corner, st.sampled_from(own.Corner)),
    ("IntEnum", own.Level, st.sampled_from(own.Level)),
    ("StrEnum", own.Colour, st.sampled_from(own.Colour)),
    (
        "Flag",
        own.Rights,
        st.sampled_from([own.Rights.READ, own.Rights.WRITE, own.Rights.READ | own.Rights.WRITE, own.Rights(0)]),
    ),
    ("Literal", Literal["a", "b"], st.sampled_from(["a", "b"])),
    ("NewType", UserId, INT),
    ("Annotated", Annotated[int, "units"], INT),
]
MODELS = [
    ("BaseModel", own.Item, ITEM),
    ("… frozen", own.FrozenItem, st.builds(own.FrozenItem, sku=TEXT, sizes=st.lists(st.integers(0, 9)).map(tuple))),
    ("… with aliases", own.Aliased, INT.map(lambda n: own.Aliased(userId=n))),
    ("… strict", own.Strict, st.builds(own.Strict, day=st.dates(), side=st.sampled_from(own.Side))),
    ("… with extra fields", own.Open, st.builds(own.Open, n=INT, more=ANY)),
    (
        "… of models, unions of a date and text",
        own.Basket,
        st.builds(
            own.Basket,
            items=st.lists(ITEM, max_size=2),
            by_sku=st.dictionaries(TEXT, ITEM, max_size=2),
            day=st.dates() | st.just("2026-01-05"),
        ),
    ),
    (
        "… of what JSON cannot say",
        own.Everything,
        st.builds(
            own.Everything,
            f=FLOAT,
            b=st.binary(max_size=5),
            s=st.frozensets(st.integers(0, 9)),
            u=st.uuids(),
            t=st.timedeltas(),
            ip=st.ip_addresses(v=4),
            p=st.just(pathlib.Path("/a")),
            side=st.sampled_from(own.Side),
            data=ANY,
        ),
    ),
    ("… with URLs", own.Linked, st.sampled_from(["https://a.b/c", "redis://x"]).map(lambda url: own.Linked(url=url))),
    ("… of itself", own.Tree, st.builds(own.Tree, n=INT, children=st.lists(st.builds(own.Tree, n=INT), max_size=2))),
    (
        "… generic: Page[Item]",
        own.Page[own.Item],
        st.builds(own.Page[own.Item], items=st.lists(ITEM, max_size=2), total=st.integers(0, 9)),
    ),
    ("RootModel", own.Names, st.lists(TEXT).map(own.Names)),
    ("pydantic.dataclass", own.Point, st.builds(own.Point, x=INT, y=INT)),
    ("list[Item]", list[own.Item], st.lists(ITEM, max_size=3)),
    ("dict[str, Item]", dict[str, own.Item], st.dictionaries(TEXT, ITEM, max_size=3)),
    ("tuple[Item, ...]", tuple[own.Item, ...], st.lists(ITEM, max_size=3).map(tuple)),
    ("Item | None", own.Item | None, st.none() | ITEM),
    ("Item | Other, alike", own.Item | own.Other, ITEM | OTHER),
    ("Item | str", own.Item | str, ITEM | TEXT),
    ("list[Item | Other]", list[own.Item | own.Other], st.lists(ITEM | OTHER, max_size=3)),
    (
        "Annotated[Cat | Dog, discriminator]",
        Annotated[own.Cat | own.Dog, pydantic.Field(discriminator="kind")],
        st.builds(own.Cat, lives=INT) | st.builds(own.Dog, tricks=st.lists(TEXT, max_size=2)),
    ),
    (
        "a model in a Struct",
        own.Mixed,
        st.builds(own.Mixed, ITEM, st.lists(ITEM, max_size=2), st.none() | _numpy("f8")),
    ),
]
NUMPY = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)

TABLE: list[Stored] = [
    *(Stored("Python's own", *each) for each in SCALARS),
    *(each for name, declared, values in SCALARS[2:14:2] for each in _lists(name, declared, values)),
    Stored("Containers", "list", list, st.lists(ANY, max_size=3)),
    Stored("Containers", "list[Any]", list[Any], st.lists(ANY, max_size=3)),
    Stored(
        "Containers",
        "list[dict[str, Any]]",
        list[dict[str, Any]],
        st.lists(st.dictionaries(TEXT, ANY, max_size=3), max_size=3),
    ),
    Stored("Containers", "dict", dict, st.dictionaries(TEXT, ANY, max_size=3)),
    Stored("Containers", "dict[str, Any]", dict[str, Any], st.dictionaries(TEXT, ANY, max_size=3)),
    Stored(
        "Containers",
        "dict[date, Decimal]",
        dict[datetime.date, decimal.Decimal],
        st.dictionaries(st.dates(), DECIMAL, max_size=3),
    ),
    Stored("Containers", "dict[int, Any]", dict[int, Any], st.dictionaries(INT, ANY, max_size=3)),
    Stored(
        "Containers",
        "dict[IPv4Address, int]",
        dict[ipaddress.IPv4Address, int],
        st.dictionaries(st.ip_addresses(v=4), INT, max_size=2),
    ),
    Stored("Containers", "tuple[int, str]", tuple[int, str], st.tuples(INT, TEXT)),
    Stored("Containers", "tuple[Any, ...]", tuple[Any, ...], st.lists(ANY, max_size=3).map(tuple)),
    Stored("Containers", "tuple[date, Any]", tuple[datetime.date, Any], st.tuples(st.dates(), ANY)),
    Stored("Containers", "set[str]", set[str], st.sets(TEXT, max_size=3)),
    Stored("Containers", "frozenset[date]", frozenset[datetime.date], st.frozensets(st.dates(), max_size=3)),
    Stored("Containers", "Sequence[int]", Sequence[int], st.lists(INT, max_size=3)),
    Stored("Containers", "Mapping[str, int]", Mapping[str, int], st.dictionaries(TEXT, INT, max_size=3)),
    Stored("Containers", "Set[int]", AbstractSet[int], st.sets(INT, max_size=3)),
    Stored(
        "Containers",
        "deque[int]",
        collections.deque[int],
        st.lists(INT, max_size=3).map(lambda items: collections.deque(items, 5)),
    ),
    Stored(
        "Containers",
        "OrderedDict[str, int]",
        collections.OrderedDict[str, int],
        st.dictionaries(TEXT, INT).map(collections.OrderedDict),
    ),
    Stored("Containers", "Counter[str]", collections.Counter[str], st.lists(TEXT).map(collections.Counter)),
    Stored("Unions", "int | str | None", int | str | None, st.none() | INT | TEXT),
    Stored("Unions", "IPv4Address | IPv6Address", ipaddress.IPv4Address | ipaddress.IPv6Address, st.ip_addresses()),
    Stored("Unions", "date | str", datetime.date | str, st.dates() | st.just("2026-01-05")),
    Stored(
        "Unions",
        "list[int] | dict[str, Any]",
        list[int] | dict[str, Any],
        st.lists(INT, max_size=2) | st.dictionaries(TEXT, ANY, max_size=2),
    ),
    Stored("Unions", "Bid | Ask, tagged Structs", own.Bid | own.Ask, st.builds(own.Bid, INT) | st.builds(own.Ask, INT)),
    Stored(
        "Unions",
        "Price | Position",
        own.Price | own.Position,
        st.builds(own.Price, DECIMAL, AWARE) | st.builds(own.Position, TEXT, st.sets(INT, max_size=2)),
    ),
    Stored("Classes", "msgspec.Struct", own.Price, st.builds(own.Price, DECIMAL, AWARE)),
    Stored(
        "Classes",
        "… frozen, renamed",
        own.FrozenPrice,
        st.builds(own.FrozenPrice, DECIMAL, st.lists(INT, max_size=2).map(tuple)),
    ),
    Stored("Classes", "… as an array, with Any", own.Line, st.builds(own.Line, FLOAT, ANY)),
    Stored("Classes", "… generic: Box[date]", own.Box[datetime.date], st.builds(own.Box, st.dates())),
    Stored(
        "Classes", "… of itself", own.Node, st.builds(own.Node, ANY, st.lists(st.builds(own.Node, ANY), max_size=2))
    ),
    Stored("Classes", "dataclass", own.Position, st.builds(own.Position, TEXT, st.sets(INT, max_size=2))),
    Stored("Classes", "… frozen with slots, with Any", own.FrozenPosition, st.builds(own.FrozenPosition, TEXT, ANY)),
    Stored("Classes", "… generic: Holder[date]", own.Holder[datetime.date], st.builds(own.Holder, st.dates())),
    Stored("Classes", "attrs.define", own.Account, st.builds(own.Account, INT, st.none() | TEXT)),
    Stored(
        "Classes", "attrs.frozen", own.FrozenAccount, st.builds(own.FrozenAccount, INT, st.frozensets(TEXT, max_size=2))
    ),
    Stored("Classes", "NamedTuple, with Any", own.Range, st.builds(own.Range, INT, ANY)),
    Stored("Classes", "TypedDict", own.Movie, st.fixed_dictionaries({"title": TEXT, "year": INT})),
    Stored(
        "Classes", "… partial, with Any", own.Partial, st.fixed_dictionaries({}, optional={"title": TEXT, "data": ANY})
    ),
    Stored(
        "Classes",
        "list[Position]",
        list[own.Position],
        st.lists(st.builds(own.Position, TEXT, st.sets(INT, max_size=2)), max_size=2),
    ),
    *(Stored("Pydantic", *each) for each in MODELS),
    *(Stored("NumPy", f"numpy.{name}", getattr(np, name), _numpy(np.dtype(getattr(np, name)).str)) for name in NUMPY),
    Stored("NumPy", "numpy.bool_", np.bool_, st.booleans().map(np.bool_)),
    Stored("NumPy", "numpy.longdouble", np.longdouble, FLOAT.map(np.longdouble)),
    Stored("NumPy", "numpy.datetime64", np.datetime64, st.integers(0, 2**40).map(lambda n: np.datetime64(n, "us"))),
    Stored("NumPy", "numpy.timedelta64", np.timedelta64, st.integers(0, 2**40).map(lambda n: np.timedelta64(n, "ns"))),
    Stored("NumPy", "numpy.str_", np.str_, TEXT.filter(lambda text: not text.endswith("\0")).map(np.str_)),
    Stored("NumPy", "dict[str, numpy.float64]", dict[str, np.float64], st.dictionaries(TEXT, _numpy("f8"), max_size=2)),
    Stored("NumPy", "int64 | float64", np.int64 | np.float64, _numpy("i8") | _numpy("f8")),
    Stored("SQLAlchemy", "Row[Any]", Row[Any], ROW),
    Stored("SQLAlchemy", "list[Row[Any]]", list[Row[Any]], st.lists(ROW, max_size=3)),
    Stored(
        "SQLAlchemy",
        "Sequence[Row[tuple[int, str, datetime]]]",
        Sequence[Row[tuple[int, str, datetime.datetime]]],
        st.lists(ROW, max_size=3),
    ),
    Stored("SQLAlchemy", "Row[Any] | None", Row[Any] | None, st.none() | ROW),
    Stored("SQLAlchemy", "list[RowMapping]", list[RowMapping], st.lists(ROW.map(lambda r: r._mapping), max_size=2)),
    Stored("Not annotated", "Any: numbers, text, lists, dictionaries …", Any, ANY),
    Stored(
        "Not annotated",
        "Any: sets, large integers, NumPy scalars",
        Any,
        st.sets(INT, max_size=2) | st.integers(2**64, 2**80) | _numpy("f4"),
    ),
    Stored("Not annotated", "Any: rows", Any, st.lists(ROW, max_size=2)),
]


def page() -> str:
    """Return docs/reference/types.md: what is written there by hand, and the table."""
    by_hand = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    groups: dict[str, list[str]] = {}
    for each in TABLE:
        groups.setdefault(each.group, []).append(f"`{each.name}`" if "…" not in each.name else each.name)
    lines = [
        f"| {group} | {len(names)} | {', '.join(names).replace('|', chr(92) + '|')} |"
        for group, names in groups.items()
    ]
    return "\n".join([f"{by_hand}{MARK}", "", f"{len(TABLE)} types:", "", "| | | |", "|---|---|---|", *lines, ""])


MARK = "<!-- written by `python -m tests.support.stored_types` -->"

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
