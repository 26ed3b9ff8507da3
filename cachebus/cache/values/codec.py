"""Values of a view as bytes, held to the type that its function declares. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from cachebus.cache.values.extensions import SelfDescribing
from cachebus.cache.values.never import NeverCached
from cachebus.cache.values.shapes import is_immutable, names_in, says_all
from cachebus.cache.values.typed import TypedValues
from cachebus.errors import ConfigurationError, NotCacheable
from cachebus.foreign import differs


class Codec:
    """How values of one declared type become bytes and come back as that type, not as dictionaries.

    `fingerprint` changes with the type, so a deploy that changes a result cannot misread older entries.
    `shared` says that values cannot be changed by whoever holds them, so one object may serve every caller.
    """

    def __init__(self, declared: Any, what: str, never: NeverCached, values: SelfDescribing) -> None:
        """Raises: ConfigurationError naming the view, and the part of the type that cannot, or must not, be stored."""
        self.what = what
        """Names the view in errors."""
        self.declared = declared
        self._typed = TypedValues(declared, what, values)
        self._decode = self._typed.decode
        self.fingerprint = hashlib.blake2b(self._typed.schema, digest_size=4).hexdigest()
        self.shared = is_immutable(declared)
        self._never = never
        self._is_open = not says_all(declared)
        self._fields = sorted(names_in(declared))
        self._looked_up = never.names
        self._refused = never.first(self._fields)
        if self._refused is not None:
            raise ConfigurationError(
                f"{what}: field {self._refused!r} of the return type must never be cached; leave it out"
            )

    def settle(self, value: Any) -> tuple[Any, bytes]:
        """Return what a loader returned as every caller will see it, and as bytes.

        What is stored is the value of the declared type and nothing else: a list for a tuple becomes a tuple, the
        fields of a subclass are left out. Raises: NotCacheable naming the view, and what cannot be stored.
        """
        try:
            settled = self._decode(self._typed.encode(value))
            payload = self._typed.encode(settled)
        except msgspec.DecodeError as wrong:
            declared = self.declared.__name__ if type(self.declared) is type else self.declared
            raise NotCacheable(f"the loader of {self.what} returned what is not {declared}: {wrong}") from None
        except Exception as unsupported:  # noqa: BLE001 - codecs and serialisers of the application's own raise anything
            raise NotCacheable(f"{self.what}: the value cannot be stored: {unsupported}") from None
        if (refused := self._find_refused(value)) is not None:
            raise NotCacheable(f"{self.what}: field {refused!r} must never be cached; leave it out")
        if self._typed.has_models and (changed := differs(value, settled)):
            raise NotCacheable(f"{self.what}: the value does not survive its model's own serialiser: {changed}")
        return settled, payload

    def _find_refused(self, value: Any) -> str | None:
        """Look at the value only where the type does not name all its fields: values of most views cost nothing."""
        if self._looked_up is not self._never.names:  # the environment named more since the view was declared
            self._looked_up, self._refused = self._never.names, self._never.first(self._fields)
        return self._refused or (self._never.find(value) if self._is_open else None)

    def decode(self, payload: bytes) -> Any:
        """Return the value. Raises: msgspec.DecodeError (ValidationError included) when it is not of this type."""
        try:
            return self._decode(payload)
        except msgspec.DecodeError:
            raise
        except Exception as damaged:  # noqa: BLE001 - what foreign bytes may raise has no end
            raise msgspec.DecodeError(f"{self.what}: the stored value is damaged: {damaged}") from None
