"""Where a server is, from its URL, and how a connection to it begins."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from cachebus.errors import AccessDenied, CommandRefused, ConfigurationError, ServerError, ServerTimeout, Unavailable
from cachebus.redis.connection import Argument, Connection
from cachebus.redis.credentials import Credential, Credentials
from cachebus.redis.replies import lone_node_error, reply_error
from cachebus.waiting import done_within, end

if TYPE_CHECKING:
    from cachebus.redis.driver import Opener

HANDSHAKE_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 2.0
ENCODED = "in a password / is written %2F, ? %3F, # %23, @ %40"
"""Said of a URL that cannot be read. What was found there is never quoted: it may be a part of the password."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_UNENCODED = re.compile(r"[?#\[\]\s]")
_PLAIN = re.compile(
    r"redis://(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?(?P<host>[^:@/?#\[\]]+|\[[0-9A-Fa-f:.]+\])?"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/(?P<db>[0-9]*))?"
)

Place = tuple[str, int]
"""Host and port of one node."""


class Address:
    """Where a server is, from its URL; secrets never appear in `str()`.

    Forms: `redis://[user:password@]host:port/db`, `rediss://…` (TLS; `?ssl_cert_reqs=none` for a self-signed
    certificate), `unix:///path.sock?db=0`, `redis+sentinel://host:port,host:port/service/db`,
    `redis+cluster://host:port,host:port` (and `rediss+…`).
    """

    def __init__(self, url: str, credentials: Credentials | None = None) -> None:
        """*credentials* take the place of user and password of the URL."""
        scheme, separator, rest = url.partition("://")
        base, _, kind = scheme.partition("+")
        if not separator or base not in {"redis", "rediss", "unix"} or kind not in {"", "sentinel", "cluster"}:
            found = f"{scheme}://" if separator and _SCHEME.fullmatch(scheme) else "what it begins with"
            raise ConfigurationError(
                f"REDIS_URL: {found} is not a known form; use redis://, rediss://, unix://, "
                "redis+sentinel:// or redis+cluster://"
            )
        self.kind = kind or "single"
        self._tls = base == "rediss"
        authority, slash, path = rest.partition("/") if base != "unix" else (rest, "", "")
        userinfo, at, hosts = authority.rpartition("@")
        if base != "unix" and _UNENCODED.search(userinfo):
            raise ConfigurationError(f"REDIS_URL: where the password ends cannot be told; {ENCODED}")
        self.hosts = [_host_and_port(host) for host in hosts.split(",")] if base != "unix" else []
        service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
        self.service = service.partition("?")[0]
        first = hosts.split(",")[0]
        if kind == "sentinel" and not self.service:
            raise ConfigurationError("REDIS_URL: redis+sentinel:// needs the service name: …/mymaster/0")
        number = database.partition("?")[0]
        if base != "unix" and number and not number.isdigit():
            raise ConfigurationError(f"REDIS_URL: after the host's / comes the number of a database; {ENCODED}")
        self._credentials = credentials
        self._opener = _opener(f"{base}://{userinfo}{at}{first}{slash}{database}")

    def __str__(self) -> str:
        where = self._opener.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{'tls ' if self._tls else ''}{self.kind} {where}"

    __repr__ = __str__

    async def connect(
        self, node: Place | None = None, *, on_push: Callable[[Any], None] | None = None, apart: bool = False
    ) -> Connection:
        """Open one connection to *node*, or to the primary this address stands for.

        *apart*: in another thread than usual. Raises: Unavailable, NotReady, AccessDenied. Takes at most 2 s to
        connect, 2 s for the handshake, and 5 s for the credentials where the application gives them.
        """
        if node is None and self.kind == "sentinel":
            node = await self._primary()
        if self._credentials is None:
            opener = self._opener
            said = bool(opener.username or opener.password)
            given = Credential(opener.username, opener.password or "", 0.0) if said else None
            return await self._open(node, self._handshake(given), on_push)
        return await self._connect_with(self._credentials, node, on_push, apart=apart)

    async def _connect_with(
        self,
        credentials: Credentials,
        node: Place | None,
        on_push: Callable[[Any], None] | None,
        *,
        apart: bool,
    ) -> Connection:
        """Connect with what is valid now; once more where it changed between the question and the handshake."""
        credential = await credentials.ask(apart=apart)
        try:
            try:
                connection = await self._open(node, self._handshake(credential), on_push)
            except AccessDenied:
                before, credential = credential, await credentials.ask()
                if credential[:2] == before[:2]:
                    raise
                connection = await self._open(node, self._handshake(credential), on_push)
        except AccessDenied as denied:
            raise AccessDenied(f"{denied} ({credentials.name})") from None
        credentials.attend(connection, credential)
        return connection

    async def _open(
        self, node: Place | None, handshake: list[tuple[Argument, ...]], on_push: Callable[[Any], None] | None = None
    ) -> Connection:
        error = lone_node_error if self.kind == "single" else reply_error
        connections: list[Connection] = []

        def opened(stream: asyncio.StreamWriter) -> None:
            connections.append(Connection(stream, on_push, error))

        try:
            await self._opener.open(node, opened)
            await _shake(connections[0], handshake)
        except BaseException:  # also a cancellation that came while the socket was opened
            for connection in connections:
                await connection.close()
            raise
        return connections[0]

    def _handshake(self, credential: Credential | None) -> list[tuple[Argument, ...]]:
        """RESP2 needs no HELLO, which an old proxy may refuse."""
        opener = self._opener
        commands = [credential.command] if credential is not None else []
        if opener.db:
            commands.append(("SELECT", opener.db))
        if opener.client_name:
            commands.append(("CLIENT", "SETNAME", opener.client_name))
        return commands

    async def _primary(self) -> Place:
        """Ask one sentinel after the other; the first that knows answers. They are asked without credentials."""
        for sentinel in self.hosts:
            try:
                connection = await self._open(sentinel, [])
            except ServerError:
                continue
            try:
                found = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service, timeout_s=1.0)
            except ServerError:
                continue
            finally:
                await connection.close()
            if found:
                return str(found[0].decode()), int(found[1])
        raise Unavailable(f"no sentinel knows the primary of {self.service!r}")


class TcpOpener:
    """As the driver's `Opener`, for `redis://[user:password@]host[:port][/db]`.

    The driver opens every other kind (TLS, unix, options): importing it takes three times as long as the rest of a
    program that only asks something, and this kind needs none of it.
    """

    client_name: str | None = None
    path: str | None = None

    def __init__(self, place: tuple[str, int], username: str | None, password: str | None, db: int) -> None:
        self._place = place
        self.username = username
        self.password = password
        self.db = db

    @classmethod
    def of(cls, url: str) -> Self | None:
        """Return the opener of *url*, None where it says more than a place and who asks."""
        found = _PLAIN.fullmatch(url)
        if found is None:
            return None
        place = ((found["host"] or "localhost").strip("[]"), int(found["port"] or 6379))
        username, password = (unquote(each) if each else None for each in (found["user"], found["password"]))
        return cls(place, username, password, int(found["db"] or 0))

    async def open(self, place: tuple[str, int] | None, opened: Callable[[asyncio.StreamWriter], None]) -> None:
        """See `driver.Opener.open`."""
        # A fresh context: a connection outlives the request whose task happened to open it.
        opening = asyncio.get_running_loop().create_task(self._connect(place or self._place, opened), context=Context())
        try:
            if not await done_within(opening, CONNECT_TIMEOUT_S):
                raise ServerTimeout(f"no connection within {CONNECT_TIMEOUT_S:g} s")
            opening.result()
        except (OSError, OverflowError) as refused:
            raise Unavailable(str(refused)) from refused
        finally:
            if not opening.done():
                await end([opening])

    @staticmethod
    async def _connect(place: tuple[str, int], opened: Callable[[asyncio.StreamWriter], None]) -> None:
        _, stream = await asyncio.open_connection(*place)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            stream.transport.abort()
        else:
            opened(stream)


def _opener(url: str) -> Opener | TcpOpener:
    plain = TcpOpener.of(url)
    if plain is not None:
        return plain
    from cachebus.redis.driver import Opener  # noqa: PLC0415 - two thirds of the start of a program that asks something

    return Opener(url)


async def _shake(connection: Connection, handshake: list[tuple[Argument, ...]]) -> None:
    replies = await connection.gather(handshake, timeout_s=HANDSHAKE_TIMEOUT_S) if handshake else []
    for command, reply in zip(handshake, replies, strict=True):
        if isinstance(reply, ServerError):
            raise _refused(command, reply)


def _refused(command: tuple[Argument, ...], reply: ServerError) -> ServerError:
    """Return the error of a refused handshake. Old servers have no word of their own for a wrong password."""
    if command[0] == "AUTH" and isinstance(reply, CommandRefused):
        return AccessDenied(str(reply))
    if command[0] == "SELECT" and isinstance(reply, CommandRefused):
        return CommandRefused(f"database {command[1]!r}: {reply}")
    return reply


def _host_and_port(text: str) -> Place:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, "6379"
    port = port.partition("?")[0]
    if not port.isdecimal() or not 0 < int(port[:6]) < 65_536:
        raise ConfigurationError(f"REDIS_URL: after the host's : comes the number of a port, 1 to 65535; {ENCODED}")
    return host.strip("[]") or "localhost", int(port)
