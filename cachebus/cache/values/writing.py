"""How values of a declared type are written where msgspec alone would lose something: by functions made of the type.

Pure. A part that msgspec writes exactly has no function; a type without such parts has none at all.
"""

from __future__ import annotations

import copy
import enum
import functools
import pathlib
import typing
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from cachebus import foreign
from cachebus.cache.values.extensions import ATOMS, EXTENSIONS, SelfDescribing, is_key, labelled, model_json
from cachebus.cache.values.shapes import fields_of, hints_of, is_own_class, named_type

Write = Callable[[Any], Any]
"""From a value to what MessagePack writes."""

_NATIVE = frozenset({*ATOMS, int, *(EXTENSIONS[code].kind for code in (20, 21, 24, 30, 31, 32, 33))})
"""Scalars that msgspec reads and writes itself, where their type is declared."""
_MANY = (list, tuple, set, frozenset)
_DICTS = (dict, Mapping)
CONTAINERS = (*_MANY, Sequence, AbstractSet, *_DICTS)
EXTENDED = {*(extension.kind for extension in EXTENSIONS.values()), pathlib.Path, pathlib.PurePath} - {
    *_NATIVE,
    *_MANY,
}


class Anything(type):
    """Whatever a stand-in's reader returns will do: msgspec asks whether it is an instance of the stand-in."""

    def __instancecheck__(cls, _: object) -> bool:
        return True


class StandIn(metaclass=Anything):
    """The place of a part that msgspec has no name for. A class of its own for each, as msgspec tells them by class."""

    write: Write
    read: Callable[[Any], Any]
    declared: Any


class Writers:
    """Makes the functions, and keeps them by type."""

    def __init__(self, values: SelfDescribing) -> None:
        self._values = values
        self._codecs = values.codecs
        self._made: dict[Any, Write | None] = {}

    def writer(self, declared: Any) -> Write | None:
        """Return how values of a type are written; None where msgspec does it alone."""
        try:
            if declared in self._made:
                return self._made[declared]
        except TypeError:  # what is not hashable, such as Annotated of a list
            return self._made_writer(declared)
        later: list[Write | None] = [None]
        self._made[declared] = lambda value: (
            value if later[0] is None else later[0](value)
        )  # for types that hold themselves
        later[0] = self._made[declared] = self._made_writer(declared)
        return later[0]

    def _made_writer(self, declared: Any) -> Write | None:
        origin, args = get_origin(declared), get_args(declared)
        kind = origin or declared
        behind = args[0] if origin is typing.Annotated else named_type(declared)
        if behind is not None:
            return self.writer(behind)
        if origin in (Union, UnionType):
            return self._union_writer(args)
        if declared in (Any, object) or isinstance(declared, TypeVar):
            return self._values.write
        return self._class_writer(kind, args) if isinstance(kind, type) else None

    def _class_writer(self, kind: Any, args: Sequence[Any]) -> Write | None:
        if issubclass(kind, StandIn):
            write: Write = kind.write
            return write
        if kind in self._codecs or kind in EXTENDED or is_foreign_value(kind):
            return self._values.write
        if foreign.is_model(kind):
            return functools.partial(self._model_state, kind)
        if kind in CONTAINERS:
            return (
                self._dict_writer(*(args or (Any, Any))) if kind in _DICTS else self._items_writer(args or (Any, ...))
            )
        hints = {name: _bound(hint, kind, args) for name, hint in hints_of(kind).items()}
        writers = {name: writer for name, hint in hints.items() if (writer := self.writer(hint)) is not None}
        return functools.partial(_write_fields, kind, writers) if writers else None

    def _union_writer(self, members: Sequence[Any]) -> Write | None:
        writers = [self.writer(member) for member in members]
        if not any(writers):
            return None

        def write(value: Any) -> Any:
            at = chosen(members, value)
            writer = writers[at] if at is not None else None
            return value if writer is None else writer(value)

        return write

    def _dict_writer(self, key: Any, item: Any) -> Write | None:
        write, any_key = self.writer(item), key in (Any, object) or isinstance(key, TypeVar)
        if write is None and not any_key:
            return None  # keys cannot be extensions before they are encoded: see `encode_other`

        def write_items(value: Any) -> Any:
            if not isinstance(value, Mapping):
                return value
            if any_key and (odd := next((name for name in value if not is_key(name)), None)) is not None:
                raise TypeError(f"a {type(odd).__name__} as a key would come back as something else: declare its type")
            return dict(value) if write is None else {name: write(each) for name, each in value.items()}

        return write_items

    def _items_writer(self, args: Sequence[Any]) -> Write | None:
        if len(args) > 1 and args[-1] is not Ellipsis:
            writers = [self.writer(arg) for arg in args]
            if not any(writers):
                return None
            return lambda value: (
                [each if write is None else write(each) for write, each in zip(writers, value, strict=True)]
                if isinstance(value, _MANY)
                else value
            )
        write = self.writer(args[0]) if args else None
        if write is None:
            return None
        return lambda value: (
            [write(each) for each in value] if isinstance(value, (*_MANY, Sequence, AbstractSet)) else value
        )

    def encode_other(self, value: Any) -> Any:
        """Write what no writer saw: keys of dictionaries, and NumPy numbers in the place of Python's."""
        kind = type(value)
        if foreign.is_numpy_scalar(kind):
            return value.item()
        if kind in EXTENDED or kind in self._codecs:
            return self._values.write(value)
        raise TypeError(f"a {kind.__name__} would come back as something else")

    def _model_state(self, kind: type, value: Any) -> Any:
        """Return a model by its own serialiser, as Python's own types where it can be, else as its JSON."""
        if not foreign.is_strict_model(kind):
            try:
                return self._values.write(foreign.dump_model(kind, value), _member_value)
            except TypeError:  # it holds what only its own JSON can say, such as a URL
                pass
        return model_json(foreign.dump_model_json(kind, value))

    def by_value(self, value: Any) -> Any:
        """Return what `Sealed` holds of a value whose type nobody declared: objects by their own classes."""
        kind = type(value)
        if kind in _NATIVE:
            return value
        if kind in _MANY:
            return [self.by_value(item) for item in value]
        if kind is dict:
            return {self.by_value(name): self.by_value(item) for name, item in value.items()}
        if foreign.is_model(kind) and kind not in self._codecs:
            return labelled(kind.__name__, self._model_state(kind, value))
        if is_own_class(kind):
            writer = self.writer(kind)
            return value if writer is None else writer(value)
        return self._values.write(value)


def _write_fields(kind: Any, writers: Mapping[str, Write], value: Any) -> Any:
    """Return an object of the same class whose fields are written already: names, tags and order stay msgspec's."""
    if typing.is_typeddict(kind):
        if not isinstance(value, dict):
            return value
        return {name: writers[name](item) if name in writers else item for name, item in value.items()}
    if not isinstance(value, kind):
        return value
    if issubclass(kind, tuple):
        return [
            writers[name](item) if name in writers else item
            for (name, _), item in zip(fields_of(kind), value, strict=True)
        ]
    written = copy.copy(value)
    set_field = msgspec.structs.force_setattr if isinstance(value, msgspec.Struct) else object.__setattr__
    for name, write in writers.items():
        item = getattr(value, name)
        if item is not msgspec.UNSET:
            set_field(written, name, write(item))
    return written


def chosen(members: Sequence[Any], value: Any) -> int | None:
    """Return which member of a union a value is: by its very class first, then by what that inherits."""
    bases = [class_of(member) for member in members]
    kind = type(value)
    for at, base in enumerate(bases):
        if base is kind:
            return at
    for at, base in enumerate(bases):
        if base in (Any, object) or (isinstance(base, type) and isinstance(value, base)):
            return at
    return None


def class_of(member: Any) -> Any:
    """Return the class that values of a union's member have; of a stand-in, what it stands for."""
    while get_origin(member) is typing.Annotated or named_type(member) is not None:
        member = get_args(member)[0] if get_origin(member) is typing.Annotated else named_type(member)
    if member is None:
        return type(None)
    base = get_origin(member) or member
    if base is typing.Literal:
        return type(get_args(member)[0])
    if isinstance(base, type) and issubclass(base, StandIn):
        return base.declared
    return dict if typing.is_typeddict(base) else base


def _bound(hint: Any, kind: Any, args: Sequence[Any]) -> Any:
    """Return the type of a generic class's field, with its arguments in the place of type variables."""
    bound = dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))
    if isinstance(hint, TypeVar):
        return bound.get(hint, Any)
    free = getattr(hint, "__parameters__", ()) if get_origin(hint) is not None else ()
    return hint[tuple(bound.get(each, Any) for each in free)] if free else hint


def _member_value(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"a {type(value).__name__} is written by its model only")


def is_foreign_value(kind: Any) -> bool:
    return isinstance(kind, type) and (
        foreign.is_numpy_scalar(kind) or foreign.is_row(kind) or foreign.is_row_mapping(kind)
    )
