"""Finds invalidations and events that come before COMMIT: a warning for each line of code that sends one.

Looks at the sessions that began in the caller's task, or in one that started it, and have written something.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType

from sqlalchemy import TextClause
from sqlalchemy import event as events
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

from cachebus.bus.publisher import Bus
from cachebus.cache.cache import Cache
from cachebus.cache.hooks import Observer
from cachebus.sync.bus import Bus as SyncBus
from cachebus.sync.cache import Cache as SyncCache

_begun: ContextVar[tuple[weakref.ref[Session], ...]] = ContextVar("cachebus_begun", default=())
"""Sessions that had a transaction in this task. Whether they have written in the present one, they say themselves."""
_WROTE = "cachebus.integrations.sqlalchemy.before_commit"
_WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE"})
"""How statements begin that are plain text and change something."""


class BeforeCommit(UserWarning):
    """Something was sent while a transaction that had written was open: readers store the old row once more."""


@contextlib.contextmanager
def warning_before_commit(*parts: Cache | SyncCache | Bus | SyncBus) -> Iterator[None]:
    """Warn (`BeforeCommit`) of each `invalidate()` and `publish()` of *parts* inside a transaction that has written.

    For tests and development. Within this block only; code without it pays nothing. Python shows a warning once for
    each line that causes it; `-W error` makes it an exception.
    """
    with contextlib.ExitStack() as stack:
        _sessions.look()
        stack.callback(_sessions.look_away)
        for part in parts:
            if isinstance(part, Cache | SyncCache):
                cache = part if isinstance(part, Cache) else part.cache
                stack.enter_context(cache.observed_by(_Look()))
            else:
                bus = part if isinstance(part, Bus) else part.part
                stack.enter_context(bus.observed_by(_published))
        yield


class _Sessions:
    """Listens to SQLAlchemy's sessions while somebody wants to be warned. Blocks may overlap and end in any order."""

    def __init__(self) -> None:
        self._blocks = 0
        self._listeners: tuple[tuple[str, Callable[..., None]], ...] = (
            ("after_transaction_create", _began),
            ("after_flush", _flushed),
            ("do_orm_execute", _executed),
            ("after_transaction_end", _ended),
        )

    def look(self) -> None:
        """Begin, unless another block has."""
        self._blocks += 1
        if self._blocks == 1:
            for name, listener in self._listeners:
                events.listen(Session, name, listener)

    def look_away(self) -> None:
        """End, unless another block still lasts."""
        self._blocks -= 1
        if not self._blocks:
            for name, listener in self._listeners:
                events.remove(Session, name, listener)


class _Look(Observer):
    """Looks at the transaction when something is invalidated."""

    def invalidating(self) -> None:
        _warn_if_written("invalidate")


def _published(_channel: str) -> None:
    _warn_if_written("publish")


def _warn_if_written(what: str) -> None:
    """Warn of the line that called into the library, if a session of its task has written."""
    if any(_has_written(session) for each in _begun.get() if (session := each()) is not None):
        warnings.warn(
            f"{what}() inside a transaction that is not committed: use {what}_on_commit(session, …)",
            BeforeCommit,
            stacklevel=1 + _depth(sys._getframe()),  # noqa: SLF001 - documented, and the way to a frame
        )


def _depth(frame: FrameType | None) -> int:
    """Return how many frames, from this one outwards, belong to this library."""
    depth = 0
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("cachebus."):
        depth, frame = depth + 1, frame.f_back
    return depth


def _has_written(session: Session) -> bool:
    return bool(session.info.get(_WROTE) or session.new or session.dirty or session.deleted)


def _began(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        alive = tuple(each for each in _begun.get() if (other := each()) is not None and other is not session)
        _begun.set((*alive, weakref.ref(session)))


def _flushed(session: Session, _context: object) -> None:
    session.info[_WROTE] = True


def _executed(state: ORMExecuteState) -> None:
    statement = state.statement
    words = statement.text.split(maxsplit=1) if isinstance(statement, TextClause) else ()
    if state.is_insert or state.is_update or state.is_delete or (words and words[0].upper() in _WRITING):
        state.session.info[_WROTE] = True


def _ended(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_WROTE, None)


_sessions = _Sessions()
