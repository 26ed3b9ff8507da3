"""Plain values, and results of views without a declared type: what they are, they are again. No pickle. Pure.

What contains an object of a class of one's own (Struct, dataclass, model, Enum …) is stored as the view's values are,
and comes back only to who names its type.
"""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from typing import Any

import msgspec

from cachebus.cache.values.codec import Codec
from cachebus.cache.values.extensions import (
    ATOMS,
    OwnClassFound,
    Sealed,
    SelfDescribing,
    encode_packed,
    sealed,
    unsealed,
)
from cachebus.cache.values.never import NeverCached
from cachebus.cache.values.shapes import is_immutable, is_precise
from cachebus.cache.values.typed import TypedValues
from cachebus.cache.values.writing import Writers
from cachebus.errors import ConfigurationError, NotCacheable

log = logging.getLogger("cachebus")


class PlainCodec:
    """How plain values become bytes and come back; *declared* says as what, `Any`: as what they were."""

    fingerprint = "plain"
    shared = False

    def __init__(self, declared: Any, what: str, never: NeverCached, values: SelfDescribing) -> None:
        self.what = what
        self.declared = declared
        self._never = never
        self._reported = False
        self._values = values
        self._read = values.decode
        self._typed = TypedValues(declared, what, values)
        self._opens = declared is not Any

    def encode(self, value: Any) -> bytes:
        """Return *value* as bytes. Raises: NotCacheable naming what cannot be stored, or must not be."""
        try:
            payload = self._encoded(value)
        except ConfigurationError as hopeless:
            raise NotCacheable(str(hopeless)) from None
        except Exception as unsupported:  # noqa: BLE001 - codecs and serialisers of the application's own raise anything
            raise NotCacheable(f"{self.what}: the value cannot be stored: {unsupported}") from None
        if refused := self._never.find(value):
            raise NotCacheable(f"{self.what}: field {refused!r} must never be cached; leave it out")
        return payload

    def _encoded(self, value: Any) -> bytes:
        try:
            return self._values.encode(value)
        except OwnClassFound as found:
            return sealed(found.name, encode_packed(Writers(self._values).by_value(value)))

    def settle(self, value: Any) -> tuple[Any, bytes]:
        """Return what a loader returned as every caller will see it, and as bytes. Raises: NotCacheable."""
        payload = self.encode(value)
        try:
            return self.decode(payload), payload
        except (msgspec.DecodeError, ConfigurationError) as wrong:
            raise NotCacheable(f"the loader of {self.what} returned what cannot be read again: {wrong}") from None

    def decode(self, payload: bytes) -> Any:
        """Return the value. Raises: msgspec.DecodeError where it is not of the declared type, or damaged."""
        try:
            if (own := unsealed(payload)) is not None:
                return self._open(own)
            value = self._read(payload)
            return self._typed.convert(value) if self._opens else value
        except ConfigurationError:
            raise
        except msgspec.DecodeError as wrong:
            if not self._reported and self._opens:
                self._reported = True
                log.warning("%s: what is stored is not %s, and counts as a miss: %s", self.what, self.declared, wrong)
            raise
        except Exception as damaged:  # noqa: BLE001 - what foreign bytes may raise has no end
            raise msgspec.DecodeError(f"{self.what}: the stored value is damaged: {damaged}") from None

    def may_be_shared(self, value: Any) -> bool:
        """Whether nobody who holds *value*, which this codec has read, can change what others see."""
        return self._is_immutable if self._opens else type(value) in ATOMS or type(value) is int

    @cached_property
    def _is_immutable(self) -> bool:
        return is_immutable(self.declared)

    @cached_property
    def _is_precise(self) -> bool:
        """Looked up once: it takes the type apart, which costs twenty times what reading a value does."""
        return is_precise(self.declared)

    def _open(self, value: Sealed) -> Any:
        if not self._opens or not self._is_precise:
            raise ConfigurationError(
                f"{self.what}: the value holds a {value.type_name} and comes back only as its type: say type=, or "
                "annotate what the view returns"
            )
        return self._typed.decode(value.payload)


def codec_for(declared: Any, what: str, never: NeverCached, values: SelfDescribing) -> Codec | PlainCodec:
    """Return how the results of a view are stored: held to *declared*, or as what they are where nothing is declared.

    Raises: ConfigurationError, as `Codec`.
    """
    if declared in (Any, object):
        return PlainCodec(Any, what, never, values)
    return Codec(declared, what, never, values)


def fingerprint_of(codec: Codec | PlainCodec, version: int | str) -> str:
    """Return what the values of a view are stored under: it changes with their type, and with their version."""
    if version == "":
        return codec.fingerprint
    return hashlib.blake2b(f"{codec.fingerprint}:{version}".encode(), digest_size=4).hexdigest()
