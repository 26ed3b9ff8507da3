"""Values of a declared type as bytes, and back as that type. Pure.

msgspec reads and writes what it knows. What it does not know is written so that it says itself what it is
(`extensions`), and a Pydantic model by its own serialiser: both only where the type has such parts, so that the values
of most views are written and read by msgspec alone.
"""

from __future__ import annotations

import enum
import typing
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

import msgspec

from cachebus import foreign
from cachebus.cache.values.extensions import Labelled, ModelJson, SelfDescribing, labelled
from cachebus.cache.values.shapes import hints_of, named_type, parts_of
from cachebus.cache.values.writing import (
    CONTAINERS,
    EXTENDED,
    Anything,
    StandIn,
    Write,
    Writers,
    chosen,
    class_of,
    is_foreign_value,
)
from cachebus.errors import ConfigurationError

_ITEMS: dict[type, Callable[[Any, Any], Any]] = {
    deque: lambda items, checked: deque(checked, items.maxlen),
    OrderedDict: lambda _, checked: OrderedDict(checked),
    Counter: lambda _, checked: Counter(checked),
}
"""Containers that msgspec does not know: made again of items that were held to their declared types."""


class TypedValues:
    """How the values of one declared type become bytes, and come back as that type."""

    def __init__(self, declared: Any, what: str, values: SelfDescribing) -> None:
        """*what* names the view in errors. Raises: ConfigurationError naming the part that cannot be stored."""
        self._what = what
        self._values = values
        self._codecs = values.codecs
        self._writers = Writers(values)
        self._standins: list[type[StandIn]] = []
        parts = list(parts_of(declared))
        self.has_models = foreign.contains_model(parts)
        """Whether a Pydantic model's own serialiser and validator take part."""
        self._refuse_hopeless(parts)
        try:
            self._type = self._understood(declared, parts)
            self._decoder = msgspec.msgpack.Decoder(self._type, dec_hook=self._load, ext_hook=values.read)
            schema = msgspec.json.schema(self._type, schema_hook=self._described)
        except TypeError as unsupported:
            raise ConfigurationError(
                f"{what}: the type {_named(declared)} cannot be stored: {unsupported}; return {foreign.WAYS_OUT}"
            ) from None
        self.schema = msgspec.json.encode(schema, order="sorted")
        """What tells one version of the type from another."""
        self.decode: Callable[[bytes], Any] = self._decoder.decode
        self._write = self._writers.writer(self._type)
        self._encode = msgspec.msgpack.Encoder(decimal_format="string", enc_hook=self._writers.encode_other).encode

    def encode(self, value: Any) -> bytes:
        """Return *value* as bytes. Raises: TypeError, ValueError, OverflowError, RecursionError."""
        return self._encode(value if self._write is None else self._write(value))

    def convert(self, value: Any) -> Any:
        """Return a value that says itself what it is, held to this type. Raises: msgspec.ValidationError."""
        return msgspec.convert(value, self._type, dec_hook=self._load)

    # -- what the type is made of -----------------------------------------------------------------------------------

    def _refuse_hopeless(self, parts: Sequence[Any]) -> None:
        for part in parts:
            kind = get_origin(part) or part
            if kind in self._codecs:
                continue
            for name, hint in hints_of(kind).items():
                if any(map(foreign.is_secret, (hint, *get_args(hint)))):
                    raise ConfigurationError(
                        f"{self._what}: field {name!r} of {_named(part)} is a secret, which must never be cached; "
                        "leave it out"
                    )
            if foreign.is_hopeless(part):
                raise ConfigurationError(f"{self._what}: {_named(part)} cannot be stored: {foreign.way_out(part)}")
            if not foreign.is_model(kind):
                continue
            if lost := foreign.lost_field(kind):
                raise ConfigurationError(
                    f"{self._what}: field {lost!r} of {_named(part)} is left out when it is written "
                    "(exclude=True), and would be lost; return a model without it"
                )
            if kind.__module__.startswith("pydantic."):
                raise ConfigurationError(f"{self._what}: {_named(part)} has no fields; name the model that is returned")

    def _understood(self, declared: Any, parts: Iterable[Any]) -> Any:
        """Return the type as msgspec understands it, with stand-ins for what it does not."""
        if not any(isinstance(part, type) and issubclass(part, enum.Flag) for part in parts) and _is_understood(
            declared
        ):
            return declared
        return self._rebuilt(declared)

    def _rebuilt(self, declared: Any) -> Any:
        origin, args = get_origin(declared), get_args(declared)
        if origin is typing.Annotated:
            inner = self._rebuilt(args[0])
            return declared if inner is args[0] else inner
        if (behind := named_type(declared)) is not None:
            return declared if _is_understood(declared) else self._rebuilt(behind)
        if origin in (Union, UnionType):
            members = tuple(map(self._rebuilt, args))
            union: Any = Union.__getitem__(members)
            return union if _is_understood(union) else self._one_of(members, declared)
        if args and origin in CONTAINERS:
            return origin[tuple(part if part is Ellipsis else self._rebuilt(part) for part in args)]
        odd = isinstance(declared, type) and issubclass(declared, enum.Enum)
        return (
            self._enum(declared)
            if odd and (issubclass(declared, enum.Flag) or not _is_understood(declared))
            else declared
        )

    def _stand_in(self, declared: Any, write: Write, read: Callable[[Any], Any]) -> type[StandIn]:
        inside = {"write": staticmethod(write), "read": staticmethod(read), "declared": declared}
        standin: Any = Anything("StandIn", (StandIn,), inside)
        self._standins.append(standin)
        return cast("type[StandIn]", standin)

    def _one_of(self, members: Sequence[Any], declared: Any) -> type[StandIn]:
        """Stand in for a union that msgspec cannot tell apart: the member's number is written with the value.

        Raises: ConfigurationError where the class of a value does not tell its member; TypeError for a member that
        cannot be stored alone.
        """
        self._refuse_alike(members, declared)
        for member in members:
            msgspec.msgpack.Decoder(member)
        names = {str(at): member for at, member in enumerate(members)}
        names.update({getattr(get_origin(member) or member, "__name__", ""): member for member in members})

        def write(value: Any) -> Any:
            at = chosen(members, value)
            if at is None:
                raise TypeError(f"a {type(value).__name__} is not {_named(declared)}")
            writer = self._writers.writer(members[at])
            return labelled(str(at), value if writer is None else writer(value))

        def read(value: Any) -> Any:
            if not isinstance(value, Labelled):
                for member in members:
                    try:
                        return msgspec.convert(value, member, dec_hook=self._load)
                    except msgspec.ValidationError:
                        continue
                raise ValueError(f"it is not {_named(declared)}")
            state = value if foreign.is_model(names[value.name]) and not value.name.isdigit() else value.state
            return msgspec.convert(state, names[value.name], dec_hook=self._load)

        return self._stand_in(declared, write, read)

    def _refuse_alike(self, members: Sequence[Any], declared: Any) -> None:
        first: dict[Any, Any] = {}
        for member in members:
            base = class_of(member)
            if base in first:
                raise ConfigurationError(
                    f"{self._what}: the type {_named(declared)} cannot be stored: {_named(first[base])} and "
                    f"{_named(member)} are both a {_named(base)}, and nothing tells them apart; declare one that is "
                    "both, as list[int | str] is list[int] | list[str], or wrap each in a class of its own"
                )
            first[base] = member

    def _enum(self, kind: type[enum.Enum]) -> type[StandIn]:
        """Stand in for an enum whose values are neither text nor numbers, or whose members can be joined."""
        if issubclass(kind, enum.Flag):
            return self._stand_in(kind, lambda member: member.value if isinstance(member, kind) else member, kind)

        def read(name: Any) -> enum.Enum:
            try:
                return kind[name]
            except KeyError:
                raise ValueError(f"{name!r} is not a member of {kind.__name__}") from None

        return self._stand_in(kind, lambda member: member.name if isinstance(member, kind) else member, read)

    def _described(self, kind: Any) -> dict[str, Any]:
        """Describe a class that msgspec does not know. Raises: ConfigurationError where nobody does."""
        base = get_origin(kind) or kind
        if base in self._standins:
            return {"stand-in": repr(base.declared)}
        if foreign.is_model(base):
            return {"model": foreign.model_schema(base)} if base not in self._codecs else {"codec": repr(base)}
        if base in self._codecs or base in EXTENDED or base is object or is_foreign_value(base):
            return {"class": repr(kind)}
        fix = foreign.way_out(base) or f"return {foreign.WAYS_OUT}, or give the cache a codec for it (Cache(codecs=…))"
        raise ConfigurationError(f"{self._what}: the type {_named(kind)} cannot be stored: {fix}")

    # -- reading ----------------------------------------------------------------------------------------------------

    def _load(self, declared: Any, value: Any) -> Any:
        """Return an object of a class that msgspec does not know; it checks the class. Raises: ValueError."""
        kind = get_origin(declared) or declared
        if issubclass(kind, StandIn):
            return kind.read(value)
        if foreign.is_model(kind) and kind not in self._codecs:
            return _load_model(kind, value)
        items = _ITEMS.get(kind)
        if items is not None and isinstance(value, kind) and (args := get_args(declared)):
            inner = list[args[0]] if kind is deque else dict[args[0], args[1] if len(args) > 1 else int]  # type: ignore[valid-type, misc] # made at run time
            plain = list(value) if kind is deque else dict(value)
            return items(value, msgspec.convert(plain, inner, dec_hook=self._load))
        if foreign.is_numpy_scalar(kind) and type(value) in (bool, int, float, str):  # a key
            return kind(value)
        if not isinstance(value, kind):
            raise ValueError(f"Expected `{_named(kind)}`, got `{type(value).__name__}`")  # noqa: TRY004 - msgspec adds the place to this one
        return value


def _load_model(kind: Any, value: Any) -> Any:
    if isinstance(value, Labelled):
        if value.name != kind.__name__:
            raise ValueError(f"Expected `{kind.__name__}`, got `{value.name}`")
        value = value.state
    if isinstance(value, ModelJson):
        return foreign.load_model_json(kind, value.text)
    return foreign.load_model(kind, value)


def _is_understood(declared: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(declared)
    except TypeError:
        return False
    return True


def _named(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
