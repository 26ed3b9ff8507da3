"""fakeredis in the place of a server: for development where no real server runs, the scripts must run there as well."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import fakeredis
from redis.exceptions import ResponseError

from cachebus.names import Names
from cachebus.scripts import script
from cachebus.server import TIMEOUT_S
from cachebus.wire import reply_error


class FakeServer:
    """As much of `Server` as limits and sessions use."""

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


def fake_link() -> Any:
    """Return what limits and sessions ask of a link."""
    return SimpleNamespace(store=FakeServer(), names=Names("fake"), subscriptions=FakeSubscriptions())
