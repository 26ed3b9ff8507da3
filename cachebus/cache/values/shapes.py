"""What a declared type is made of: its fields, whether its values can change, whether it says all there is. Pure."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Union, get_args, get_origin

import msgspec

from cachebus import foreign

_SCALARS = (
    *(int, float, bool, str, bytes, complex, type(None), decimal.Decimal, uuid.UUID, enum.Enum),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)
_CONTAINERS = (list, tuple, set, frozenset)


def is_immutable(declared: Any) -> bool:
    """Return whether no holder of a value of this type can change what others see."""
    origin = get_origin(declared)
    if origin is typing.Annotated:
        return is_immutable(get_args(declared)[0])
    if origin is typing.Literal or declared is None:
        return True
    if origin in (Union, types.UnionType, tuple, frozenset):
        return all(is_immutable(part) for part in get_args(declared) if part is not Ellipsis)
    return isinstance(declared, type) and _is_immutable_class(declared)


def _is_immutable_class(declared: type) -> bool:
    if foreign.is_model(declared):
        frozen = foreign.is_frozen_model(declared)
    elif issubclass(declared, msgspec.Struct):
        frozen = declared.__struct_config__.frozen
    elif dataclasses.is_dataclass(declared):
        frozen = declared.__dataclass_params__.frozen  # type: ignore[attr-defined] # only there
    else:
        return issubclass(declared, _SCALARS) or foreign.is_numpy_scalar(declared)
    return frozen and all(map(is_immutable, hints_of(declared).values()))


def is_own_class(kind: type) -> bool:
    """Return whether it is a class that is written by its fields or members: Struct, dataclass, model, Enum …"""
    return issubclass(kind, msgspec.Struct | enum.Enum) or dataclasses.is_dataclass(kind) or bool(fields_of(kind))


def fields_of(kind: type) -> tuple[tuple[str, str], ...]:
    """Return the fields of a Struct, dataclass, model, attrs class or NamedTuple: attribute, and name as stored."""
    return _fields_of(kind)


@lru_cache(maxsize=1024)
def _fields_of(kind: Any) -> tuple[tuple[str, str], ...]:
    if issubclass(kind, msgspec.Struct):
        return tuple((field.name, field.encode_name) for field in msgspec.structs.fields(kind))
    if foreign.is_model(kind):
        return foreign.stored_names(kind)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    elif issubclass(kind, tuple):
        names = list(getattr(kind, "_fields", ()))
    else:
        names = []
    return tuple((name, name) for name in names)


def names_in(declared: Any) -> set[str]:
    """Return every field name a value of this type may carry, at any depth, as written and as stored."""
    names: set[str] = set()
    for part in parts_of(declared):
        base = get_origin(part) or part
        if typing.is_typeddict(base):
            names.update(typing.get_type_hints(base))
        elif isinstance(base, type):
            names.update(name for field in fields_of(base) for name in field)
    return names


def says_all(declared: Any) -> bool:
    """Return whether the type names every field its values may carry: no `Any`, no dictionary, whose keys are data."""
    return all(map(_is_closed, parts_of(declared)))


def is_precise(declared: Any) -> bool:
    """Return whether the type says what each part of a value comes back as: no `Any`, no bare `list` or `dict`."""
    return not any(part in (Any, object, dict, *_CONTAINERS) for part in parts_of(declared))


def _is_closed(part: Any) -> bool:
    base = get_origin(part) or part
    if base in (None, Ellipsis, Union, types.UnionType, typing.Annotated, typing.Literal) or typing.is_typeddict(base):
        return True
    if base in _CONTAINERS:
        return bool(get_args(part))
    if not isinstance(base, type):
        return False
    if foreign.is_model(base):
        return not foreign.takes_extra(base)
    return issubclass(base, (*_SCALARS, msgspec.Struct)) or bool(fields_of(base)) or foreign.is_numpy_scalar(base)


def parts_of(declared: Any) -> Iterator[Any]:
    """Yield a type and everything it is made of, each once."""
    pending: list[Any] = [declared]
    seen: list[Any] = []
    while pending:
        part = pending.pop()
        if any(part is other or part == other for other in seen):
            continue
        seen.append(part)
        yield part
        origin = get_origin(part)
        if origin is typing.Annotated:
            pending.append(get_args(part)[0])
        elif origin is not typing.Literal:
            pending += get_args(part)
            pending += hints_of(origin or part).values()
        if (named := named_type(part)) is not None:
            pending.append(named)


def named_type(part: Any) -> Any:
    """Return the type behind a NewType or a `type` statement, None for others."""
    if isinstance(part, type | enum.Enum):
        return None
    return getattr(part, "__supertype__", None) or getattr(part, "__value__", None)


def hints_of(kind: Any) -> dict[str, Any]:
    """Return the types of a class's fields, by attribute."""
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, msgspec.Struct):
        return {field.name: field.type for field in msgspec.structs.fields(kind)}
    if foreign.is_model(kind):
        return {name: field.annotation for name, field in foreign.model_fields(kind).items()}
    if typing.is_typeddict(kind):
        return typing.get_type_hints(kind)
    names = {name for name, _ in fields_of(kind)}
    return {name: hint for name, hint in typing.get_type_hints(kind).items() if name in names} if names else {}
