"""The connections of one process to one deployment, and when they begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Self

from cachebus.cluster import Cluster
from cachebus.names import Names
from cachebus.server import Node, Server, Welcome
from cachebus.subscriptions import Subscriptions
from cachebus.wire import Address, Wire


def now_s() -> float:
    """Return seconds on a clock that runs on while the machine sleeps (CLOCK_MONOTONIC stops there)."""
    return _clock()


_clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


def _server(address: Address, welcome: Welcome | None, *, home: str) -> Server:
    return Cluster(address, welcome, home=home) if address.kind == "cluster" else Node(address, welcome)


class Link:
    """What a process holds open: one shared connection per server, one for pub/sub (opened when somebody listens).

    `entries` holds cached values and may evict; `store` holds what must not be evicted: ledger, bus, locks, limits,
    sessions. Without a `store_url` both are one server.
    """

    def __init__(self, url: str, *, store_url: str | None = None, namespace: str = "cachebus") -> None:
        self.names = Names(namespace)
        self.welcomes: list[Welcome] = []
        """Called with every new connection to the store, before anyone may use it."""
        self.store = _server(Address(store_url or url), self._welcome, home=self.names.ledger)
        apart = store_url is not None and store_url != url
        self.entries = _server(Address(url), None, home=self.names.wake) if apart else self.store
        self.subscriptions = Subscriptions(self.store, self.names.wake)
        self.wakes = self.subscriptions if self.entries is self.store else Subscriptions(self.entries, self.names.wake)
        """Where fills announce themselves: on the entries' server."""
        self._offset_us = 0

    async def start(self) -> None:
        """Connect; returns after the first attempt, also when the server is away (it is then tried again for ever)."""
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

    async def _welcome(self, wire: Wire) -> None:
        asked = now_s()
        seconds, micros = await wire.call("TIME")
        self._offset_us = int(seconds) * 1_000_000 + int(micros) - int((asked + now_s()) / 2 * 1_000_000)
        for welcome in self.welcomes:
            await welcome(wire)
