"""A deployment whose time a test sets: scripts read a key where they would ask the server for the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cachebus import Client
from cachebus.redis.replies import Reply
from cachebus.redis.scripts import script
from cachebus.redis.server import Server


class Clock:
    """What all processes of a deployment, and its server, take for the time."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def set_for(self, client: Client, *, skew_us: int = 0) -> None:
        """Let a process live by this clock; its own is wrong by *skew_us*."""
        client.store = _ClockedServer(client.store, self, f"{client.names.namespace}:clock")
        client.now_us = lambda: self.now_us + skew_us  # type: ignore[method-assign]


class _ClockedServer:
    def __init__(self, server: Server, clock: Clock, key: str) -> None:
        self._server = server
        self._clock = clock
        self._key = key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def run(self, verb: str, keys: Sequence[str], args: Sequence[Any] = (), **_options: float) -> Reply:
        """Run a script at the time of the clock."""
        time = f"redis.call('HMGET', '{self._key}', 'seconds', 'microseconds')"
        text = script(verb).text.replace("redis.call('TIME')", time)
        seconds, micros = divmod(self._clock.now_us, 1_000_000)
        _, reply = await asyncio.gather(
            self._server.call("HSET", self._key, "seconds", seconds, "microseconds", micros, timeout_s=5),
            self._server.call("EVAL", text, len(keys), *keys, *args, timeout_s=5),
        )
        return reply
