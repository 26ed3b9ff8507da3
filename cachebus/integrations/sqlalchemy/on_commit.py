"""Invalidating and publishing when a SQLAlchemy transaction commits: not before, and not if it is rolled back.

An invalidation before COMMIT is too early: whoever reads in between loads the old row and stores it as new. Here it
waits with the session. A savepoint that is released hands what it holds to the transaction around it; one that is
rolled back drops it.

It runs after COMMIT, before `commit()` returns, with the connection given back to its pool. The commit stands whatever
becomes of it: what fails is an error in the log, never an exception. A process that ends between the two loses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, overload

from sqlalchemy import event as events
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from cachebus.bus.effects import delay_of
from cachebus.bus.events import encode, envelope_fault
from cachebus.bus.publisher import Bus
from cachebus.cache.cache import Cache
from cachebus.durations import Duration
from cachebus.errors import ConfigurationError, PublishRefused
from cachebus.freshness.scopes import names, scopes_to_invalidate
from cachebus.sync.bus import Bus as SyncBus
from cachebus.sync.cache import Cache as SyncCache

log = logging.getLogger("cachebus")

AsyncSessions = AsyncSession | async_scoped_session[AsyncSession]
Sessions = Session | scoped_session[Session]
_NAME = "cachebus.integrations.sqlalchemy.on_commit"


@overload
def invalidate_on_commit(
    session: AsyncSessions | Sessions,
    cache: Cache,
    *,
    keys: str | Iterable[str] = (),
    tags: str | Iterable[str] = (),
    prefix: str | None = None,
) -> None: ...
@overload
def invalidate_on_commit(
    session: Sessions,
    cache: SyncCache,
    *,
    keys: str | Iterable[str] = (),
    tags: str | Iterable[str] = (),
    prefix: str | None = None,
) -> None: ...
def invalidate_on_commit(
    session: AsyncSessions | Sessions,
    cache: Cache | SyncCache,
    *,
    keys: str | Iterable[str] = (),
    tags: str | Iterable[str] = (),
    prefix: str | None = None,
) -> None:
    """Invalidate these scopes when the open transaction of *session* commits; begins one where none is open.

    Does no I/O itself. Equal scopes of a transaction are invalidated once, in one round trip. With Redis away they hold
    in this process and are sent when it is back. A plain `Session` takes a `Cache` within `AsyncSession.run_sync`.

    Raises: ConfigurationError for a bad name, or for a cache that this session cannot wait for.
    """
    scopes = _Scopes(dict.fromkeys(names(keys)), dict.fromkeys(names(tags)), {} if prefix is None else {prefix: None})
    if not scopes_to_invalidate(keys=scopes.keys, tags=scopes.tags, prefixes=scopes.prefixes):
        raise ConfigurationError("invalidate_on_commit: name keys, tags or a prefix")
    held = _held(session, asynchronous=isinstance(cache, Cache))
    held.scopes.setdefault(cache, _Scopes()).add(scopes)


@overload
def publish_on_commit(
    session: AsyncSessions | Sessions,
    bus: Bus,
    channel: str,
    event: Any,
    *,
    key: str | None = None,
    id: str | None = None,
    delay: Duration | None = None,
) -> None: ...
@overload
def publish_on_commit(
    session: Sessions,
    bus: SyncBus,
    channel: str,
    event: Any,
    *,
    key: str | None = None,
    id: str | None = None,
    delay: Duration | None = None,
) -> None: ...
def publish_on_commit(  # noqa: PLR0913 - as `Bus.publish`
    session: AsyncSessions | Sessions,
    bus: Bus | SyncBus,
    channel: str,
    event: Any,
    *,
    key: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's own name
    delay: Duration | None = None,
) -> None:
    """Publish *event* when the open transaction of *session* commits; begins one where none is open.

    Events of a transaction go out in order, after its invalidations. *event* is encoded now: what changes in it later
    does not count. A *delay* counts from the commit. Does no I/O itself; `commit()` waits for Redis up to 5 s for each
    event, and then gives it up.

    Raises: PublishRefused when the channel, event or delay can never be, ConfigurationError for a bus that this session
    cannot wait for.
    """
    if fault := envelope_fault(channel, key, id):
        raise PublishRefused(fault)
    if delay is not None:
        delay_of(delay, "delay")  # only checked
    payload = encode(event)
    held = _held(session, asynchronous=isinstance(bus, Bus))
    held.publications.append(
        (f"an event on {channel}", partial(bus.publish, channel, payload, key=key, id=id, delay=delay))
    )


@dataclass(slots=True)
class _Scopes:
    """What is to be invalidated, each once, in the order it was said."""

    keys: dict[str, None] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    prefixes: dict[str, None] = field(default_factory=dict)

    def add(self, other: _Scopes) -> None:
        self.keys |= other.keys
        self.tags |= other.tags
        self.prefixes |= other.prefixes

    def calls(self, cache: Cache | SyncCache) -> list[tuple[str, Callable[[], Any]]]:
        """Return the calls that invalidate them; a call takes one prefix."""
        first, *others = self.prefixes or (None,)
        calls = [partial(cache.invalidate, keys=list(self.keys), tags=list(self.tags), prefix=first)]
        calls += [partial(cache.invalidate, prefix=prefix) for prefix in others]
        return [("an invalidation", call) for call in calls]


@dataclass(slots=True)
class _Held:
    """What waits for one transaction, or savepoint."""

    scopes: dict[Cache | SyncCache, _Scopes] = field(default_factory=dict)
    publications: list[tuple[str, Callable[[], Any]]] = field(default_factory=list)

    def add(self, other: _Held) -> None:
        for cache, scopes in other.scopes.items():
            self.scopes.setdefault(cache, _Scopes()).add(scopes)
        self.publications += other.publications


class _Waiting:
    """What waits with one session, by transaction; listens to what becomes of them."""

    def __init__(self, session: Session) -> None:
        self._held: dict[SessionTransaction, _Held] = {}
        self._committed: _Held | None = None
        events.listen(session, "after_commit", self._after_commit)
        events.listen(session, "after_transaction_end", self._after_end)

    def within(self, transaction: SessionTransaction) -> _Held:
        """Return what waits for *transaction*, to be added to."""
        return self._held.setdefault(transaction, _Held())

    def _after_commit(self, session: Session) -> None:
        """COMMIT, or RELEASE of a savepoint: only the former is final."""
        savepoint = session.get_nested_transaction()
        if savepoint is None:
            self._committed = self._held.pop(_root(session), None)
        elif (held := self._held.pop(savepoint, None)) is not None:
            self.within(savepoint.parent or savepoint).add(held)  # a savepoint always has one

    def _after_end(self, _session: Session, transaction: SessionTransaction) -> None:
        """Drop what a transaction still holds: it was rolled back, or closed. Its connection is free by now."""
        self._held.pop(transaction, None)
        if transaction.parent is None and self._committed is not None:
            committed, self._committed = self._committed, None
            _deliver(committed)


def _held(session: AsyncSessions | Sessions, *, asynchronous: bool) -> _Held:
    """Return what waits for the innermost transaction of *session*."""
    if isinstance(session, scoped_session | async_scoped_session):
        session = session()
    if not isinstance(session, AsyncSession | Session):
        raise ConfigurationError(f"on commit: {type(session).__name__} is no session; the session comes first")
    waits = isinstance(session, AsyncSession) or in_greenlet()
    if asynchronous and not waits:
        raise ConfigurationError("on commit: a plain Session cannot wait for it; give it one of cachebus.sync")
    if waits and not asynchronous:
        raise ConfigurationError("on commit: it would block the event loop of this session; give a Cache or Bus")
    plain: Session = session.sync_session if isinstance(session, AsyncSession) else session
    waiting: _Waiting = plain.info.get(_NAME) or plain.info.setdefault(_NAME, _Waiting(plain))
    return waiting.within(plain.get_nested_transaction() or _root(plain))


def _root(session: Session) -> SessionTransaction:
    """Return the transaction that COMMIT ends; begins it, as the first statement would."""
    return session.get_transaction() or session.begin()


def _deliver(held: _Held) -> None:
    """Do what has waited, from within `commit()`."""
    invalidations = [call for cache, scopes in held.scopes.items() for call in scopes.calls(cache)]
    if in_greenlet():
        await_only(_finished(_do(invalidations, held.publications)))
        return
    for what, call in [*invalidations, *held.publications]:
        try:
            call()
        except Exception as failed:  # noqa: BLE001 - the commit stands; raising would say that it does not
            _lost(what, failed)


async def _finished(work: Any) -> None:
    """Let *work* finish even if its caller is cancelled: the data is committed, and others must hear of it."""
    task = asyncio.create_task(work, name="cachebus on commit")
    try:
        await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task])


async def _do(
    invalidations: Iterable[tuple[str, Callable[[], Any]]], publications: Iterable[tuple[str, Callable[[], Any]]]
) -> None:
    await asyncio.gather(*[_try(what, call) for what, call in invalidations])  # one tick is one round trip
    for what, call in publications:
        await _try(what, call)


async def _try(what: str, call: Callable[[], Awaitable[Any]]) -> None:
    try:
        await call()
    except Exception as failed:  # noqa: BLE001 - as above
        _lost(what, failed)


def _lost(what: str, failed: Exception) -> None:
    log.error("committed, but %s did not get out: %s: %s", what, type(failed).__name__, failed, exc_info=failed)
