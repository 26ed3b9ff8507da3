"""Classes of other libraries: Pydantic models, NumPy scalars, rows. Known by what they have; none is imported here.

What a program never loaded costs nothing, and is no dependency.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import sys
import typing
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, get_args, get_origin

import msgspec

from cachebus.errors import ConfigurationError

OLDEST_PYDANTIC = (2, 11)
"""The first whose validators take fields by name and by alias."""
WAYS_OUT = "a msgspec.Struct, a dataclass, an attrs class, a Pydantic model, a NamedTuple, a TypedDict or plain data"


@lru_cache(maxsize=4096)
def _has_base(kind: type, package: str, name: str) -> bool:
    return any(base.__name__ == name and (base.__module__ + ".").startswith(package) for base in kind.__mro__)


# -- Pydantic --------------------------------------------------------------------------------------------------------


def is_model(kind: Any) -> bool:
    """Return whether it is a Pydantic model. A Pydantic dataclass is a dataclass."""
    return is_validated(kind) and not dataclasses.is_dataclass(kind)


def is_validated(kind: Any) -> bool:
    """Return whether it is a Pydantic model or dataclass. Raises: ConfigurationError where Pydantic is too old."""
    if not (isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")):
        return False
    _check_version(sys.modules["pydantic"].VERSION)
    return True


@lru_cache(maxsize=1)
def _check_version(version: str) -> None:
    major, minor = version.split(".")[:2]
    if (int(major), int(minor)) < OLDEST_PYDANTIC:
        raise ConfigurationError(f"Pydantic {version} is too old for models to be stored or sent; upgrade it to 2.11")


def model_fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a model by name: Pydantic's FieldInfo."""
    fields: dict[str, Any] = getattr(kind, "__pydantic_fields__", {})
    return fields


def stored_names(kind: Any) -> tuple[tuple[str, str], ...]:
    """Return the fields of a model: attribute, and the alias it may be written under."""
    aliases = {name: (field.serialization_alias, field.alias) for name, field in model_fields(kind).items()}
    return tuple(
        (name, next((alias for alias in given if isinstance(alias, str)), name)) for name, given in aliases.items()
    )


def takes_extra(kind: Any) -> bool:
    """Return whether values of a model may carry fields that it does not name."""
    return _config(kind).get("extra") == "allow"


def is_frozen_model(kind: Any) -> bool:
    """Return whether the fields of a model cannot be set, private ones included. What they hold may still change."""
    return (
        bool(_config(kind).get("frozen"))
        and not takes_extra(kind)
        and not getattr(kind, "__private_attributes__", None)
    )


def is_strict_model(kind: Any) -> bool:
    """Return whether a model takes text for a date, or a value for its enum, from JSON only."""
    return bool(_config(kind).get("strict")) or any(
        getattr(rule, "strict", None) for field in model_fields(kind).values() for rule in field.metadata
    )


def lost_field(kind: Any) -> str | None:
    """Return a field of a model that its own serialiser leaves out, or None."""
    return next((name for name, field in model_fields(kind).items() if field.exclude), None)


def dump_model(kind: Any, model: Any) -> Any:
    """Return a model by its own serialiser: nested models as dictionaries, everything else as it is."""
    return kind.__pydantic_serializer__.to_python(model, round_trip=True, by_alias=False, warnings=False)


def dump_model_json(kind: Any, model: Any, *, by_alias: bool = False) -> bytes:
    """Return a model as JSON by its own serialiser. Raises: ValueError."""
    dumped: bytes = kind.__pydantic_serializer__.to_json(model, round_trip=True, by_alias=by_alias, warnings=False)
    return dumped


def load_model(kind: Any, state: Any) -> Any:
    """Return the model that `dump_model` was given, by its own validator. Raises: ValueError naming the field."""
    return _checked(lambda: kind.__pydantic_validator__.validate_python(state, by_alias=False, by_name=True))


def load_model_json(kind: Any, text: bytes | str) -> Any:
    """Return a model from JSON, fields under their names or their aliases. Raises: ValueError naming the field."""
    return _checked(lambda: kind.__pydantic_validator__.validate_json(text, by_alias=True, by_name=True))


def model_schema(kind: Any) -> dict[str, Any]:
    """Return what tells one version of a model from another: its JSON schema, where it has one, and its types."""
    types = {name: repr(field.annotation) for name, field in model_fields(kind).items()}
    adapter: Any = sys.modules["pydantic"].TypeAdapter(kind)
    try:
        return {"schema": adapter.json_schema(by_alias=False), "types": types}
    except Exception:  # noqa: BLE001 - a schema may be refused for many reasons; the types tell most of it
        return {"types": types}


def adapted(declared: Any) -> Callable[[bytes], Any]:
    """Return a decoder of JSON to what Pydantic makes of *declared*, which raises ValueError naming the field."""
    validate = sys.modules["pydantic"].TypeAdapter(declared).validator.validate_json
    return lambda text: _checked(lambda: validate(text, by_alias=True, by_name=True))


def _config(kind: Any) -> dict[str, Any]:
    config: dict[str, Any] = kind.model_config
    return config


def _checked(validate: Callable[[], Any]) -> Any:
    """Call a validator; what it refuses is said in one line."""
    try:
        return validate()
    except ValueError as invalid:
        errors = getattr(invalid, "errors", None)
        if errors is None:
            raise
        first, *others = errors(include_url=False, include_context=False, include_input=False)
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        raise ValueError(f"{first['msg']} - at `${place}`{more}") from None


# -- NumPy, rows -----------------------------------------------------------------------------------------------------


def is_numpy_scalar(kind: type) -> bool:
    """Return whether it is a class of NumPy's scalars, such as `numpy.float64`."""
    return _has_base(kind, "numpy.", "generic")


def is_row(kind: type) -> bool:
    """Return whether it is what a SQLAlchemy query returns for columns: Row."""
    return _has_base(kind, "sqlalchemy.", "Row")


def is_row_mapping(kind: type) -> bool:
    """Return whether it is a SQLAlchemy row as a mapping: RowMapping."""
    return _has_base(kind, "sqlalchemy.", "RowMapping")


def columns_of(row: Any) -> dict[str, Any]:
    """Return a Row or RowMapping as a dictionary."""
    return dict(row._mapping if is_row(type(row)) else row)  # noqa: SLF001 - public: SQLAlchemy gives names room


def is_secret(kind: Any) -> bool:
    """Return whether it is one of Pydantic's types that hide what they hold: SecretStr, SecretBytes, Secret[…]."""
    kind = get_origin(kind) or kind
    return isinstance(kind, type) and hasattr(kind, "get_secret_value")


@lru_cache(maxsize=1024)
def hidden_field(model: Any) -> str | None:
    """Return the field of a model, or of a model within it, that hides what it holds, or None."""
    pending, seen = [model], set()
    for each in pending:  # grows while it is walked
        seen.add(each)
        for name, field in model_fields(each).items():
            parts = list(_atoms(field.annotation))
            if any(map(is_secret, parts)):
                return name
            pending += [part for part in parts if is_model(part) and part not in seen]
    return None


def _atoms(declared: Any) -> Iterator[Any]:
    yield get_origin(declared) or declared
    for arg in get_args(declared):
        yield from _atoms(arg)


def plain_of(value: Any) -> Any:
    """Return an object of these classes as plain data, for JSON. Raises: TypeError naming it, and what to do."""
    kind: Any = type(value)
    if is_model(kind):
        if hidden := hidden_field(kind):
            raise TypeError(f"field {hidden!r} of {kind.__name__} is a secret and would arrive as stars; leave it out")
        return msgspec.Raw(dump_model_json(kind, value, by_alias=True))
    if is_numpy_scalar(kind):
        return value.item()
    if is_row(kind) or is_row_mapping(kind):
        return columns_of(value)
    fix = way_out(kind)
    raise TypeError(f"it holds a {kind.__name__}{f': {fix}' if fix else ''}")


def builtins_of(value: Any) -> Any:
    """Return what was written as JSON by `plain_of` as dictionaries, lists and scalars; None for what is neither."""

    def parts(part: Any) -> Any:
        kind: Any = type(part)
        if is_model(kind):  # not as JSON: there a number that JSON cannot say is None already
            return kind.__pydantic_serializer__.to_python(part, round_trip=True, by_alias=True, warnings=False)
        try:
            return msgspec.json.decode(part) if kind is msgspec.Raw else plain_of(part)
        except TypeError:  # within a model, whose own serialiser knew it
            return None

    return msgspec.to_builtins(value, enc_hook=parts, str_keys=True)


# -- what has no way in ----------------------------------------------------------------------------------------------


def way_out(kind: Any) -> str:
    """Return what to return in the place of a class whose objects cannot be stored; '' for classes nobody knows."""
    kind = get_origin(kind) or kind
    if not isinstance(kind, type):
        return ""
    if kind in _ABSTRACT:
        return "it may be read once only; return a list"
    for is_one, fix in _WAYS_OUT:
        if is_one(kind):
            return fix.replace("{name}", kind.__name__)
    return ""


_ABSTRACT = frozenset({collections.abc.Iterable, collections.abc.Collection, collections.abc.Reversible})
_ONCE = (collections.abc.Iterator, collections.abc.AsyncIterator, collections.abc.AsyncIterable)
_CODEC = "or give the cache a codec for it (Cache(codecs=…))"
_WAYS_OUT: tuple[tuple[Callable[[type], bool], str], ...] = (
    (
        lambda kind: hasattr(kind, "__mapper__"),
        "{name} is mapped to a table, and its objects belong to their session; select its columns, which come as rows, "
        "or return a Pydantic model (from_attributes=True) or a dataclass of what is needed",
    ),
    (
        lambda kind: _has_base(kind, "django.db.models.", "Model"),
        "{name} is a Django model, whose objects belong to their connection; return .values(), or a dataclass",
    ),
    (
        lambda kind: _has_base(kind, "pydantic.", "BaseModel") and not hasattr(kind, "__pydantic_validator__"),
        "{name} is a model of Pydantic 1; make it one of Pydantic 2.11",
    ),
    (
        is_secret,
        "a {name} hides what it holds so that nobody writes it down; leave it out",
    ),
    (
        lambda kind: _has_base(kind, "django.db.models.", "QuerySet"),
        "a QuerySet asks the database when it is read; return list(queryset.values())",
    ),
    (
        lambda kind: _has_base(kind, "pandas.", "DataFrame") or _has_base(kind, "pandas.", "Series"),
        f"return its to_dict(), {_CODEC}",
    ),
    (lambda kind: _has_base(kind, "numpy.", "ndarray"), f"return its tolist(), {_CODEC}"),
    (lambda kind: issubclass(kind, collections.abc.Awaitable), "await it first"),
    (lambda kind: issubclass(kind, _ONCE), "it can be read once only; return a list"),
)
"""Which classes are meant, and what to do instead."""


def is_hopeless(kind: Any) -> bool:
    """Return whether nothing can make an object of this class again, wherever it is met."""
    return bool(way_out(kind))


def differs(value: Any, settled: Any, place: str = "$") -> str | None:
    """Return where what was stored and read again is not what was returned; None where it is.

    A subclass's own fields may be missing, a list may have become a tuple: those are the declared type's to say.
    """
    kind = type(settled)
    if is_model(kind) and isinstance(value, kind):
        names = [*model_fields(kind), *(getattr(settled, "__pydantic_extra__", None) or ())]
        pairs = [(getattr(value, name), getattr(settled, name), f"{place}.{name}") for name in names]
    elif dataclasses.is_dataclass(settled) and isinstance(value, kind):
        pairs = [
            (getattr(value, f.name), getattr(settled, f.name), f"{place}.{f.name}") for f in dataclasses.fields(settled)
        ]
    elif isinstance(settled, dict) and isinstance(value, dict):
        if settled.keys() != value.keys():
            return f"{place}: its keys are others"
        pairs = [(value[name], item, f"{place}[{name!r}]") for name, item in settled.items()]
    elif isinstance(settled, list | tuple) and isinstance(value, list | tuple):
        if len(settled) != len(value):
            return f"{place}: its length is another"
        pairs = [(each, item, f"{place}[{at}]") for at, (each, item) in enumerate(zip(value, settled, strict=True))]
    elif value is settled or (value == settled and isinstance(settled, kind)) or _are_nan(value, settled):
        return None
    else:
        return f"{place}: a {type(value).__name__} became a {kind.__name__}"
    return next((found for one, other, where in pairs if (found := differs(one, other, where))), None)


def _are_nan(one: Any, other: Any) -> bool:
    return bool(one != one and other != other)  # noqa: PLR0124 - only NaN is not itself


def contains_model(parts: typing.Iterable[Any]) -> bool:
    """Return whether a Pydantic model is among the parts of a type."""
    return any(is_model(get_origin(part) or part) for part in parts)
