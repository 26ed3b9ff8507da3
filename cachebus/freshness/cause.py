"""Why something was invalidated: kept in the journal beside the scopes, for people who ask "who did that?". Pure.

A record's causes are JSON: `[[scopes, kind, who, what], …]`. *scopes* says how many of the record's scopes, in their
order, that cause was the first to name; 0: it named only what another one of the same step had named before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple, get_args

import msgspec

from cachebus.errors import ConfigurationError

Kind = Literal["event", "admin", "command", "schedule", "deploy", "process"]
"""`process`: the application called `invalidate()`, and said no more."""

LONGEST = 200
"""Characters kept of a name."""


class Cause(NamedTuple):
    """One cause."""

    kind: str
    who: str
    """The handler, person, job or process."""
    what: str = ""
    """The id of the event; what the person did."""


class CausedScopes(NamedTuple):
    """Some scopes of a record, and why they are in it."""

    cause: Cause
    scopes: list[str]


_encode = msgspec.json.Encoder().encode
_causing: ContextVar[Cause | None] = ContextVar("cachebus_cause", default=None)


@contextmanager
def caused_by(kind: Kind, who: str, what: str = "") -> Iterator[None]:
    """Name the cause of every invalidation in this block, as the live page and `tail` show it.

    *who*: such as the name of a person or a release. *what*: what they did. Raises: ConfigurationError.
    """
    if kind not in get_args(Kind):
        raise ConfigurationError(f"caused_by: {kind!r} is no kind of cause; choose {', '.join(get_args(Kind))}")
    token = _causing.set(Cause(kind, who[:LONGEST], what[:LONGEST]))
    try:
        yield
    finally:
        _causing.reset(token)


def current_cause() -> Cause | None:
    """Return the cause of what this code invalidates; None where nothing named one."""
    return _causing.get()


def causes_of(scopes: Mapping[str, Cause]) -> bytes:
    """Return the causes of some scopes, in their order, as the journal keeps them."""
    runs: list[tuple[int, str, str, str]] = []
    count, before = 0, None
    for cause in scopes.values():
        if cause is not before and before is not None:
            runs.append((count, *before))
            count = 0
        count, before = count + 1, cause
    if before is not None:
        runs.append((count, *before))
    return _encode(runs)


def read_causes(kept: bytes, scopes: Iterable[str]) -> list[CausedScopes]:
    """Return what a record of the journal says of its causes; [] where it says nothing that can be read."""
    try:
        runs = msgspec.json.decode(kept, type=list[tuple[int, str, str, str]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    left, found = iter(scopes), []
    for count, kind, who, what in runs:
        named = [scope for _, scope in zip(range(count), left, strict=False)]
        found.append(CausedScopes(Cause(kind, who, what), named))
    return found
