"""Values of no declared type as bytes: what Python's own types are, they are again. No pickle. Pure.

MessagePack knows None, bool, int, float, text, bytes, lists and dictionaries. Everything else here is a MessagePack
extension, so that none comes back as something else.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import functools
import importlib
import inspect
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec.msgpack import Ext

from cachebus.cache.values.shapes import is_own_class
from cachebus.foreign import is_numpy_scalar, is_row, is_row_mapping, way_out

ATOMS = frozenset({type(None), bool, float, str, bytes})
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
"""Of the integers MessagePack knows; beyond them the digits are stored."""
_DICT, _SEALED, _LABELLED, _JSON, _HOOKED, _NUMPY, _ROW, _ROW_MAPPING = 1, 2, 3, 4, 5, 6, 7, 8
"""Extension codes of what is not one class. A code is never used for anything else again."""

ValueCodec = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""For a class of the application's own: to a plain value, and back."""
Codecs = Mapping[type, ValueCodec]


class OwnClassFound(TypeError):
    """The value contains an object of a class of the application's own, in a place whose type does not name it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a {name} in a place that may be Any would come back as something else: declare its type")
        self.name = name


class Sealed(msgspec.Struct, array_like=True):
    """A value that only its type can open."""

    type_name: str
    payload: bytes


_decode_sealed = msgspec.msgpack.Decoder(Sealed).decode
_decode_extension = msgspec.msgpack.Decoder(Ext).decode
_EXTENSION_HEADS = frozenset({0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)})
"""With one of these bytes MessagePack begins an extension."""


class Labelled(NamedTuple):
    """What a class's own reader makes an object of, and the class's name, where its place does not say which."""

    name: str
    state: Any


class ModelJson(NamedTuple):
    """A Pydantic model that only its own JSON can hold."""

    text: bytes


class _Extension(NamedTuple):
    """How values of one class are written and read."""

    kind: type
    write: Callable[[Any], Any]
    """To what is itself written."""
    read: Callable[[Any], Any]


def _text(kind: type, read: Callable[[str], Any] | None = None, write: Callable[[Any], str] = str) -> _Extension:
    return _Extension(kind, write, read or kind)


_PATHS = (pathlib.PurePosixPath, pathlib.PosixPath, pathlib.PureWindowsPath, pathlib.WindowsPath)
_ADDRESSES = (
    *(ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network),
    *(ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
)
EXTENSIONS = {
    10: _text(int),
    11: _Extension(tuple, list, tuple),
    12: _Extension(set, list, set),
    13: _Extension(frozenset, list, frozenset),
    14: _Extension(
        collections.deque, lambda items: [items.maxlen, *items], lambda items: collections.deque(items[1:], items[0])
    ),
    15: _Extension(collections.OrderedDict, lambda items: list(map(list, items.items())), collections.OrderedDict),
    16: _Extension(collections.Counter, dict, collections.Counter),
    17: _Extension(range, lambda items: [items.start, items.stop, items.step], lambda items: range(*items)),
    20: _text(decimal.Decimal),
    21: _Extension(uuid.UUID, lambda value: value.bytes, lambda data: uuid.UUID(bytes=data)),
    22: _Extension(
        fractions.Fraction, lambda value: [value.numerator, value.denominator], lambda parts: fractions.Fraction(*parts)
    ),
    23: _Extension(complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    24: _Extension(bytearray, bytes, bytearray),
    30: _text(datetime.datetime, datetime.datetime.fromisoformat, datetime.datetime.isoformat),
    31: _text(datetime.date, datetime.date.fromisoformat, datetime.date.isoformat),
    32: _text(datetime.time, datetime.time.fromisoformat, datetime.time.isoformat),
    33: _Extension(
        datetime.timedelta,
        lambda span: [span.days, span.seconds, span.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
    34: _Extension(datetime.timezone, lambda zone: zone.utcoffset(None), datetime.timezone),
    35: _text(zoneinfo.ZoneInfo, write=lambda zone: zone.key),
    **{40 + at: _text(kind) for at, kind in enumerate(_ADDRESSES)},
    **{50 + at: _text(kind) for at, kind in enumerate(_PATHS)},
    60: _Extension(re.Pattern, lambda pattern: [pattern.pattern, pattern.flags], lambda parts: re.compile(*parts)),
}
"""By extension code. A code is never used for anything else again."""
_CODES = {extension.kind: code for code, extension in EXTENSIONS.items()}


class SelfDescribing:
    """Writes values so that they say themselves what they are. *codecs*: of the application's own classes."""

    def __init__(self, codecs: Codecs | None = None) -> None:
        self.codecs: Codecs = codecs or {}
        names = {kind: f"{kind.__module__}.{kind.__qualname__}" for kind in self.codecs}
        self._codecs = {kind: (names[kind], to_plain) for kind, (to_plain, _) in self.codecs.items()}
        self._readers = {names[kind]: from_plain for kind, (_, from_plain) in self.codecs.items()}
        self.decode: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(ext_hook=self.read).decode

    def encode(self, value: Any) -> bytes:
        """Return *value* as bytes. Raises: OwnClassFound; TypeError and others for what cannot be written."""
        return encode_packed(self.write(value))

    def write(self, value: Any, other: Callable[[Any], Any] | None = None) -> Any:
        """Return what MessagePack writes without losing a type. *other* writes what only its class can.

        Raises: OwnClassFound, where *other* is not given; TypeError.
        """
        kind = type(value)
        if kind in ATOMS:
            return value
        if kind is int:
            return value if _SMALLEST <= value <= _LARGEST else Ext(_CODES[int], str(value).encode())
        if kind is list:
            return [item if type(item) in ATOMS else self.write(item, other) for item in value]
        if kind is dict:
            return self._write_dict(value, other)
        code = _CODES.get(kind)
        if code is not None:
            return self._extension(code, EXTENSIONS[code].write(value), other)
        return self._write_other(kind, value, other)

    def _write_dict(self, value: dict[Any, Any], other: Callable[[Any], Any] | None) -> Any:
        written = {}
        for name, item in value.items():
            if type(name) is not str and not is_key(name):
                pairs = [[self.write(name, other), self.write(item, other)] for name, item in value.items()]
                return Ext(_DICT, encode_packed(pairs))
            written[name] = item if type(item) in ATOMS else self.write(item, other)
        return written

    def _write_other(self, kind: type, value: Any, other: Callable[[Any], Any] | None) -> Any:
        if kind in self._codecs:
            name, to_plain = self._codecs[kind]
            return self._extension(_HOOKED, [name, to_plain(value)], other)
        if is_numpy_scalar(kind):
            return Ext(_NUMPY, encode_packed([value.dtype.str, value.tobytes()]))
        if is_row(kind):
            return self._extension(_ROW, [list(value._fields), list(value)], other)
        if is_row_mapping(kind):
            return self._extension(_ROW_MAPPING, [list(value.keys()), list(value.values())], other)
        if fix := way_out(kind):
            raise TypeError(f"it holds a {kind.__name__}: {fix}")
        if other is not None:
            return other(value)
        if is_own_class(kind):
            raise OwnClassFound(kind.__name__)
        if inspect.isawaitable(value):
            raise TypeError(f"it is a {kind.__name__}, not yet what that returns: await it first")
        raise TypeError(
            f"a {kind.__name__} would come back as something else; convert it to one of Python's own types, "
            "or give the cache a codec for it (Cache(codecs=…))"
        )

    def _extension(self, code: int, content: Any, other: Callable[[Any], Any] | None) -> Ext:
        if type(content) is str:
            return Ext(code, content.encode())
        return Ext(code, content if type(content) is bytes else encode_packed(self.write(content, other)))

    def read(self, code: int, data: memoryview) -> Any:
        """Return what an extension stands for. Raises: many things, for bytes that are none."""
        extension = EXTENSIONS.get(code)
        if extension is not None:
            return extension.read(
                str(data, "utf-8") if code in _TEXTS else bytes(data) if code in _BYTES else self.decode(data)
            )
        if code in (_SEALED, _JSON):
            return _decode_sealed(data) if code == _SEALED else ModelJson(bytes(data))
        content = self.decode(data)
        if code == _DICT:
            return {name: item for name, item in content}  # noqa: C416 - dict() would take text for a pair
        first, second = content
        return self._readers[first](second) if code == _HOOKED else _FOREIGN[code](first, second)


def labelled(name: str, state: Any) -> Ext:
    """Return what `Labelled` is read from; *state* is what MessagePack writes."""
    return Ext(_LABELLED, encode_packed([name, state]))


def model_json(text: bytes) -> Ext:
    """Return what `ModelJson` is read from."""
    return Ext(_JSON, text)


def sealed(type_name: str, payload: bytes) -> bytes:
    """Return a value that only its type can open, as bytes."""
    return encode_packed(Ext(_SEALED, encode_packed(Sealed(type_name, payload))))


def unsealed(payload: bytes) -> Sealed | None:
    """Return what `sealed` made, None for any other value. In half the time that `SelfDescribing.decode` takes."""
    if payload[0] not in _EXTENSION_HEADS:
        return None
    extension = _decode_extension(payload)
    return _decode_sealed(extension.data) if extension.code == _SEALED else None


def is_key(name: Any) -> bool:
    """Return whether MessagePack keeps a dictionary's key as it is."""
    return type(name) in ATOMS or (type(name) is int and _SMALLEST <= name <= _LARGEST)


def _numpy_scalar(dtype: str, data: bytes) -> Any:
    numpy = importlib.import_module("numpy")  # where a value was stored by who has it
    return numpy.ndarray((), dtype, data)[()]


def _row(fields: list[str], values: list[Any]) -> Any:
    if len(fields) != len(values):
        raise ValueError("a row has as many values as columns")
    row, metadata = _row_of(tuple(fields))
    return row(metadata, None, metadata._key_to_index, tuple(values))  # noqa: SLF001 - as IteratorResult makes rows


@functools.lru_cache(maxsize=256)
def _row_of(fields: tuple[str, ...]) -> tuple[Any, Any]:
    engine = importlib.import_module("sqlalchemy.engine.result")
    return engine.Row, engine.SimpleResultMetaData(fields)


_FOREIGN: dict[int, Callable[[Any, Any], Any]] = {
    _LABELLED: Labelled,
    _NUMPY: _numpy_scalar,
    _ROW: _row,
    _ROW_MAPPING: lambda fields, values: _row(fields, values)._mapping,  # noqa: SLF001 - public
}
_BYTES = frozenset({_CODES[uuid.UUID], _CODES[bytearray]})
_TEXTS = frozenset(
    {
        *(_CODES[kind] for kind in (int, decimal.Decimal, datetime.datetime, datetime.date, datetime.time)),
        *(_CODES[kind] for kind in (zoneinfo.ZoneInfo, *_ADDRESSES, *_PATHS)),
    }
)

encode_packed: Callable[[Any], bytes] = msgspec.msgpack.Encoder(decimal_format="string").encode
"""Writes what is MessagePack's own already, and objects of classes that msgspec knows."""
