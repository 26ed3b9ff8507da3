"""fakeredis in the place of a server: for development where no real server runs, the scripts must run there as well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import fakeredis
from redis.exceptions import ResponseError

from cachebus.redis.client import InProcess
from cachebus.redis.keyspace import Names
from cachebus.redis.replies import reply_error
from cachebus.redis.scripts import script
from cachebus.redis.server import TIMEOUT_S


class FakeServer:
    """As much of `Server` as limits and sessions use."""

    one_connection = True

    def __init__(self) -> None:
        self._redis = fakeredis.FakeRedis()
        self._redis.response_callbacks.clear()  # replies as they come, not as the driver dresses them

    async def call(self, *command: Any, key: str | None = None, timeout_s: float = TIMEOUT_S) -> Any:
        """Run one command."""
        try:
            return self._redis.execute_command(*command)
        except ResponseError as refused:
            raise reply_error(f"ERR {refused}") from refused

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Any] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """Run a script."""
        return self._redis.eval(script(verb).text, len(keys), *keys, *args)


class FakeSubscriptions:
    """Hears nothing: there is one process."""

    async def subscribe(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class FakeClient:
    """What limits and sessions ask of a client."""

    def __init__(self) -> None:
        self.store = FakeServer()
        self.names = Names("fake")
        self.subscriptions = FakeSubscriptions()
        self.in_process = InProcess()
        self.tellers: defaultdict[str, list[Any]] = defaultdict(list)

    async def connection(self) -> Any:
        """Return this client."""
        return self


def fake_client() -> Any:
    """Return a client of a server of its own."""
    return FakeClient()
