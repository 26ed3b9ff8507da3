"""The connections of one process to one deployment, and when they begin and end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self, TypeVar, cast

from cachebus.clock import now_s
from cachebus.redis.address import Address
from cachebus.redis.cluster import Cluster
from cachebus.redis.connection import Connection
from cachebus.redis.credentials import Credentials, Provider
from cachebus.redis.keyspace import Names
from cachebus.redis.refusals import Refusals
from cachebus.redis.server import Node, Server, Welcome
from cachebus.redis.subscriptions import Subscriptions

T = TypeVar("T")


def _server(url: str, credentials: Credentials | None, names: Names, welcome: Welcome | None = None) -> Server:
    address = Address(url, credentials)
    return (Cluster if address.kind == "cluster" else Node)(address, names, welcome)


class InProcess:
    """What parts without a server share inside one process: one object of each kind, made when first asked for."""

    def __init__(self) -> None:
        self._made: dict[type[Any], Any] = {}

    def of(self, kind: type[T]) -> T:
        """Return the one *kind* of this process."""
        if kind not in self._made:
            self._made[kind] = kind()
        return cast("T", self._made[kind])


class Connector(Protocol):
    """What bus, locks, limits, sessions and pub/sub are built on: a `Cache`, or a bare `Client`."""

    @property
    def names(self) -> Names:
        """The names of what the deployment stores."""
        ...

    @property
    def in_process(self) -> InProcess:
        """What parts share where `connection()` is None. A new one with each new connection, as memory begins empty."""
        ...

    async def connection(self) -> Client | None:
        """Connect unless that is done; returns the client, None where this process works alone, without a server."""
        ...


class Client:
    """What a process holds open: one shared connection per server, one for pub/sub (opened when somebody listens).

    `entries` holds cached values and may evict; `store` holds what must not be evicted: ledger, bus, locks, limits,
    sessions. Without a `store_url` both are one server. `credentials`, an async function that returns (user, password,
    expires_at), takes the place of users and passwords in the URLs.
    """

    def __init__(
        self,
        url: str,
        *,
        store_url: str | None = None,
        namespace: str = "cachebus",
        credentials: Provider | Credentials | None = None,
    ) -> None:
        if credentials is not None and not isinstance(credentials, Credentials):
            credentials = Credentials(credentials)
        self._names = Names(namespace)
        self.in_process = InProcess()
        self.welcomes: list[Welcome] = []
        """Called with every new connection to the store, before anyone may use it."""
        self.store = _server(store_url or url, credentials, self.names, self._welcome)
        apart = store_url is not None and store_url != url
        self.entries = _server(url, credentials, self.names) if apart else self.store
        self.subscriptions = Subscriptions(self.store, self.names.wake)
        self.wakes = self.subscriptions if self.entries is self.store else Subscriptions(self.entries, self.names.wake)
        """Where fills announce themselves: on the entries' server."""
        self.refusals = Refusals()
        """Which reads are refused, for whoever shows how the cache is."""
        self.tellers: defaultdict[str, list[Callable[[str], Iterable[Any]]]] = defaultdict(list)
        """By topic: what tells, of a name that somebody asks for, what this process knows, as plain data or Structs."""
        self.process = ""
        """What this process is called in its deployment; '' where nobody said."""
        self._offset_us = 0

    @property
    def names(self) -> Names:
        """The names of what the deployment stores."""
        return self._names

    async def connection(self) -> Client | None:
        """Return this client: it has been started by whoever made it."""
        return self

    async def start(self) -> None:
        """Connect; returns after the first attempt. A server that is unavailable is tried again for ever."""
        await self.store.start()
        if self.entries is not self.store:
            await self.entries.start()

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self.subscriptions.close()
        await self.wakes.close()
        await self.entries.close()
        if self.entries is not self.store:
            await self.store.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def now_us(self) -> int:
        """Return the server's time in microseconds, as last compared; no process's wall clock takes part."""
        return self.at_us(now_s())

    def at_us(self, moment_s: float) -> int:
        """Return the server's time at a moment of `now_s`."""
        return int(moment_s * 1_000_000) + self._offset_us

    async def _welcome(self, connection: Connection) -> None:
        asked = now_s()
        seconds, micros = await connection.call("TIME")
        self._offset_us = int(seconds) * 1_000_000 + int(micros) - int((asked + now_s()) / 2 * 1_000_000)
        for welcome in self.welcomes:
            await welcome(connection)
