"""Values as bytes: msgspec MessagePack, decoded to the declared type. No pickle. Pure."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import msgspec

from cachebus.errors import ConfigurationError, NotCacheable

_IMMUTABLE = (
    *(int, float, bool, str, bytes, complex, type(None), decimal.Decimal, uuid.UUID, enum.Enum),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)

NEVER_CACHED = frozenset(
    {
        # secrets and personal data
        *(
            "password",
            "passwd",
            "password_hash",
            "passphrase",
            "secret",
            "client_secret",
            "api_key",
            "apikey",
            "private_key",
        ),
        *("access_token", "refresh_token", "credit_card", "card_number", "cvv", "ssn", "social_security_number"),
        *("email", "phone", "phone_number", "date_of_birth", "home_address", "passport_number"),
        # transactional: the ledger of record answers these
        *("account_balance", "balance", "order_status", "execution", "executions", "trade_executions"),
        # real-time: old is wrong
        *("live_price", "order_book", "market_depth"),
    }
)
"""Field names whose values are never stored, whoever asks (the specification's "what not to cache")."""


class Codec:
    """How values of one declared type become bytes and come back as that type, not as dictionaries.

    `fingerprint` changes with the type, so a deploy that changes a result cannot misread older entries.
    `shared` says that values cannot be changed by whoever holds them, so one object may serve every caller.
    """

    def __init__(self, declared: Any, what: str) -> None:
        self._what = what
        self.untyped = declared is Any
        try:
            self._decoder = msgspec.msgpack.Decoder(declared)
            schema = b"any" if self.untyped else msgspec.json.encode(msgspec.json.schema(declared), order="sorted")
        except TypeError as unsupported:
            raise ConfigurationError(f"{what}: the return type {declared!r} cannot be stored: {unsupported}") from None
        self._encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(decimal_format="string").encode
        self.fingerprint = hashlib.blake2b(schema, digest_size=4).hexdigest()
        self.shared = not self.untyped and is_immutable(declared)
        if refused := sorted(field_names(declared) & NEVER_CACHED):
            raise ConfigurationError(
                f"{what}: field {refused[0]!r} of the return type must never be cached; leave it out"
            )

    def encode(self, value: Any) -> bytes:
        """Return *value* as bytes. Raises: NotCacheable naming the view and what cannot be stored."""
        if self.untyped and (refused := find_refused(value)):
            raise NotCacheable(f"{self._what}: field {refused!r} must never be cached; leave it out")
        try:
            return self._encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as unsupported:
            raise NotCacheable(f"{self._what}: the value cannot be stored: {unsupported}") from None

    def decode(self, payload: bytes) -> Any:
        """Return the value. Raises: msgspec.DecodeError (ValidationError included) when it is not of this type."""
        try:
            return self._decoder.decode(payload)
        except (ValueError, OverflowError, RecursionError) as damaged:  # text that is not UTF-8, a date that is none
            raise msgspec.DecodeError(f"{self._what}: the stored value is damaged: {damaged}") from None


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
    if issubclass(declared, msgspec.Struct):
        fields = [field.type for field in msgspec.structs.fields(declared)]
        return declared.__struct_config__.frozen and all(map(is_immutable, fields))
    if dataclasses.is_dataclass(declared):
        hints = typing.get_type_hints(declared)
        frozen = declared.__dataclass_params__.frozen  # type: ignore[attr-defined] # the only place it is told
        return frozen and all(is_immutable(hints[field.name]) for field in dataclasses.fields(declared))
    return issubclass(declared, _IMMUTABLE)


def field_names(declared: Any, found: set[Any] | None = None) -> set[str]:
    """Return every field name a value of this type may carry, at any depth."""
    seen = found if found is not None else set()
    if declared in seen if isinstance(declared, typing.Hashable) else True:
        return set()
    seen.add(declared)
    names: set[str] = set()
    fields: list[tuple[str, Any]] = []
    if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
        fields = [(field.name, field.type) for field in msgspec.structs.fields(declared)]
    elif isinstance(declared, type) and (dataclasses.is_dataclass(declared) or typing.is_typeddict(declared)):
        fields = list(typing.get_type_hints(declared).items())
    for name, inner in fields:
        names.add(name.lower())
        names |= field_names(inner, seen)
    for inner in get_args(declared):
        names |= field_names(inner, seen)
    return names


def find_refused(value: Any, depth: int = 6) -> str | None:
    """Return a field name in plain data that must never be cached, or None."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(name, str) and name.lower() in NEVER_CACHED:
                return name
            if depth and (refused := find_refused(inner, depth - 1)):
                return refused
    elif isinstance(value, list | tuple) and depth:
        for inner in value[:50]:
            if refused := find_refused(inner, depth - 1):
                return refused
    return None
