"""What is used of redis-py: its reading of a URL, and its opening of a socket (TCP, TLS with SNI, unix).

The only module that imports it, and imported only when there is something to connect to. Its own handshake is left
out: what it sends there waits with `asyncio.wait_for`, which loses cancellations on Python 3.11.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextvars import Context
from typing import Any

import redis.exceptions as driver_errors
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cachebus.errors import ConfigurationError, ServerTimeout, Unavailable
from cachebus.waiting import done_within, end

CONNECT_TIMEOUT_S = 2.0


class Opener:
    """Opens sockets to the server of one URL. `username`, `password`, `db` and `client_name` are for the handshake."""

    def __init__(self, url: str) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError as malformed:  # which quotes what it could not read, perhaps a part of the password
            why = str(malformed) if str(malformed).startswith("Invalid value for") else "the URL cannot be read"
            raise ConfigurationError(f"REDIS_URL: {why}") from None
        self.username: str | None = options.pop("username", None)
        self.password: str | None = options.pop("password", None)
        self.db = int(options.pop("db", 0))
        self.client_name: str | None = options.pop("client_name", None)
        self.path: str | None = options.get("path")
        self._class: type[AbstractConnection] = options.pop("connection_class", Connection)
        self._options = options | {
            "retry": Retry(NoBackoff(), 0),  # a re-sent command may run twice; who wants a retry says so above
            "protocol": 2,
            # Deadlines are ours: those of the driver would count the time in which this process was busy.
            "socket_connect_timeout": None,
            "socket_timeout": None,
        }
        self._tls: Any = None
        self._files_read: list[int] = []
        if issubclass(self._class, SSLConnection):  # else redis-py 5 checks who signed a certificate, not for whom
            checked = str(options.get("ssl_cert_reqs", "required")) not in {"none", "CERT_NONE"}
            self._options.setdefault("ssl_check_hostname", checked)
        try:
            self._class(**self._options)
        except (TypeError, ValueError, driver_errors.RedisError) as unknown:
            raise ConfigurationError(f"REDIS_URL: an option after the '?' is not known: {unknown}") from None

    async def open(self, place: tuple[str, int] | None, opened: Callable[[asyncio.StreamWriter], None]) -> None:
        """Open a socket to *place*, or to the URL's own; *opened* is called with it before anything can be read.

        Raises: Unavailable, ServerTimeout. A cancellation is never lost; what it leaves open is the caller's to close.
        """

        def take_over(connection: AbstractConnection) -> None:
            stream = connection._writer  # noqa: SLF001 - the one reach into the driver: it offers no way to its socket
            connection._reader = connection._writer = None  # noqa: SLF001 - so that its finalizer has nothing to close
            assert stream is not None  # noqa: S101 - it has just been opened
            if opening.cancelling():
                stream.transport.abort()
            else:
                opened(stream)

        where = {} if place is None else {"host": place[0], "port": place[1]}
        connection = self._class(**{**self._options, **where, "redis_connect_func": take_over})
        if isinstance(connection, SSLConnection):
            self._share_certificates(connection)
        # A fresh context: a connection outlives the request whose task happened to open it.
        opening = asyncio.get_running_loop().create_task(_connect(connection), context=Context())
        try:
            if not await done_within(opening, CONNECT_TIMEOUT_S):
                raise ServerTimeout(f"no connection within {CONNECT_TIMEOUT_S:g} s")
            opening.result()
        except (driver_errors.RedisError, OSError) as refused:
            raise Unavailable(str(refused)) from refused
        finally:
            if not opening.done():
                await end([opening])

    def _share_certificates(self, connection: SSLConnection) -> None:
        """Have connections share what was read of certificates, until a file that the URL names has changed.

        Reading those of the machine stops the loop for ten milliseconds.
        """
        named = (self._options.get(name) for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"))
        files = [os.stat(path).st_mtime_ns if os.path.exists(path) else 0 for path in named if path]  # noqa: PTH110, PTH116
        if self._tls is None or files != self._files_read:
            self._tls, self._files_read = connection.ssl_context, files
        connection.ssl_context = self._tls


async def _connect(connection: AbstractConnection) -> None:
    await connection.connect()  # type: ignore[no-untyped-call] # the driver has no annotation here
