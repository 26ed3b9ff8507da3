"""Finds invalidations and events that come before COMMIT: a warning for each line of code that sends one.

Looks at the sessions that began in the caller's task, or in one that started it, and have written something.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy import event as events
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

from cachebus.bus import Bus
from cachebus.cache import Cache
from cachebus.sync import SyncCache
from cachebus.syncbus import SyncBus

_begun: ContextVar[tuple[weakref.ref[Session], ...]] = ContextVar("cachebus_begun", default=())
"""Sessions that had a transaction in this task. Whether they have written in the present one, they say themselves."""
_WROTE = "cachebus.beforecommit"
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
    listeners: tuple[tuple[str, Callable[..., None]], ...] = (
        ("after_transaction_create", _began),
        ("after_flush", _flushed),
        ("do_orm_execute", _executed),
        ("after_transaction_end", _ended),
    )
    for name, listener in listeners:
        events.listen(Session, name, listener)
    try:
        with contextlib.ExitStack() as stack:
            for part in parts:
                stack.callback(_guard(part))
            yield
    finally:
        for name, listener in listeners:
            events.remove(Session, name, listener)


def _guard(part: Cache | SyncCache | Bus | SyncBus) -> Callable[[], None]:
    """Have *part* look before it sends; return what takes that back."""
    name = "publish" if isinstance(part, Bus | SyncBus) else "invalidate"
    send = getattr(part, name)
    before = vars(part).get(name)

    def looked(*args: Any, **kwargs: Any) -> Any:
        if any(_has_written(session) for each in _begun.get() if (session := each()) is not None):
            warnings.warn(
                f"{name}() inside a transaction that is not committed: use {name}_on_commit(session, …)",
                BeforeCommit,
                stacklevel=2,
            )
        return send(*args, **kwargs)

    # As `hooks.watching` does: the class stays as it is for whoever is not looked at.
    vars(part)[name] = looked

    def undo() -> None:
        if before is None:
            del vars(part)[name]
        else:
            vars(part)[name] = before

    return undo


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
