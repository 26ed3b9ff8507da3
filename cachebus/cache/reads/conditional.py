"""Conditional loads: what a loader knows of the value it produced before, and how it says that this still holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Never, TypeVar, cast

T = TypeVar("T")

LONGEST_VALIDATOR_BYTES = 512
"""It lies in the header of the entry, which every read fetches. Entity tags have some 40 bytes."""


class Unchanged:
    """What a loader returns to say: the value from `previous()` still holds."""


UNCHANGED: Never = cast("Never", Unchanged())  # a loader of any type may return it


class Condition:
    """What one load begins with, and the validator it names. Shared with the threads that the load runs in."""

    __slots__ = ("_named", "_named_for", "known", "validator", "value")

    def __init__(self, value: Any, validator: str, *, known: bool) -> None:
        self.known = known
        """Whether there is a value; it may be None."""
        self.value = value
        self.validator = validator
        self._named: str | None = None
        self._named_for: Any = None

    def name(self, value: Any, validator: str | None) -> None:
        """Take note of the validator of *value*, which counts if that is what the loader returns."""
        self._named, self._named_for = validator or "", value

    def validator_of(self, loaded: Any) -> str:
        """Return the validator to keep with what the loader returned; '' where there is none."""
        if self._named is not None and self._named_for is loaded:
            return self._named if _is_storable(self._named) else ""
        return self.validator if isinstance(loaded, Unchanged) else ""


condition: ContextVar[Condition | None] = ContextVar("cachebus_condition", default=None)
"""Of the load that this code is part of."""


@contextmanager
def unconditional() -> Iterator[None]:
    """Hide from a function that runs uncached, within another's load, what that one knows: it is of another view."""
    token = condition.set(None)
    try:
        yield
    finally:
        condition.reset(token)


def previous() -> Any:
    """Return, inside a loader, the value it last produced for these arguments (perhaps invalidated), or None.

    A loader that finds it still right, for instance by an ETag or an `updated_at`, returns `UNCHANGED`.
    """
    state = condition.get()
    return state.value if state is not None else None


def previous_validator() -> str | None:
    """Return, inside a loader, what it named with `validated` beside the value of `previous()`, or None."""
    state = condition.get()
    return (state.validator or None) if state is not None else None


def validated(value: T, validator: str | None) -> T:
    """Return *value*, for a loader to return, and keep *validator* beside it for the next load.

    *validator*: what its source tells versions apart by: an ETag, `Last-Modified`, the version of a row as text. Stored
    with the value, never part of it; None, or more than 512 bytes: nothing is kept, and the next load is a full one.
    With `UNCHANGED` as the value it replaces the one there was. Raises: TypeError where it is no text.
    """
    if validator is not None and not isinstance(validator, str):
        raise TypeError(f"validated: the validator {validator!r} must be text; write str(…)")
    state = condition.get()
    if state is not None:
        state.name(value, validator)
    return value


def _is_storable(validator: str) -> bool:
    try:
        return len(validator.encode()) <= LONGEST_VALIDATOR_BYTES
    except UnicodeEncodeError:  # a client that keeps foreign bytes of a header as lone surrogates
        return False
