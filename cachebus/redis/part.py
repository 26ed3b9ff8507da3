"""A part of the library in the form that its connection asks for: over a server, or in this process alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from cachebus.errors import ConfigurationError
from cachebus.redis.client import Client, Connector, InProcess

T = TypeVar("T")


class Part(Generic[T]):
    """What *over* makes of a client, or *alone* of a process without a server; made at first use.

    A cache connects again in another event loop and after a fork. What was made for the connection before is then
    replaced, so that a part may be created at import time and used anywhere.
    """

    def __init__(self, connector: Connector, over: Callable[[Client], T], alone: Callable[[InProcess], T]) -> None:
        if not hasattr(connector, "connection"):
            raise ConfigurationError(
                f"{connector!r} is neither a cachebus.Cache nor a cachebus.Client; code without an event loop imports "
                "Cache and its parts from cachebus.sync"
            )
        self._connector = connector
        self._over = over
        self._alone = alone
        self._basis: Client | InProcess | None = None
        self.made: T | None = None
        """What was made for the last connection, None before the first use."""

    async def get(self) -> T:
        """Connect unless that is done, and return what was made for this connection."""
        client = await self._connector.connection()
        basis = self._connector.in_process if client is None else client
        if self.made is None or self._basis is not basis:
            self.made = self._alone(self._connector.in_process) if client is None else self._over(client)
            self._basis = basis
        return self.made
