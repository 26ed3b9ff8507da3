"""Results of any function as plain data, and back: rows, decimals, dates and tuples stay what they are. Pure.

What plain data cannot say is a dict with one key that begins with '$'. Columns stay dictionary keys, so that the cache
sees their names and refuses those that must never be stored.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from sqlalchemy import Row, inspect
from sqlalchemy.engine import RowMapping
from sqlalchemy.orm import InstanceState

from cachebus import NotCacheable


class Record(tuple[Any, ...]):  # noqa: SLOT001 - a tuple cannot have a slot for its names
    """A row out of the cache. By name, by position, unpacked, compared: as the row was. Belongs to no session.

    A mapped object comes back as one too, with the columns that were loaded; what they lead to was not.
    """

    _fields: tuple[str, ...] = ()

    def __new__(cls, columns: Mapping[str, Any]) -> Self:
        """Return a record of *columns*, in their order."""
        record = super().__new__(cls, columns.values())
        object.__setattr__(record, "_fields", tuple(columns))
        return record

    def __getattr__(self, name: str) -> Any:
        try:
            return self[self._fields.index(name)]
        except ValueError:
            raise AttributeError(f"column {name!r} was not loaded; there are: {', '.join(self._fields)}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a cached record cannot be changed ({name!r}); change the row in the database")

    @property
    def _mapping(self) -> Mapping[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def _asdict(self) -> dict[str, Any]:
        return dict(self._mapping)

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{name}={value!r}' for name, value in self._mapping.items())})"


def to_plain(value: Any) -> Any:
    """Return *value* as plain data. Raises: NotCacheable for what would come back as something else."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is list:
        return [to_plain(item) for item in value]
    if kind is dict:
        plain = {name: to_plain(item) for name, item in value.items()}
        return {"$dict": plain} if any(type(name) is str and name.startswith("$") for name in value) else plain
    if kind in _WRITERS:
        mark, write = _WRITERS[kind]
        return {mark: write(value)}
    return _other(value)


def from_plain(plain: Any) -> Any:
    """Return what `to_plain` was given."""
    kind = type(plain)
    if kind is list:
        return [from_plain(item) for item in plain]
    if kind is not dict:
        return plain
    if len(plain) == 1:
        (mark, inner), *_ = plain.items()
        if type(mark) is str and mark in _READERS:
            return _READERS[mark](inner)
    return {name: from_plain(item) for name, item in plain.items()}


def _other(value: Any) -> Any:
    if isinstance(value, Record):
        return _record(value._fields, value)
    if isinstance(value, Row):
        return _record(value._fields, value)
    if isinstance(value, RowMapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    state = inspect(value, raiseerr=False)
    if isinstance(state, InstanceState):
        there = [c.key for c in state.mapper.column_attrs if c.key in state.dict or c.key in state.expired_attributes]
        return _record(there, (getattr(value, name) for name in there))
    if isinstance(value, str | int) and isinstance(value, enum.Enum):
        return to_plain(value.value)  # equal to its member
    if isinstance(value, list | tuple):  # what a query returns may call itself otherwise
        return to_plain(list(value)) if isinstance(value, list) else {"$tuple": [to_plain(item) for item in value]}
    raise NotCacheable(
        f"a {type(value).__name__} would come back as something else: annotate the function's return type, "
        "or return rows, lists, dicts, numbers and text"
    )


def _record(fields: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, item in zip(fields, values, strict=True):
        if name in columns:
            raise NotCacheable(f"two columns are named {name!r}: label one of them")
        columns[name] = to_plain(item)
    return {"$row": columns}


_AS_THEY_ARE = frozenset({type(None), bool, int, float, str, bytes})
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    tuple: ("$tuple", lambda items: [to_plain(item) for item in items]),
    set: ("$set", lambda items: [to_plain(item) for item in items]),
    frozenset: ("$frozenset", lambda items: [to_plain(item) for item in items]),
    decimal.Decimal: ("$decimal", str),
    datetime.datetime: ("$datetime", datetime.datetime.isoformat),
    datetime.date: ("$date", datetime.date.isoformat),
    datetime.time: ("$time", datetime.time.isoformat),
    datetime.timedelta: ("$timedelta", lambda span: [span.days, span.seconds, span.microseconds]),
    uuid.UUID: ("$uuid", str),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "$row": lambda columns: Record({name: from_plain(item) for name, item in columns.items()}),
    "$dict": lambda inner: {name: from_plain(item) for name, item in inner.items()},
    "$tuple": lambda items: tuple(map(from_plain, items)),
    "$set": lambda items: set(map(from_plain, items)),
    "$frozenset": lambda items: frozenset(map(from_plain, items)),
    "$decimal": decimal.Decimal,
    "$datetime": datetime.datetime.fromisoformat,
    "$date": datetime.date.fromisoformat,
    "$time": datetime.time.fromisoformat,
    "$timedelta": lambda parts: datetime.timedelta(*parts),
    "$uuid": uuid.UUID,
}
