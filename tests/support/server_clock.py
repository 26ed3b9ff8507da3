"""A server whose clock a test sets: scripts read a key where they would read TIME. Keys still expire in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cachebus.redis.scripts import script
from cachebus.redis.server import TIMEOUT_S, Server


class ClockedServer:
    """Runs the scripts of this library on a clock of its own, in whole microseconds.

    With *linger_ms* keys outlive by that much what they hold: a counter whose clock stands must not expire meanwhile.
    """

    def __init__(self, server: Server, namespace: str, *, linger_ms: int = 1000) -> None:
        self._server = server
        self._linger_ms = linger_ms
        self._digests: dict[str, bytes] = {}
        self.namespace = namespace
        self._key = f"{namespace}:clock"
        self._clock = (
            f"local function test_time() local us = redis.call('GET', '{self._key}') "
            "return { math.floor(us / 1e6), math.fmod(us, 1e6) } end\n"
        )
        self.now_us = 1_800_000_000_000_000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Any] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """Run a script at `now_us`."""
        set_clock = ("SET", self._key, self.now_us, "EX", 3600)
        if verb not in self._digests:
            text = self._clock + script(verb).text.replace("redis.call('TIME')", "test_time()")
            text = text.replace("+ 1000)", f"+ {self._linger_ms})")
            self._digests[verb] = await self._server.call("SCRIPT", "LOAD", text)
        run = ("EVALSHA", self._digests[verb], len(keys), *keys, *args)
        both = [self._server.call(*command, timeout_s=max(timeout_s, 5.0)) for command in (set_clock, run)]
        return (await asyncio.gather(*both))[1]
