"""One connection that many tasks share.

Commands of one loop tick leave in one write, replies come back in order, a caller that gives up costs nobody a
reconnect, and an unanswered connection is dropped. `address.py` or the driver opens the socket; from then
on it is ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from cachebus.errors import ServerError, ServerTimeout, Unavailable, UnknownScript
from cachebus.redis.replies import Reply, reply_error
from cachebus.redis.scripts import script

Argument = str | bytes | int | float

TIMEOUT_S = 5.0
SILENCE_S = 1.0
"""A connection that owes an answer past its deadline and stays silent this long is dropped."""
TIMELY_S = 0.25
"""An answer within this is timely, however impatient its caller was: 25 ms too late for a limiter is not an outage."""
LATE_IN_A_ROW = 5
LATE_FOR_S = 1.0
"""After this many late answers over at least this time, without a timely one, a server counts as unavailable: callers
then go on without it at once, instead of each waiting for its timeout."""
TICK_S = 0.025
"""How often unanswered commands are looked at. A timeout is late by at most this."""
OWN_LATENESS_S = 0.005
"""A look this late says that this process was busy, stopped or short of CPU: that time is no fault of the server."""

Done = Callable[[list[Reply] | ServerError], None]
"""Called with the replies of a batch in order, error replies among them, or with why there are none."""


class _Batch:
    """Commands sent together, answered together, without a task or a future of their own."""

    __slots__ = ("done", "expected", "replies")

    def __init__(self, expected: int, done: Done) -> None:
        self.expected = expected
        self.done: Done | None = done
        self.replies: list[Reply] = []

    def settle(self, result: list[Reply] | ServerError) -> None:
        """Answer once; later answers have nowhere to go."""
        done, self.done = self.done, None
        if done is not None:
            done(result)


_Unanswered = tuple[asyncio.Future[Reply] | _Batch, float, float]
"""Who waits, when it was sent, and its deadline: times of the event loop's clock, less this process's own lateness."""


class Connection(asyncio.Protocol):
    """A connected, pipelined connection. Not reconnecting: when it is lost it stays lost (`lost` is set)."""

    def __init__(
        self,
        stream: asyncio.StreamWriter,
        on_push: Callable[[Any], None] | None = None,
        error: Callable[[str], ServerError] = reply_error,
    ) -> None:
        import hiredis  # noqa: PLC0415 - a process without a server does without it

        self._pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)
        self._stream = stream  # kept: its finalizer would close the transport
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=Unavailable, replyError=error)
        self._pending: deque[_Unanswered] = deque()
        self._unsent: list[bytes] = []
        self._queued_at = 0.0
        self._alone = False
        """Whether the last command had no company: the next one then leaves at once, not at the end of its tick."""
        self.on_push = on_push
        self.replace_at: float | None = None
        """When its credentials want it replaced, time of the loop: one that listens cannot say AUTH."""
        self._watching = False
        self._watch_at = 0.0
        self._late = 0
        self._late_since = 0.0
        self._room = asyncio.Event()
        self._room.set()
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        self.last_reply = self._loop.time()
        self._transport = cast("asyncio.Transport", stream.transport)
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    # -- commands ---------------------------------------------------------------------------------------------------

    def send(self, *command: Argument, timeout_s: float = TIMEOUT_S) -> asyncio.Future[Reply]:
        """Send one command, with others of this loop tick if there are any; the future is its reply.

        Raises: Unavailable at once when the connection is gone. The future raises a ServerError.
        """
        if self.lost.done():
            raise Unavailable(str(self.lost.result()))
        future: asyncio.Future[Reply] = self._loop.create_future()
        now = self._loop.time()
        if self._alone and not self._pending and not self._unsent:
            self._transport.write(self._pack(command))
        else:
            if not self._unsent:
                self._queued_at = now
                self._loop.call_soon(self._flush)
            self._unsent.append(self._pack(command))
        self._pending.append((future, now, now + timeout_s))
        if not self._watching:
            self._watch_later()
        return future

    def submit(self, commands: Sequence[tuple[Argument, ...]], done: Done, timeout_s: float = TIMEOUT_S) -> None:
        """Send several commands now, in one write with whatever waits; *done* is called with their replies.

        Raises: Unavailable at once when the connection is gone.
        """
        if self.lost.done():
            raise Unavailable(str(self.lost.result()))
        now = self._loop.time()
        if not self._unsent:
            self._queued_at = now
        self._unsent.extend([self._pack(command) for command in commands])
        self._pending.append((_Batch(len(commands), done), now, now + timeout_s))
        self._flush()
        if not self._watching:
            self._watch_later()

    async def call(self, *command: Argument, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send one command and return its reply. Raises: ServerError."""
        if not self._room.is_set():
            await self._room.wait()
        return await self.send(*command, timeout_s=timeout_s)

    async def gather(self, commands: Sequence[tuple[Argument, ...]], *, timeout_s: float = TIMEOUT_S) -> list[Reply]:
        """Send several commands in one write and return their replies, error replies among them.

        Raises: Unavailable when there are none.
        """
        if not self._room.is_set():
            await self._room.wait()
        answered: asyncio.Future[list[Reply]] = self._loop.create_future()

        def done(replies: list[Reply] | ServerError) -> None:
            if answered.done():
                return
            if isinstance(replies, ServerError):
                answered.set_exception(replies)
            else:
                answered.set_result(replies)

        self.submit(commands, done, timeout_s)
        return await answered

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Argument] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Run a script by its digest, or whole where the server does not know it (it did not run then)."""
        known, rest = script(verb), (len(keys), *keys, *args)
        try:
            return await self.call("EVALSHA", known.digest, *rest, timeout_s=timeout_s)
        except UnknownScript:
            return await self.call("EVAL", known.text, *rest, timeout_s=timeout_s)

    def post(self, *command: Argument) -> None:
        """Send a command that has no reply of its own (SUBSCRIBE and its like answer with pushes)."""
        if self.lost.done():
            raise Unavailable(str(self.lost.result()))
        if not self._unsent:
            self._queued_at = self._loop.time()
            self._loop.call_soon(self._flush)
        self._unsent.append(self._pack(command))

    def abort(self, reason: Exception) -> None:
        """Drop the connection now; everything unanswered fails with *reason*."""
        self._transport.abort()
        self._lose(reason)

    async def close(self) -> None:
        """Close the connection. Waits for nothing. Idempotent."""
        self.abort(Unavailable("the connection was closed"))

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give every complete reply to whoever waits for it, in order."""
        now = self.last_reply = self._loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if not self._pending:
                    if self.on_push is not None:
                        self.on_push(reply)
                    continue
                waiting, sent, deadline = self._pending[0]
                if self._late and (now <= deadline or now - sent <= TIMELY_S):
                    self._late = 0
                if isinstance(waiting, _Batch):
                    waiting.replies.append(reply)
                    if len(waiting.replies) == waiting.expected:
                        self._pending.popleft()
                        waiting.settle(waiting.replies)
                    continue
                self._pending.popleft()
                if waiting.done():  # its caller gave up; the reply has nowhere to go
                    continue
                if isinstance(reply, ServerError):
                    waiting.set_exception(reply)
                else:
                    waiting.set_result(reply)
        except Unavailable as broken:  # the stream is not RESP any more: nothing on it can be trusted
            self.abort(broken)

    def eof_received(self) -> None:
        """The server closed its side."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whatever is unanswered."""
        self._lose(exc or Unavailable("the server closed the connection"))

    def pause_writing(self) -> None:
        """The kernel's buffer is full: callers wait before they send."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The kernel's buffer has room again."""
        self._room.set()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        held_s = self._loop.time() - self._queued_at if unsent else 0.0
        if held_s > OWN_LATENESS_S:  # this process was busy between the call and the end of its tick
            self._excuse(held_s)
            self._watch_at += held_s
        self._alone = len(self._pending) == 1
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _watch_later(self) -> None:
        self._watching = True
        self._watch_at = self._loop.time() + TICK_S
        self._loop.call_at(self._watch_at, self._watch)

    def _watch(self) -> None:
        """Look for what waits too long. The loop reads what has arrived by now before that is given up."""
        now = self._loop.time()
        if now - self._watch_at > OWN_LATENESS_S:
            self._excuse(now - self._watch_at)
        if any(deadline <= now for _, _, deadline in self._pending):
            self._loop.call_at(now, self._expire, now)
        else:
            self._watch_on()

    def _expire(self, now: float) -> None:
        """Time out what waited too long. Only silence, or lateness that lasts, costs the connection."""
        for waiting, sent, deadline in self._pending:
            if deadline > now or not _fail(waiting, ServerTimeout("the server did not answer in time")):
                continue
            if deadline - sent >= TIMELY_S:
                self._late_since = self._late_since if self._late else now
                self._late += 1
        silent = self._pending and now - max(self._pending[0][2], self.last_reply) > SILENCE_S
        slow = self._late >= LATE_IN_A_ROW and now - self._late_since >= LATE_FOR_S
        if silent or slow:
            self.abort(ServerTimeout("the connection does not answer" if silent else "the server answers too late"))
        self._watch_on()

    def _watch_on(self) -> None:
        self._watching = False
        if self._pending and not self.lost.done():
            self._watch_later()

    def _excuse(self, late_s: float) -> None:
        """Give back to whatever waits the time in which this process did not get to reading answers."""
        self._pending = deque((waiting, sent + late_s, deadline + late_s) for waiting, sent, deadline in self._pending)
        self.last_reply += late_s
        self._late_since += late_s

    def _lose(self, reason: Exception) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._room.set()
        pending, self._pending = self._pending, deque()
        for waiting, _, _ in pending:
            _fail(waiting, reason if isinstance(reason, Unavailable) else Unavailable(str(reason)))


def _fail(waiting: asyncio.Future[Reply] | _Batch, reason: ServerError) -> bool:
    """End a wait without an answer; False where nobody waits any more."""
    if isinstance(waiting, _Batch):
        waits = waiting.done is not None
        waiting.settle(reason)
        return waits
    if waiting.done():
        return False
    waiting.set_exception(reason)
    return True
