"""One connection that many tasks share. The only module that imports the driver.

The driver opens the connection (URL, TLS, AUTH, SELECT) and then hands its transport to `Wire`, which only does what a
shared connection needs: commands of one loop tick leave in one write, replies come back in order, a caller that gives
up costs nobody a reconnect, and an unanswered connection is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, cast

import hiredis
import redis.exceptions as driver_errors
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot as _key_slot

from cachebus.errors import (
    AccessDenied,
    CommandRefused,
    ConfigurationError,
    Moved,
    NotReady,
    ReadOnlyServer,
    ServerError,
    ServerOutOfMemory,
    ServerTimeout,
    Unavailable,
    UnknownScript,
    WrongType,
)

Argument = str | bytes | int | float
Reply = Any  # what a server may answer: bytes, int, None, a list of replies, or a ServerError inside a list

CONNECT_TIMEOUT_S = 2.0
SILENCE_S = 1.0
"""A connection that owes an answer past its deadline and stays silent this long is dropped."""
LATE_IN_A_ROW = 5
"""So many timeouts without one timely answer, and the connection is given up: a slow server counts as away."""
TICK_S = 0.025
"""How often unanswered commands are looked at. A timeout is late by at most this."""

_ERRORS: dict[str, type[ServerError]] = {
    "LOADING": NotReady,
    "BUSY": NotReady,
    "CLUSTERDOWN": NotReady,
    "MASTERDOWN": NotReady,
    "TRYAGAIN": NotReady,
    "READONLY": ReadOnlyServer,
    "OOM": ServerOutOfMemory,
    "NOAUTH": AccessDenied,
    "WRONGPASS": AccessDenied,
    "NOPERM": AccessDenied,
    "WRONGTYPE": WrongType,
    "NOSCRIPT": UnknownScript,
    "MOVED": Moved,
    "ASK": Moved,
}


_pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


def reply_error(message: str) -> ServerError:
    """Return the error of this library that an error reply stands for."""
    return _ERRORS.get(message.split(" ", 1)[0], CommandRefused)(message)


def key_slot(key: str) -> int:
    """Return the cluster slot (0..16383) of *key*, hash tags respected."""
    return int(_key_slot(key.encode()))


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


class Wire(asyncio.Protocol):
    """A connected, pipelined connection. Not reconnecting: when it is lost it stays lost (`lost` is set)."""

    def __init__(self, connection: AbstractConnection, on_push: Callable[[Any], None] | None = None) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=Unavailable, replyError=reply_error)
        self._pending: deque[tuple[asyncio.Future[Reply] | _Batch, float]] = deque()
        self._unsent: list[bytes] = []
        self._alone = False
        """Whether the last command had no company: the next one then leaves at once, not at the end of its tick."""
        self._on_push = on_push
        self._watching = False
        self._watch_at = 0.0
        self._late = 0
        self._room = asyncio.Event()
        self._room.set()
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        self.last_reply = self._loop.time()
        # The driver keeps no reference of its own to what it opened once we read from it.
        self._transport = cast("asyncio.Transport", connection._writer.transport)  # type: ignore[union-attr]  # noqa: SLF001 - the one place where we take the opened socket over
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    # -- commands ---------------------------------------------------------------------------------------------------

    def send(self, *command: Argument, timeout_s: float = 5.0) -> asyncio.Future[Reply]:
        """Send one command, with others of this loop tick if there are any; the future is its reply.

        Raises: Unavailable at once when the connection is gone. The future raises a ServerError.
        """
        if self.lost.done():
            raise Unavailable(str(self.lost.result()))
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._alone and not self._pending and not self._unsent:
            self._transport.write(_pack(command))
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(_pack(command))
        self._pending.append((future, self._loop.time() + timeout_s))
        if not self._watching:
            self._watch_later()
        return future

    def submit(self, commands: Sequence[tuple[Argument, ...]], done: Done, timeout_s: float = 5.0) -> None:
        """Send several commands now, in one write with whatever waits; *done* is called with their replies.

        Raises: Unavailable at once when the connection is gone.
        """
        if self.lost.done():
            raise Unavailable(str(self.lost.result()))
        self._unsent.extend([_pack(command) for command in commands])
        self._pending.append((_Batch(len(commands), done), self._loop.time() + timeout_s))
        self._flush()
        if not self._watching:
            self._watch_later()

    async def call(self, *command: Argument, timeout_s: float = 5.0) -> Reply:
        """Send one command and return its reply. Raises: ServerError."""
        if not self._room.is_set():
            await self._room.wait()
        return await self.send(*command, timeout_s=timeout_s)

    def post(self, *command: Argument) -> None:
        """Send a command that has no reply of its own (SUBSCRIBE and its like answer with pushes)."""
        if self.lost.done():
            raise Unavailable(str(self.lost.result()))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(_pack(command))

    def abort(self, reason: Exception) -> None:
        """Drop the connection now; everything unanswered fails with *reason*."""
        self._transport.abort()
        self._lose(reason)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self.abort(Unavailable("the connection was closed"))
        self._connection._reader = self._connection._writer = None  # noqa: SLF001 - so that its finalizer has nothing to close

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand every complete reply to whoever waits for it, in order."""
        self.last_reply = self._loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if not self._pending:
                    if self._on_push is not None:
                        self._on_push(reply)
                    continue
                waiting = self._pending[0][0]
                if isinstance(waiting, _Batch):
                    waiting.replies.append(reply)
                    if len(waiting.replies) == waiting.expected:
                        self._pending.popleft()
                        self._late = self._late if waiting.done is None else 0
                        waiting.settle(waiting.replies)
                    continue
                self._pending.popleft()
                if waiting.done():  # its caller gave up; the reply has nowhere to go
                    continue
                self._late = 0
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
        """The kernel takes no more: callers wait before they send."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The kernel takes more again."""
        self._room.set()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        self._alone = len(self._pending) == 1
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _watch_later(self) -> None:
        self._watching = True
        self._watch_at = self._loop.time() + TICK_S
        self._loop.call_at(self._watch_at, self._watch)

    def _watch(self) -> None:
        """Time out what waited too long, without touching the connection unless it is late again and again, or silent.

        A look that comes late itself says that this process was busy or stopped, not that the server was slow: what
        waits gets that time back.
        """
        now = self._loop.time()
        if now - self._watch_at > TICK_S:
            back = now - self._watch_at
            self._pending = deque((waiting, deadline + back) for waiting, deadline in self._pending)
            self.last_reply += back
        for waiting, deadline in self._pending:
            if deadline <= now and _fail(waiting, ServerTimeout("the server did not answer in time")):
                self._late += 1
        silent = self._pending and now - max(self._pending[0][1], self.last_reply) > SILENCE_S
        if silent or self._late >= LATE_IN_A_ROW:
            self.abort(ServerTimeout("the connection does not answer" if silent else "the server answers too late"))
        self._watching = False
        if self._pending and not self.lost.done():
            self._watch_later()

    def _lose(self, reason: Exception) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._room.set()
        pending, self._pending = self._pending, deque()
        for waiting, _ in pending:
            _fail(waiting, reason if isinstance(reason, Unavailable) else Unavailable(str(reason)))


def _fail(waiting: asyncio.Future[Reply] | _Batch, reason: ServerError) -> bool:
    """Tell whoever waits that there will be no answer; False where nobody does any more."""
    if isinstance(waiting, _Batch):
        waits = waiting.done is not None
        waiting.settle(reason)
        return waits
    if waiting.done():
        return False
    waiting.set_exception(reason)
    return True


class Address:
    """Where a server is, from its URL; secrets never appear in `str()`.

    Forms: `redis://[user:password@]host:port/db`, `rediss://…` (TLS; `?ssl_cert_reqs=none` for a self-signed
    certificate), `unix:///path.sock?db=0`, `redis+sentinel://host:port,host:port/service/db`,
    `redis+cluster://host:port,host:port` (and `rediss+…`).
    """

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        base, _, kind = scheme.partition("+")
        if not separator or base not in {"redis", "rediss", "unix"} or kind not in {"", "sentinel", "cluster"}:
            raise ConfigurationError(
                f"REDIS_URL: {scheme!r} is not a known form; use redis://, rediss://, unix://, "
                "redis+sentinel:// or redis+cluster://"
            )
        self.kind = kind or "single"
        self._tls = base == "rediss"
        authority, slash, path = rest.partition("/") if base != "unix" else (rest, "", "")
        credentials, at, hosts = authority.rpartition("@")
        self.hosts = [_host_and_port(host) for host in hosts.split(",")] if base != "unix" else []
        service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
        self.service = service.partition("?")[0]
        first = hosts.split(",")[0]
        if kind == "sentinel" and not self.service:
            raise ConfigurationError("REDIS_URL: redis+sentinel:// needs the service name: …/mymaster/0")
        try:
            self._options: dict[str, Any] = dict(parse_url(f"{base}://{credentials}{at}{first}{slash}{database}"))
        except ValueError as malformed:
            raise ConfigurationError(f"REDIS_URL: {malformed}") from None
        self._class: type[AbstractConnection] = self._options.pop("connection_class", Connection)

    def __str__(self) -> str:
        where = self._options.get("path") or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{'tls ' if self._tls else ''}{self.kind} {where}"

    __repr__ = __str__

    async def connect(
        self, node: tuple[str, int] | None = None, *, on_push: Callable[[Any], None] | None = None
    ) -> Wire:
        """Open one connection to *node*, or to the primary this address stands for.

        Raises: Unavailable, NotReady, AccessDenied. Takes at most CONNECT_TIMEOUT_S twice (connect, handshake).
        """
        if node is None and self.kind == "sentinel":
            node = await self._primary()
        options = dict(self._options)
        if node is not None:
            options["host"], options["port"] = node
        connection = self._class(
            **options,
            protocol=2,  # arrays for pushes, no HELLO that an old proxy may refuse
            retry=Retry(NoBackoff(), 0),  # a re-sent command may run twice; who wants a retry says so above
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=CONNECT_TIMEOUT_S,
            driver_info=None,
        )
        # A fresh context: a connection outlives the request whose task happened to open it.
        opening = asyncio.get_running_loop().create_task(_opened(connection), context=Context())
        try:
            await opening
        except driver_errors.RedisError as refused:
            raise _connect_error(refused) from refused
        except asyncio.CancelledError:  # it may be open by now, and nobody else knows of it
            await asyncio.gather(opening, return_exceptions=True)
            await connection.disconnect(nowait=True)
            raise
        return Wire(connection, on_push)

    async def _primary(self) -> tuple[str, int]:
        sentinel = Sentinel(  # type: ignore[no-untyped-call] # the driver has no annotation here
            self.hosts, socket_timeout=CONNECT_TIMEOUT_S, protocol=2
        )
        try:
            host, port = await sentinel.discover_master(self.service)
        except driver_errors.RedisError as unknown:
            raise Unavailable(f"no sentinel knows the primary of {self.service!r}") from unknown
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return str(host), int(port)


async def _opened(connection: AbstractConnection) -> None:
    await connection.connect()  # type: ignore[no-untyped-call] # the driver has no annotation here


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, "6379"
    port = port.partition("?")[0]
    if not port.isdigit():
        raise ConfigurationError(f"REDIS_URL: {port!r} is not a port number")
    return host.strip("[]") or "localhost", int(port)


def _connect_error(error: Exception) -> ServerError:
    if isinstance(error, driver_errors.BusyLoadingError):
        return NotReady(str(error))
    if isinstance(error, driver_errors.AuthenticationError | driver_errors.AuthorizationError):
        return AccessDenied(str(error))
    if isinstance(error, driver_errors.ConnectionError | driver_errors.TimeoutError):
        return Unavailable(str(error))
    return reply_error(str(error))
