"""Glances: reads that only look. One MGET for all of a loop tick, no lease, no question to the ledger, no task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cachebus.cache.call import Call, Value
from cachebus.errors import ServerError
from cachebus.redis.connection import Done
from cachebus.redis.replies import Reply

log = logging.getLogger("cachebus")

GLANCES_A_CALL = 500
"""So that one of them does not keep the server busy for long."""

Seen = Value | Exception | None
"""What a glance saw: a value that may be served, none, or why there is no telling."""


class Glances:
    """The glances of one process that are under way; a caller who comes meanwhile joins one of the same entry."""

    def __init__(
        self,
        fetch: Callable[[list[str], Done], None],
        position: Callable[[], int],
        judge: Callable[[list[Call], Sequence[Reply], int, bool], list[Seen]],
    ) -> None:
        """*position*: of the journal, asked for when a glance leaves.

        *judge*: says what may be served, on arrival; last whether one caller has each value for itself.
        """
        self._fetch = fetch
        self._position = position
        self._judge = judge
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[str, list[asyncio.Future[Value | None]]] = {}
        """Who waits for each entry."""
        self._unsent: list[Call] = []
        self._alone = False
        """Whether the last glance had no company: the next one then leaves at once, not at the end of its tick."""

    def look(self, call: Call) -> asyncio.Future[Value | None]:
        """Look at one entry; what the server cannot be asked for is not found. Raises: ConfigurationError."""
        caller: asyncio.Future[Value | None] = self._loop.create_future()
        callers = self._under_way.get(call.entry)
        if callers is not None:
            callers.append(caller)
            return caller
        at_once = self._alone and not self._under_way
        self._under_way[call.entry] = [caller]
        if at_once:
            self._send([call])
            return caller
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(call)
        return caller

    async def look_at_all(self, calls: list[Call]) -> list[Value | None]:
        """Look at several, in a request of their own; the rest as `look`."""
        if not calls:
            return []
        seen: asyncio.Future[list[Seen]] = self._loop.create_future()
        self._ask(calls, partial(_settle, seen), alone=True)  # none joins a look of its own
        values: list[Value | None] = []
        for each in await seen:
            if isinstance(each, Exception) and not isinstance(each, ServerError):
                raise each
            values.append(each if isinstance(each, Value) else None)
        return values

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        self._alone = len(self._under_way) == 1
        for first in range(0, len(unsent), GLANCES_A_CALL):
            self._send(unsent[first : first + GLANCES_A_CALL])

    def _send(self, calls: list[Call]) -> None:
        def arrived(seen: list[Seen]) -> None:
            for call, each in zip(calls, seen, strict=True):
                for caller in self._under_way.pop(call.entry):
                    _settle(caller, each)

        self._ask(calls, arrived)

    def _ask(self, calls: list[Call], done: Callable[[list[Seen]], None], *, alone: bool = False) -> None:
        position = self._position()

        def arrived(replies: list[Reply] | ServerError) -> None:
            if isinstance(replies, ServerError):
                done([replies] * len(calls))
                return
            try:
                seen = self._judge(calls, replies, position, alone)
            except Exception as mistake:  # noqa: BLE001 - ours: it is for who asked, not for the connection that calls
                seen = [mistake] * len(calls)
            done(seen)

        self._fetch([call.entry for call in calls], arrived)


def _settle(future: asyncio.Future[Any], seen: object) -> None:
    if future.done():  # its caller gave up
        return
    if isinstance(seen, ServerError):
        log.debug("Redis cannot be asked: %s", seen)
        future.set_result(None)
    elif isinstance(seen, Exception):
        future.set_exception(seen)
    else:
        future.set_result(seen)
